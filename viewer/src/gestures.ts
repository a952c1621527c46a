/** Mouse, touch and wheel on the canvas: pan, zoom, select. */

import type { Viewport } from "./viewport";

export interface Gestures {
  view(): Viewport | null;
  changed(): void;
  selecting(): boolean;
  /** From where to where, in device pixels; `done` when the pointer is lifted. */
  select(from: [number, number], to: [number, number], done: boolean): void;
}

const WHEEL = 0.0015;
const LINE = 16; // pixels of a line that a wheel turns by

export function attach(canvas: HTMLCanvasElement, gestures: Gestures): void {
  const pointers = new Map<number, [number, number]>();
  let selected: [number, number] | null = null;
  const at = (event: MouseEvent): [number, number] => {
    const ratio = canvas.width / canvas.clientWidth;
    const { left, top } = canvas.getBoundingClientRect();
    return [(event.clientX - left) * ratio, (event.clientY - top) * ratio];
  };

  canvas.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    canvas.setPointerCapture(event.pointerId);
    canvas.focus({ preventScroll: true });
    pointers.set(event.pointerId, at(event));
    selected = pointers.size === 1 && (event.shiftKey || gestures.selecting()) ? at(event) : null;
  });
  canvas.addEventListener("pointermove", (event) => {
    const before = pointers.get(event.pointerId);
    const view = gestures.view();
    if (!before || !view) return;
    const now = at(event);
    const other = [...pointers].find(([id]) => id !== event.pointerId)?.[1];
    pointers.set(event.pointerId, now);
    if (selected) return gestures.select(selected, now, false);
    if (other) {
      const distance = (a: [number, number]): number => Math.max(1, Math.hypot(a[0] - other[0], a[1] - other[1]));
      const middle = [(now[0] + other[0]) / 2, (now[1] + other[1]) / 2] as const;
      view.pan((now[0] - before[0]) / 2, (now[1] - before[1]) / 2);
      view.zoomAt(...middle, distance(now) / distance(before));
    } else {
      view.pan(now[0] - before[0], now[1] - before[1]);
    }
    gestures.changed();
  });
  const lift = (event: PointerEvent): void => {
    if (pointers.delete(event.pointerId) && selected) gestures.select(selected, at(event), true);
    selected = null;
  };
  canvas.addEventListener("pointerup", lift);
  canvas.addEventListener("pointercancel", lift);
  canvas.addEventListener("dblclick", (event) => zoom(event, 2));
  canvas.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      zoom(event, Math.exp(-event.deltaY * (event.deltaMode ? LINE : 1) * WHEEL * (event.ctrlKey ? 5 : 1)));
    },
    { passive: false },
  );

  function zoom(event: MouseEvent, factor: number): void {
    gestures.view()?.zoomAt(...at(event), factor);
    gestures.changed();
  }
}

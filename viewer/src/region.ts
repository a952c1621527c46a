/** The region that is selected, its figures, and what it can be saved as. */

import { type Box, formatBox, parseRegion, type Range, shapeOf } from "./box";
import * as downloads from "./downloads";
import { list, page } from "./elements";
import { wordsOf } from "./errors";
import type { Evaluation } from "./evaluation";
import { bytes, rateOf, times, whole } from "./facts";
import { parseScale } from "./scale";
import type { Viewport } from "./viewport";

export class RegionForm {
  private selected: Box | null = null;
  private readonly stop = new AbortController();

  constructor(
    private readonly evaluation: Evaluation,
    private readonly slice: () => number,
    private readonly changed: () => void,
  ) {
    const { signal } = evaluation.representation.manifest;
    const on = (target: HTMLElement, event: string, act: (event: Event) => void): void =>
      target.addEventListener(event, act, { signal: this.stop.signal });
    on(page.regionText, "change", () => this.typed());
    on(page.region, "submit", (event) => {
      event.preventDefault();
      this.typed();
    });
    on(page.clear, "click", () => this.set(null));
    on(page.crop, "click", () => this.save("crop"));
    on(page.png, "click", () => this.save("png"));
    on(page.wav, "click", () => this.save("wav"));
    page.pngPart.hidden = signal.kind === "audio";
    page.wav.hidden = signal.kind !== "audio" || !signal.sampling_rate;
    this.set(null);
  }

  close(): void {
    this.stop.abort();
  }

  /** The region; the window if none is selected. */
  get box(): Box {
    return this.selected ?? this.evaluation.representation.manifest.window;
  }

  set(box: Box | null): void {
    this.selected = box;
    page.regionText.value = formatBox(this.box);
    page.regionText.removeAttribute("aria-invalid");
    page.clear.disabled = !box;
    this.show();
    this.changed();
  }

  /** Select what lies between two points of the canvas. */
  drag(view: Viewport, from: [number, number], to: [number, number]): void {
    const { window } = this.evaluation.representation.manifest;
    const range = (a: number, b: number, [low, high]: Range): Range => {
      const first = Math.max(low, Math.min(Math.floor(Math.min(a, b)), high - 1));
      return [first, Math.min(high, Math.max(first + 1, Math.ceil(Math.max(a, b))))];
    };
    const columns = range(view.column(from[0]), view.column(to[0]), window.at(-1)!);
    if (window.length === 1) return this.set([columns]);
    const rows = range(view.row(from[1]), view.row(to[1]), window.at(-2)!);
    this.set(window.length === 3 ? [this.box[0]!, rows, columns] : [rows, columns]);
  }

  /** Its outline. */
  draw(context: CanvasRenderingContext2D, view: Viewport): void {
    if (!this.selected) return;
    const columns = this.selected.at(-1)!;
    const rows = this.selected.at(-2);
    const [left, right] = columns.map((column) => Math.round(view.px(column)));
    const [top, bottom] = rows ? rows.map((row) => Math.round(view.py(row))) : [0, view.height];
    const box = [left!, top!, right! - left!, bottom! - top!] as const;
    context.fillStyle = "#4aa3ff22";
    context.fillRect(...box);
    context.lineWidth = 3;
    context.strokeStyle = "#000a";
    context.strokeRect(...box);
    context.lineWidth = 1.5;
    context.strokeStyle = "#9cd0ff";
    context.strokeRect(...box);
  }

  private typed(): void {
    try {
      this.set(parseRegion(page.regionText.value, this.evaluation.representation.manifest.window));
    } catch (error) {
      page.regionText.setAttribute("aria-invalid", "true");
      list(page.regionFacts, [["", wordsOf(error)]]);
    }
  }

  private show(): void {
    const { partitions, parameters, bytes: size } = downloads.cropFacts(this.evaluation, this.box);
    const rate = rateOf(this.evaluation.representation);
    const [first, last] = this.box[0]!;
    const facts: [string, string][] = [
      ["size", times(shapeOf(this.box))],
      ["partitions", whole(partitions)],
      ["parameters", whole(parameters)],
      ["as a file", bytes(size)],
    ];
    if (rate) facts.splice(1, 0, ["time", `${(first / rate).toFixed(3)} to ${(last / rate).toFixed(3)} s`]);
    list(page.regionFacts, facts);
  }

  private async save(what: "crop" | "png" | "wav"): Promise<void> {
    const stem = this.evaluation.representation.source.name.replace(/\.safetensors$/, "");
    const told = (done: number): void => {
      page.work.textContent = `${what === "crop" ? "cropping" : `writing ${what.toUpperCase()}`}: ${Math.round(100 * done)} %`;
    };
    told(0);
    try {
      if (what === "crop") downloads.save(await downloads.crop(this.evaluation, this.box), `${stem}-crop.safetensors`);
      else if (what === "wav") downloads.save(await downloads.wav(this.evaluation, this.box, told), `${stem}.wav`);
      else {
        const scale = parseScale(page.scale.value);
        downloads.save(await downloads.png(this.evaluation, this.box, this.slice(), scale, told), `${stem}.png`);
      }
      page.work.textContent = "saved";
    } catch (error) {
      page.work.textContent = wordsOf(error);
    }
  }
}

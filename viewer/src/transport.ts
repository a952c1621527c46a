/** The slider of frames and slices, and playing. */

import type { Range } from "./box";
import { page } from "./elements";
import { wordsOf } from "./errors";
import type { Evaluation } from "./evaluation";
import { rateOf } from "./facts";
import type { Plane } from "./plane";
import { Player } from "./player";
import { Sound } from "./sound";

const SLICES_PER_SECOND = 10; // of volumes

export class Transport {
  private readonly stop = new AbortController();
  private readonly player: Player | null = null;
  private playing = false;

  constructor(
    private readonly evaluation: Evaluation,
    private readonly scene: Plane | Sound,
    private readonly region: () => Range,
    private readonly changed: () => void,
  ) {
    const { representation } = evaluation;
    const { signal, window } = representation.manifest;
    const rate = rateOf(representation);
    if (scene instanceof Sound && rate) {
      const peak = Math.max(...signal.value_range.map(Math.abs));
      this.player = new Player(scene, rate, signal.channels, peak);
    }
    const [first, last] = window[0]!;
    page.slider.hidden = scene instanceof Sound;
    page.transport.hidden = scene instanceof Sound ? !this.player : window.length < 3;
    page.slider.min = String(first);
    page.slider.max = String(last - 1);
    const on = (target: HTMLElement, event: string, act: () => void): void =>
      target.addEventListener(event, act, { signal: this.stop.signal });
    on(page.slider, "input", () => this.go(Number(page.slider.value)));
    on(page.play, "click", () => this.toggle());
    if (!(scene instanceof Sound)) this.go(scene.slice);
    this.show();
  }

  close(): void {
    this.pause();
    this.stop.abort();
  }

  /** To a frame or slice, or the next ones. */
  go(slice: number): void {
    if (this.scene instanceof Sound) return;
    const [first, last] = this.evaluation.representation.manifest.window[0]!;
    this.scene.slice = Math.min(last - 1, Math.max(first, slice));
    page.slider.value = String(this.scene.slice);
    this.show();
    this.changed();
  }

  step(by: number): void {
    if (!(this.scene instanceof Sound)) this.go(this.scene.slice + by);
  }

  toggle(): void {
    if (page.transport.hidden) return;
    if (this.playing) return this.pause();
    this.playing = true;
    if (this.scene instanceof Sound) this.playSound(this.scene);
    else this.playSlices(this.scene);
    this.show();
  }

  private pause(): void {
    this.playing = false;
    this.player?.stop();
    if (this.scene instanceof Sound) this.scene.playhead = null;
    this.show();
    this.changed();
  }

  private playSound(sound: Sound): void {
    const moved = (position: number | null): void => {
      if (position === null) return this.pause();
      sound.playhead = position;
      this.show();
      this.changed();
    };
    this.player!.play(this.region(), moved).catch((error) => {
      this.pause();
      page.work.textContent = wordsOf(error);
    });
  }

  /** Frames in time; those that are not there in time are left out. */
  private playSlices(plane: Plane): void {
    const [first, last] = this.region();
    const rate = rateOf(this.evaluation.representation) ?? SLICES_PER_SECOND;
    const from = plane.slice >= first && plane.slice < last - 1 ? plane.slice : first;
    const began = performance.now();
    const tick = (now: number): void => {
      if (!this.playing) return;
      const slice = first + ((from - first + Math.floor((Math.max(0, now - began) / 1000) * rate)) % (last - first));
      // A frame that is still evaluated is shown before the next one is begun.
      if (slice !== plane.slice && plane.settled) this.go(slice);
      requestAnimationFrame(tick);
    };
    requestAnimationFrame(tick);
  }

  show(): void {
    page.play.textContent = this.playing ? "Pause" : "Play";
    page.play.setAttribute("aria-pressed", String(this.playing));
    const rate = rateOf(this.evaluation.representation);
    const seconds = (samples: number): string => (rate ? `${(samples / rate).toFixed(2)} s` : "");
    if (this.scene instanceof Sound) page.sliderText.textContent = seconds(this.scene.playhead ?? this.region()[0]);
    else {
      const what = this.evaluation.representation.manifest.signal.kind === "video" ? "frame" : "slice";
      page.sliderText.textContent = [`${what} ${this.scene.slice}`, seconds(this.scene.slice)]
        .filter(Boolean)
        .join(" · ");
    }
  }
}

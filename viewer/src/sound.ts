/** A sound, drawn as waveforms: extremes where samples are dense, the continuous signal where they are not. */

import type { Range } from "./box";
import type { Evaluation } from "./evaluation";
import { powerOfTwo } from "./scale";
import type { Scene } from "./scene";
import { Viewport } from "./viewport";

const CHUNK = 8192; // samples that are evaluated at a time
const PEAK = 64; // samples whose extremes are kept for good
const KEPT = 256; // chunks
const DOTS = 8; // pixels a sample from which on samples are marked
const FINEST = 12;

export class Sound implements Scene {
  readonly view: Viewport;
  /** Where it plays, in samples; null: it does not. */
  playhead: number | null = null;
  private readonly chunks = new Map<string, Float32Array>();
  private readonly peaks = new Map<number, Float32Array>();
  private readonly coming = new Set<string>();
  private readonly failed = new Set<string>();
  private onMore: () => void = () => {};
  private onError: (error: unknown) => void = () => {};

  constructor(private readonly evaluation: Evaluation) {
    this.view = new Viewport([0, 1], evaluation.representation.manifest.window[0]!);
  }

  listen(onMore: () => void, onError: (error: unknown) => void): void {
    this.onMore = onMore;
    this.onError = onError;
  }

  get settled(): boolean {
    return !this.coming.size;
  }

  draw(context: CanvasRenderingContext2D): boolean {
    const { view } = this;
    const level = Math.min(FINEST, Math.max(0, Math.ceil(Math.log2(view.zoom))));
    const dense = view.zoom * PEAK < 1;
    const complete = this.want(view.seen[1], level, dense);
    const channels = this.evaluation.representation.manifest.signal.channels;
    const style = getComputedStyle(context.canvas);
    context.fillStyle = style.getPropertyValue("--accent");
    const lane = view.height / channels;
    for (let channel = 0; channel < channels; channel++) {
      const middle = (channel + 0.5) * lane;
      if (level > 0) this.drawCurve(context, channel, middle, lane * 0.46, level);
      else this.drawExtremes(context, channel, middle, lane * 0.46, dense);
    }
    if (this.playhead !== null) {
      context.fillStyle = style.getPropertyValue("--strong");
      context.fillRect(Math.round(view.px(this.playhead)), 0, 2, view.height);
    }
    return complete;
  }

  drawBorders(context: CanvasRenderingContext2D): void {
    const tile = this.evaluation.representation.manifest.tile[0]!;
    if (tile * this.view.zoom < 4) return;
    const [low, high] = this.view.seen[1];
    context.fillStyle = getComputedStyle(context.canvas).getPropertyValue("--border");
    for (let at = Math.ceil(low / tile) * tile; at <= high; at += tile) {
      context.fillRect(Math.round(this.view.px(at)), 0, 1, this.view.height);
    }
  }

  /** Samples of a range, one chunk after the other, to play and to write. */
  samples(range: Range): Promise<Float32Array> {
    return this.evaluation.evaluate([range], [powerOfTwo(0)], "values");
  }

  private drawExtremes(
    context: CanvasRenderingContext2D,
    channel: number,
    middle: number,
    high: number,
    dense: boolean,
  ): void {
    const { view } = this;
    const [first, last] = view.seen[1];
    for (let x = Math.max(0, Math.floor(view.px(first))); x < Math.min(view.width, view.px(last)); x++) {
      const [from, to] = [
        Math.max(first, Math.floor(view.column(x))),
        Math.min(last, Math.max(view.column(x) + 1, view.column(x + 1))),
      ];
      const [low, top] = this.extremes(from, to, channel, dense);
      if (low > top) continue;
      const [upper, lower] = [middle - this.share(top) * high, middle - this.share(low) * high];
      context.fillRect(x, upper, 1, Math.max(1, lower - upper));
    }
  }

  /** The lowest and the highest of samples; the first above the second if none is known. */
  private extremes(from: number, to: number, channel: number, dense: boolean): Range {
    const channels = this.evaluation.representation.manifest.signal.channels;
    const step = dense ? PEAK : 1;
    let [low, high] = [Infinity, -Infinity];
    for (let n = Math.floor(from / step); n < to / step; n++) {
      const chunk = Math.floor((n * step) / CHUNK);
      const at = n - (chunk * CHUNK) / step;
      if (dense) {
        const peaks = this.peaks.get(chunk);
        if (!peaks) continue;
        low = Math.min(low, peaks[2 * (at * channels + channel)]!);
        high = Math.max(high, peaks[2 * (at * channels + channel) + 1]!);
      } else {
        const value = this.chunks.get(`0/${chunk}`)?.[at * channels + channel];
        if (value === undefined) continue;
        low = Math.min(low, value);
        high = Math.max(high, value);
      }
    }
    return [low, high];
  }

  private drawCurve(
    context: CanvasRenderingContext2D,
    channel: number,
    middle: number,
    high: number,
    level: number,
  ): void {
    const { view } = this;
    const { channels } = this.evaluation.representation.manifest.signal;
    const [first, last] = view.seen[1];
    const scale = 2 ** level;
    context.beginPath();
    context.strokeStyle = context.fillStyle;
    context.lineWidth = 1.5;
    let drawing = false;
    for (let n = Math.floor(first * scale); n < last * scale; n++) {
      const chunk = Math.floor(n / CHUNK);
      const value = this.chunks.get(`${level}/${chunk}`)?.[(n - chunk * CHUNK) * channels + channel];
      if (value === undefined) {
        drawing = false;
        continue;
      }
      const [x, y] = [view.px((n + 0.5) / scale), middle - this.share(value) * high];
      if (drawing) context.lineTo(x, y);
      else context.moveTo(x, y);
      drawing = true;
      // A sample lies between two fine ones.
      if (view.zoom >= DOTS && (n - scale / 2) % scale === 0) context.fillRect(x - 2.5, y - 2, 5, 5);
    }
    context.stroke();
  }

  /** Where a value lies in its range, from -1 to 1. */
  private share(value: number): number {
    const [low, high] = this.evaluation.representation.manifest.signal.value_range;
    return (2 * (value - low)) / (high - low) - 1;
  }

  private want([first, last]: Range, level: number, dense: boolean): boolean {
    const each = CHUNK / 2 ** level;
    const middle = (first + last) / 2 / each;
    const missing: number[] = [];
    for (let chunk = Math.floor(first / each); chunk < last / each; chunk++) {
      const there = dense ? this.peaks.has(chunk) : this.chunks.has(`${level}/${chunk}`);
      if (!there && !this.coming.has(`${level}/${chunk}`) && !this.failed.has(`${level}/${chunk}`)) missing.push(chunk);
    }
    missing.sort((a, b) => Math.abs(a + 0.5 - middle) - Math.abs(b + 0.5 - middle));
    for (const chunk of missing) {
      if (this.coming.size >= 2 * this.evaluation.pool.size) break;
      void this.fetch(level, chunk);
    }
    return !missing.length && !this.coming.size;
  }

  private async fetch(level: number, chunk: number): Promise<void> {
    const key = `${level}/${chunk}`;
    this.coming.add(key);
    try {
      const [low, high] = this.evaluation.representation.manifest.window[0]!;
      const scale = 2 ** level;
      const range: Range = [Math.max(chunk * CHUNK, low * scale), Math.min((chunk + 1) * CHUNK, high * scale)];
      const values = await this.evaluation.evaluate([range], [powerOfTwo(level)], "values");
      this.keep(key, chunk, level, values, range[0] - chunk * CHUNK);
    } catch (error) {
      this.failed.add(key);
      this.onError(error);
    }
    this.coming.delete(key);
    this.onMore();
  }

  private keep(key: string, chunk: number, level: number, values: Float32Array, first: number): void {
    const { channels } = this.evaluation.representation.manifest.signal;
    const padded = new Float32Array(CHUNK * channels).fill(NaN);
    padded.set(values, first * channels);
    this.chunks.set(key, padded);
    if (level === 0) this.peaks.set(chunk, peaksOf(padded, channels));
    for (const oldest of this.chunks.keys()) {
      if (this.chunks.size <= KEPT) break;
      this.chunks.delete(oldest);
    }
  }
}

/** The lowest and the highest of each PEAK samples, [n, channels, 2]. */
function peaksOf(values: Float32Array, channels: number): Float32Array {
  const peaks = new Float32Array((values.length / PEAK) * 2);
  for (let n = 0; n < peaks.length; n += 2) {
    const channel = (n / 2) % channels;
    let [low, high] = [Infinity, -Infinity];
    for (let k = 0; k < PEAK; k++) {
      const value = values[(Math.floor(n / 2 / channels) * PEAK + k) * channels + channel]!;
      if (value < low) low = value;
      if (value > high) high = value;
    }
    peaks[n] = low;
    peaks[n + 1] = high;
  }
  return peaks;
}

/** From the networks' [-1, 1] to values, bytes and pictures. */

import { type Box, product, shapeOf } from "./box";
import type { Decoded } from "./decode";
import type { SignalInfo } from "./manifest";

/** The mean of the samples that are there in each cell of `factor` samples along each axis. */
export function averaged({ values, mask }: Decoded, from: Box, to: Box, factor: number[], channels: number): Decoded {
  const same =
    factor.every((n) => n === 1) && to.every(([low, high], d) => low === from[d]![0] && high === from[d]![1]);
  if (same) return { values, mask };
  const [shape, cells] = [shapeOf(from), shapeOf(to)];
  const sums = new Float32Array(product(cells) * channels);
  const counts = new Float32Array(product(cells));
  const index = shape.map(() => 0);
  for (let n = 0; n < product(shape); n++) {
    if (mask?.[n] !== 0) {
      let cell = 0;
      for (let d = 0; d < shape.length; d++) {
        cell = cell * cells[d]! + Math.floor((from[d]![0] + index[d]!) / factor[d]!) - to[d]![0];
      }
      counts[cell]!++;
      for (let c = 0; c < channels; c++) sums[cell * channels + c]! += values[n * channels + c]!;
    }
    for (let d = shape.length - 1; d >= 0 && ++index[d]! === shape[d]; d--) index[d] = 0;
  }
  for (let n = 0; n < sums.length; n++) sums[n]! /= counts[Math.floor(n / channels)] || 1;
  const there = Uint8Array.from(counts, (n) => (n ? 1 : 0));
  return { values: sums, mask: there.includes(0) ? there : null };
}

/** Values in the units of the signal; where no partition is, the lowest one, or silence. */
export function inRange({ values, mask }: Decoded, signal: SignalInfo): Float32Array<ArrayBuffer> {
  const [low, high] = signal.value_range;
  const blank = signal.kind === "audio" ? Math.min(Math.max(0, low), high) : low;
  const half = (high - low) / 2;
  const out = new Float32Array(values.length);
  for (let n = 0; n < out.length; n++) out[n] = (values[n]! + 1) * half + low;
  mask?.forEach((there, n) => there || out.fill(blank, n * signal.channels, (n + 1) * signal.channels));
  return out;
}

/** What black and white are: the limits of small unsigned types, else of the signal's values. */
export function shownRange({ dtype, value_range }: SignalInfo): [number, number] {
  if (dtype === "uint8") return [0, 255];
  return dtype === "uint16" ? [0, 65535] : value_range;
}

/** Bytes [*shape, C]. */
export function asBytes(decoded: Decoded, signal: SignalInfo): Uint8ClampedArray<ArrayBuffer> {
  const [black, white] = shownRange(signal);
  const factor = 255 / (white - black);
  const values = inRange(decoded, signal);
  const bytes = new Uint8ClampedArray(values.length);
  for (let n = 0; n < bytes.length; n++) bytes[n] = (values[n]! - black) * factor;
  return bytes;
}

/** Red, green, blue and opacity; transparent where no partition is. */
export function asPixels(decoded: Decoded, signal: SignalInfo): Uint8ClampedArray<ArrayBuffer> {
  const bytes = asBytes(decoded, signal);
  const C = signal.channels;
  const [green, blue] = C > 2 ? [1, 2] : [0, 0];
  const pixels = new Uint8ClampedArray((bytes.length / C) * 4);
  for (let at = 0, to = 0; at < bytes.length; at += C, to += 4) {
    pixels[to] = bytes[at]!;
    pixels[to + 1] = bytes[at + green]!;
    pixels[to + 2] = bytes[at + blue]!;
    pixels[to + 3] = C % 2 ? 255 : bytes[at + C - 1]!;
  }
  decoded.mask?.forEach((there, n) => there || (pixels[4 * n + 3] = 0));
  return pixels;
}

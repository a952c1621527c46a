/**
 * The fine samples of a box out of the rows of their partitions, as `lgsirens/representation/decode.py` has it: blocks
 * cut from where each partition begins, neighbours that cross-fade within their reach.
 */

import { type Box, product, shapeOf } from "./box";
import type { Kernel } from "./kernel";
import type { Manifest } from "./manifest";
import { fineRange, ONE, type Scale } from "./scale";

export const BLOCK_SAMPLES = 4096;

export interface Request {
  /** In fine samples. */
  box: Box;
  scales: Scale[];
  /** Of the partitions whose reach meets the box, [n, D] and [n, K]. */
  ids: Int32Array;
  rows: Float32Array;
}

export interface Decoded {
  /** [*shape, C], in the networks' [-1, 1], clipped. */
  values: Float32Array;
  /** [*shape], 1 where a partition owns the sample; null: everywhere. */
  mask: Uint8Array | null;
}

/** A block along one axis: its first fine sample, what is wanted of it, and the weights of that (null: all 1). */
interface Span {
  start: number;
  size: number;
  low: number;
  high: number;
  phase: number;
  x: Float32Array;
  local: Float32Array | null;
  weight: Float32Array | null;
}

const NOTHING = new Float32Array(1);
const WHOLE: Span = { start: 0, size: 1, low: 0, high: 1, phase: 0, x: NOTHING, local: null, weight: null };

/** How far partitions reach beyond their borders, in samples: `--blend auto`. */
export function reachOf({ coordinates, halo, tile }: Manifest, scales: Scale[]): number[] {
  const fades = (scale: Scale): boolean => coordinates.kind === "tile" && scale.num !== scale.den;
  return scales.map((scale, d) => (fades(scale) ? Math.min(halo[d]!, Math.floor(tile[d]! / 2)) : 0));
}

export class Decoder {
  constructor(
    private readonly manifest: Manifest,
    private readonly kernel: Kernel,
  ) {}

  decode({ box, scales, ids, rows }: Request): Decoded {
    const { tile, model } = this.manifest;
    const D = tile.length;
    const reach = reachOf(this.manifest, scales);
    const block = blockShape(box, scales, tile, reach);
    const shape = shapeOf(box);
    const values = new Float32Array(product(shape) * model.channels);
    const weights = reach.some((r) => r > 0) ? new Float32Array(product(shape)) : null;
    const mask = new Uint8Array(product(shape));
    const K = rows.length / (ids.length / D);
    const cut = new Map<string, Span[]>();
    for (let n = 0; n < ids.length / D; n++) {
      const id = Array.from(ids.subarray(n * D, (n + 1) * D));
      const axes = id.map((k, d) => {
        const name = `${d}:${k}`;
        if (!cut.has(name)) cut.set(name, this.spans(d, k, box[d]!, scales[d]!, reach[d]!, block[d]!));
        return cut.get(name)!;
      });
      if (axes.some((spans) => !spans.length)) continue;
      this.kernel.setRow(rows.subarray(n * K, (n + 1) * K));
      for (const spans of combinations(axes)) this.paint(spans, box, values, weights);
      own(id, tile, scales, box, mask);
    }
    if (weights) divide(values, weights, model.channels);
    return { values, mask: mask.includes(0) ? mask : null };
  }

  private paint(spans: Span[], box: Box, values: Float32Array, weights: Float32Array | null): void {
    const { model, coordinates } = this.manifest;
    const C = model.channels;
    const key = coordinates.kind === "tile" ? spans.map((s) => `${s.phase}/${s.size}`).join(",") : null;
    const local = spans.every((span) => span.local)
      ? (to: Float32Array) =>
          mesh(
            spans.map((s) => s.local!),
            to,
          )
      : null;
    const samples = product(spans.map((span) => span.size));
    const from = this.kernel.evaluate(
      samples,
      key,
      (to) =>
        mesh(
          spans.map((s) => s.x),
          to,
        ),
      local,
    );
    // Everything has three axes from here on.
    const missing = 3 - spans.length;
    const [a, b, c] = [...new Array<Span>(missing).fill(WHOLE), ...spans] as [Span, Span, Span];
    const [fa, fb, fc] = [...new Array<Box[number]>(missing).fill([0, 1]), ...box] as [
      Box[0],
      Box[0],
      Box[0],
    ] as number[][];
    const [wide, deep] = [fc![1]! - fc![0]!, fb![1]! - fb![0]!];
    for (let i = a.low; i < a.high; i++) {
      for (let j = b.low; j < b.high; j++) {
        let at = ((i - fa![0]!) * deep + j - fb![0]!) * wide + c.low - fc![0]!;
        let there = (((i - a.start) * b.size + j - b.start) * c.size + c.low - c.start) * C;
        const outer = weights ? (a.weight?.[i - a.low] ?? 1) * (b.weight?.[j - b.low] ?? 1) : 1;
        for (let k = c.low; k < c.high; k++, at++) {
          const weight = weights ? outer * (c.weight?.[k - c.low] ?? 1) : 1;
          for (let channel = 0; channel < C; channel++) {
            const value = from[there++]!;
            const clipped = value > 1 ? 1 : value < -1 ? -1 : value;
            if (weights) values[at * C + channel]! += clipped * weight;
            else values[at * C + channel] = clipped;
          }
          if (weights) weights[at]! += weight;
        }
      }
    }
  }

  /** The blocks of all partitions of one number along an axis. */
  private spans(
    axis: number,
    number: number,
    [bottom, top]: [number, number],
    scale: Scale,
    reach: number,
    size: number,
  ): Span[] {
    const tile = this.manifest.tile[axis]!;
    const low = number * tile;
    const high = low + tile;
    const [first, last] = fineRange([low - reach, high + reach], scale);
    const spans: Span[] = [];
    // One sample of many is evaluated alone; else blocks begin where the partition does.
    const alone = top - bottom === 1;
    const begin = alone ? Math.max(first, bottom) : first + Math.floor(Math.max(0, bottom - first) / size) * size;
    for (let start = begin; start < Math.min(last, top); start += size) {
      const from = Math.max(start, first, bottom);
      const to = Math.min(start + size, last, top);
      const phase = (2 * start + 1) * scale.den - (2 * low + 1) * scale.num;
      const [x, local] = this.seen(axis, start, size, scale, low);
      spans.push({
        start,
        size,
        low: from,
        high: to,
        phase,
        x,
        local,
        weight: reach ? fading(from, to, scale, low, high, reach) : null,
      });
    }
    return spans;
  }

  /** What the shared network sees of fine samples along an axis, and what the local ones see instead. */
  private seen(
    axis: number,
    start: number,
    size: number,
    { num, den }: Scale,
    origin: number,
  ): [Float32Array, Float32Array | null] {
    const { tile, coordinates } = this.manifest;
    const T = tile[axis]!;
    const shared = coordinates.shared_scale[axis]!;
    const local = coordinates.local_scale?.[axis];
    const x = new Float32Array(size);
    const own = local === undefined ? null : new Float32Array(size);
    for (let n = 0; n < size; n++) {
      const position = ((start + n + 0.5) * den) / num - 0.5;
      const offset = ((2 * (start + n) + 1) * den - (2 * origin + 1) * num) / (2 * num);
      const inTile = (offset - (T - 1) / 2) / (T / 2);
      x[n] = coordinates.kind === "tile" ? inTile * shared : ofSignal(coordinates.size, axis, shared, position);
      if (own) own[n] = inTile * local!;
    }
    return [x, own];
  }
}

const LONGEST_AXIS = 2_500_000;

function ofSignal(sizes: number[], axis: number, scale: number, position: number): number {
  const size = Math.min(sizes[axis]!, LONGEST_AXIS);
  if (size > 1) return scale * ((2 * position) / (size - 1) - 1);
  const longest = Math.min(Math.max(...sizes), LONGEST_AXIS);
  return position * (longest > 1 ? (2 * scale) / (longest - 1) : scale);
}

/** The block that partitions are cut into: halved along its longest side until it is small enough. */
function blockShape(box: Box, scales: Scale[], tile: number[], reach: number[]): number[] {
  const shape = scales.map(({ num, den }, d) =>
    box[d]![1] - box[d]![0] === 1 ? 1 : Math.max(1, Math.ceil(((tile[d]! + 2 * reach[d]!) * num) / den)),
  );
  while (product(shape) > BLOCK_SAMPLES) {
    const axis = shape.indexOf(Math.max(...shape));
    shape[axis] = Math.ceil(shape[axis]! / 2);
  }
  return shape;
}

/** How much a partition has a say in fine samples, from 0.5 + inside / (2 reach). */
function fading(from: number, to: number, { num, den }: Scale, low: number, high: number, reach: number): Float32Array {
  return Float32Array.from({ length: Math.max(0, to - from) }, (_, n) => {
    const position = ((from + n + 0.5) * den) / num - 0.5;
    const inside = Math.min(position - (low - 0.5), high - 0.5 - position);
    return Math.min(1, Math.max(0, 0.5 + inside / (2 * reach)));
  });
}

/** Mark the fine samples that a partition owns. */
function own(id: number[], tile: number[], scales: Scale[], box: Box, mask: Uint8Array): void {
  const ranges = id.map((k, d) => {
    const [low, high] = fineRange([k * tile[d]!, (k + 1) * tile[d]!], scales[d] ?? ONE);
    const [bottom, top] = box[d]!;
    return [Math.max(low, bottom) - bottom, Math.min(high, top) - bottom, top - bottom] as const;
  });
  const [a, b, c] = [...new Array<readonly [number, number, number]>(3 - id.length).fill([0, 1, 1]), ...ranges];
  if (c![0] >= c![1]) return;
  for (let i = a![0]; i < a![1]; i++) {
    for (let j = b![0]; j < b![1]; j++) {
      const at = (i * b![2] + j) * c![2];
      mask.fill(1, at + c![0], at + c![1]);
    }
  }
}

function divide(values: Float32Array, weights: Float32Array, channels: number): void {
  for (let n = 0; n < weights.length; n++) {
    const weight = weights[n] || 1;
    for (let channel = 0; channel < channels; channel++) values[n * channels + channel]! /= weight;
  }
}

/** Coordinates along each axis to all their combinations, [samples, D]. */
function mesh(axes: Float32Array[], to: Float32Array): void {
  const D = axes.length;
  for (let d = 0, inner = to.length / D; d < D; d++) {
    const axis = axes[d]!;
    inner /= axis.length; // samples from one coordinate to the next
    for (let at = d, n = 0; at < to.length; n = n + 1 === axis.length ? 0 : n + 1) {
      for (const end = at + inner * D; at < end; at += D) to[at] = axis[n]!;
    }
  }
}

function* combinations<T>(axes: T[][]): Generator<T[]> {
  const [first, ...rest] = axes;
  if (!first) return yield [];
  for (const item of first) for (const others of combinations(rest)) yield [item, ...others];
}

/** What a region can be saved as. */

import { type Box, product, shapeOf } from "./box";
import { planCrop, writeCrop } from "./crop";
import { need } from "./errors";
import { type Evaluation, slabs } from "./evaluation";
import { writePng } from "./png";
import { fineBox, ONE, type Scale, valueOf } from "./scale";
import { writeWav } from "./wav";

declare const VERSION: string;

const SLAB = 1 << 18; // samples that a worker evaluates at a time
const LARGEST_PNG = 1 << 28; // samples

export type Told = (done: number) => void;

/** As `lgsirens crop` writes it. */
export function crop(evaluation: Evaluation, region: Box): Promise<Blob> {
  const { representation, rows } = evaluation;
  return writeCrop(planCrop(representation, region, VERSION), rows, representation.rowSize);
}

/** What a crop would keep. */
export function cropFacts(
  evaluation: Evaluation,
  region: Box,
): { partitions: number; parameters: number; bytes: number } {
  const { places, parameters, bytes } = planCrop(evaluation.representation, region, VERSION);
  return { partitions: places.length, parameters, bytes };
}

/** A picture of a region, of films and volumes of one slice, at any scale. */
export async function png(evaluation: Evaluation, region: Box, slice: number, scale: Scale, told: Told): Promise<Blob> {
  const { channels } = evaluation.representation.manifest.signal;
  const whole: Box = region.length === 3 ? [[slice, slice + 1], ...region.slice(1)] : region;
  const scales = whole.map((_, d) => (whole.length === 3 && d === 0 ? ONE : scale));
  const box = fineBox(whole, scales);
  const [height, width] = shapeOf(box).slice(-2) as [number, number];
  need(width > 0 && height > 0, "the scale leaves no sample of this region; give a larger one");
  need(
    width * height <= LARGEST_PNG,
    `${width} x ${height} samples are more than a page holds; give a smaller scale or region`,
  );
  const factor = scales.map((s) => Math.ceil(1 / valueOf(s)));
  const parts = evaluated(
    slabs(box, SLAB),
    evaluation.pool.size + 1,
    (part) => evaluation.evaluate(part, scales, "bytes", factor),
    told,
  );
  return writePng(width, height, channels, parts);
}

/** A sound's region, at its own rate. */
export async function wav(evaluation: Evaluation, region: Box, told: Told): Promise<Blob> {
  const { channels, sampling_rate: rate } = evaluation.representation.manifest.signal;
  const values: Float32Array[] = [];
  const parts = slabs(region, SLAB);
  need(product(shapeOf(region)) * channels < LARGEST_PNG, "the region is longer than a page holds; select less");
  for await (const part of evaluated(
    parts,
    evaluation.pool.size + 1,
    (box) => evaluation.evaluate(box, [ONE], "values"),
    told,
  )) {
    values.push(part);
  }
  return writeWav(Math.round(rate![0] / rate![1]), channels, values);
}

/** Let the browser save a file. */
export function save(blob: Blob, name: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** Results in order, several on their way at a time. */
async function* evaluated<T>(
  boxes: Box[],
  atOnce: number,
  evaluate: (box: Box) => Promise<T>,
  told: Told,
): AsyncGenerator<T> {
  const coming: Promise<T>[] = [];
  for (let n = 0; n < boxes.length; n++) {
    while (coming.length < atOnce && n + coming.length < boxes.length) {
      const next = evaluate(boxes[n + coming.length]!);
      next.catch(() => {}); // awaited below
      coming.push(next);
    }
    yield await coming.shift()!;
    told((n + 1) / boxes.length);
  }
}

/** Any box of a file at any resolution: which rows it needs, and workers that evaluate it. */

import { type Box, product, shapeOf } from "./box";
import { reachOf } from "./decode";
import type { Representation } from "./representation";
import type { Pool } from "./pool";
import type { Rows } from "./rows";
import { fineBox, type Scale, times, valueOf } from "./scale";
import type { Answers, Task } from "./tasks";

const MOST_AVERAGED = 4; // samples along an axis that one pixel is the mean of

export class Evaluation {
  constructor(
    readonly representation: Representation,
    readonly rows: Rows,
    readonly pool: Pool,
  ) {}

  /** How many samples along each axis a sample of a coarse resolution is the mean of. */
  static factors(scales: Scale[]): number[] {
    return scales.map((scale) => Math.min(Math.ceil(1 / valueOf(scale)), MOST_AVERAGED));
  }

  /** Fine samples of a box within the extent; those of coarse resolutions are means. */
  async evaluate<Result extends Task["result"]>(
    box: Box,
    scales: Scale[],
    result: Result,
    factor: number[] = Evaluation.factors(scales),
  ): Promise<Answers[Result]> {
    const { lattice } = this.representation;
    const { wanted, fine, places } = this.needed(box, scales, factor);
    const rows = await this.rows.read(places);
    const ids = new Int32Array(places.flatMap((place) => lattice.id(place)));
    return this.pool.run({ request: { box: wanted, scales: fine, ids, rows }, result, box, factor });
  }

  /** Ask for the rows of a box that is about to be evaluated. */
  prefetch(box: Box, scales: Scale[]): void {
    this.rows.prefetch(this.needed(box, scales, Evaluation.factors(scales)).places);
  }

  private needed(box: Box, scales: Scale[], factor: number[]): { wanted: Box; fine: Scale[]; places: number[] } {
    const fine = scales.map((scale, d) => times(scale, factor[d]!));
    const within = fineBox(this.representation.manifest.extent, fine);
    const wanted = box.map(([low, high], d): [number, number] => [
      Math.max(low * factor[d]!, within[d]![0]),
      Math.min(high * factor[d]!, within[d]![1]),
    ]);
    return { wanted, fine, places: this.places(wanted, fine) };
  }

  /** The places of the partitions that fine samples depend on. */
  private places(box: Box, scales: Scale[]): number[] {
    const { lattice, manifest } = this.representation;
    const reach = reachOf(manifest, scales);
    const region = box.map(([low, high], d): [number, number] => {
      const s = valueOf(scales[d]!);
      return [Math.floor((low + 0.5) / s) - reach[d]!, Math.floor((high - 0.5) / s) + 1 + reach[d]!];
    });
    return lattice.meeting(region);
  }
}

/** Cut a box into parts of at most so many samples along its first axis that has more than one. */
export function slabs(box: Box, samples: number): Box[] {
  const axis = Math.max(
    0,
    box.findIndex(([low, high]) => high - low > 1),
  );
  const [low, high] = box[axis]!;
  const each = product(shapeOf(box)) / (high - low);
  const step = Math.max(1, Math.floor(samples / each));
  const parts: Box[] = [];
  for (let start = low; start < high; start += step) {
    parts.push(box.map((range, d) => (d === axis ? [start, Math.min(start + step, high)] : range)));
  }
  return parts;
}

/** Equal tiles over all positions, and which of them are present. */

import { type Box, intersect, isEmpty, product } from "./box";

export class Lattice {
  readonly length: number;

  /** `ids` [P, D] in C order. */
  constructor(
    readonly tile: number[],
    readonly ids: Int32Array,
  ) {
    this.length = ids.length / tile.length;
  }

  id(place: number): number[] {
    const D = this.tile.length;
    return Array.from(this.ids.subarray(place * D, (place + 1) * D));
  }

  /** The samples that a partition owns. */
  box(place: number): Box {
    return this.id(place).map((k, d) => [k * this.tile[d]!, (k + 1) * this.tile[d]!]);
  }

  /** The place of an id, -1 if it is not present. */
  find(id: readonly number[]): number {
    let low = 0;
    let high = this.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      const order = this.compare(middle, id);
      if (order === 0) return middle;
      if (order < 0) low = middle + 1;
      else high = middle;
    }
    return -1;
  }

  /** Places of the partitions that own a sample of a box, in order. */
  meeting(region: Box): number[] {
    const ids: Box = region.map(([low, high], d) => [Math.floor(low / this.tile[d]!), Math.ceil(high / this.tile[d]!)]);
    if (isEmpty(ids)) return [];
    const places: number[] = [];
    if (product(ids.map(([low, high]) => high - low)) > 4 * this.length) {
      for (let place = 0; place < this.length; place++) {
        if (!isEmpty(intersect(this.box(place), region))) places.push(place);
      }
      return places;
    }
    const id = ids.map(([low]) => low);
    for (let axis = 0; axis >= 0; ) {
      const place = this.find(id);
      if (place >= 0) places.push(place);
      for (axis = id.length - 1; axis >= 0 && ++id[axis]! >= ids[axis]![1]; axis--) id[axis] = ids[axis]![0];
    }
    return places;
  }

  /** Whether the ids are unique and in order, each with a sample inside of a box. */
  isRight(extent: Box): boolean {
    for (let place = 0; place < this.length; place++) {
      if (place && this.compare(place - 1, this.id(place)) >= 0) return false;
      if (isEmpty(intersect(this.box(place), extent))) return false;
    }
    return true;
  }

  private compare(place: number, id: readonly number[]): number {
    const D = this.tile.length;
    for (let d = 0; d < D; d++) {
      const difference = this.ids[place * D + d]! - id[d]!;
      if (difference) return difference;
    }
    return 0;
  }
}

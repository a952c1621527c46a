/** Rows as they are needed: fetched in few ranges, checked, and kept within a bound. */

import { crc32 } from "./crc32";
import { need } from "./errors";
import { checkFinite, type Representation } from "./representation";

const GAP = 16 << 10; // what may be read though nobody asked, rather than ask once more
const LARGEST_REQUEST = 1 << 20; // so that there is soon something to see
const KEPT_BYTES = 256 << 20;

export class Rows {
  /** [P], 1 where a row was fetched so far, 2 where it came along with others. */
  readonly fetched: Uint8Array;
  /** Told when rows have come. */
  onFetch: () => void = () => {};
  private readonly kept = new Map<number, Float32Array>();
  private readonly coming = new Map<number, Promise<void>>();

  constructor(private readonly representation: Representation) {
    this.fetched = new Uint8Array(representation.lattice.length);
  }

  /** Rows at places in rising order, one after the other. */
  async read(places: readonly number[]): Promise<Float32Array> {
    const K = this.representation.rowSize;
    const held = new Map<number, Float32Array>();
    const hold = (): void => {
      for (const place of places) {
        const row = this.kept.get(place);
        if (row) held.set(place, row);
      }
    };
    hold();
    this.ask(places, held);
    while (held.size < places.length) {
      const missing = places.filter((place) => !held.has(place));
      const coming = missing.flatMap((place) => this.coming.get(place) ?? []);
      if (!coming.length) return this.read(places); // dropped meanwhile
      await Promise.all(new Set(coming));
      hold();
    }
    const rows = new Float32Array(places.length * K);
    places.forEach((place, n) => rows.set(held.get(place)!, n * K));
    return rows;
  }

  /** Ask for rows before they are read, so that those that lie together are one request. */
  prefetch(places: readonly number[]): void {
    // Of too many the first would be gone before they are read.
    if (4 * places.length * this.representation.rowSize <= KEPT_BYTES / 2) this.ask(places, new Map());
  }

  private ask(places: readonly number[], held: Map<number, Float32Array>): void {
    const missing = places.filter((place) => !held.has(place) && !this.kept.has(place) && !this.coming.has(place));
    for (const run of this.runs(missing)) {
      const done = this.fetch(run, held).finally(() => run.forEach((place) => this.coming.delete(place)));
      done.catch(() => {}); // whoever waits for it is told
      for (const place of run) this.coming.set(place, done);
    }
  }

  /** Cut places into runs, each of which is one request. */
  private runs(places: number[]): number[][] {
    const each = 4 * this.representation.rowSize;
    const runs: number[][] = [];
    for (const place of places) {
      const run = runs.at(-1);
      const near = run && (place - run.at(-1)! - 1) * each <= GAP && (place + 1 - run[0]!) * each <= LARGEST_REQUEST;
      if (near) run.push(place);
      else runs.push([place]);
    }
    return runs;
  }

  private async fetch(run: number[], held: Map<number, Float32Array>): Promise<void> {
    const { source, rowsAt, rowSize, rowCrc32 } = this.representation;
    const first = run[0]!;
    const each = 4 * rowSize;
    const data = await source.read(rowsAt + first * each, (run.at(-1)! + 1 - first) * each);
    const wanted = new Set(run);
    for (let place = first; place <= run.at(-1)!; place++) {
      const bytes = data.slice((place - first) * each, (place + 1 - first) * each);
      if (!wanted.has(place)) {
        this.fetched[place] ||= 2;
        continue;
      }
      need(
        crc32(bytes) === rowCrc32[place],
        `row ${place} is damaged (its CRC-32 differs); restore the file from a copy`,
      );
      const row = new Float32Array(bytes.buffer);
      checkFinite(row, "local");
      this.fetched[place] = 1;
      this.keep(place, row);
      held.set(place, row);
    }
    this.onFetch();
  }

  private keep(place: number, row: Float32Array): void {
    this.kept.set(place, row);
    for (const oldest of this.kept.keys()) {
      if (this.kept.size * row.byteLength <= KEPT_BYTES || this.kept.size === 1) break;
      this.kept.delete(oldest);
    }
  }
}

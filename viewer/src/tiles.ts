/** Pictures of parts of the plane at resolutions of powers of two: asked for as they are seen, kept within a bound. */

import type { Box, Range } from "./box";
import type { Evaluation } from "./evaluation";
import { powerOfTwo, ONE, type Scale } from "./scale";

const SIDE = 256;
const KEPT = 400;
const FINEST = 20;
const ROUNDED = 0.25; // of a level: so far pictures are enlarged before there are finer ones
const CALM = 150; // ms after a movement in which one worker at most evaluates: drawing wants the processor, too
const COARSEST_TILE = 2; // pixels of a partition below which its mean is all there is to see

export interface Tile {
  level: number;
  slice: number;
  rows: Range;
  columns: Range;
  picture: ImageBitmap | null;
}

export class Tiles {
  onTile: () => void = () => {};
  onError: (error: unknown) => void = () => {};
  private readonly kept = new Map<string, Tile>();
  private readonly coming = new Set<string>();
  private wanted: [string, Tile][] = [];
  private seen = "";
  private moved = -Infinity;

  constructor(private readonly evaluation: Evaluation) {}

  /** The level whose pixels are about those of the canvas. */
  static levelOf(zoom: number): number {
    return Math.min(FINEST, Math.ceil(Math.log2(zoom) - ROUNDED));
  }

  /** Whether nothing that is wanted is missing. */
  get settled(): boolean {
    return !this.wanted.length && !this.coming.size;
  }

  /** Whether there is more to see at a level than the overview has. */
  needed(level: number): boolean {
    return !this.evaluation.representation.overview || Math.max(...this.tileSides) * 2 ** level >= COARSEST_TILE;
  }

  /** Want what is seen of the plane of a slice, the middle first. Returns whether all of it is there. */
  want(rows: Range, columns: Range, zoom: number, slice: number): boolean {
    const level = Tiles.levelOf(zoom);
    const seen = String([rows, columns, zoom]);
    if (this.seen && seen !== this.seen) this.moved = performance.now();
    this.seen = seen;
    if (!this.needed(level)) {
      this.wanted = [];
      return true;
    }
    const grid = [rows, columns].map((range, d) => this.grid(range, d, level));
    const found: [string, Tile, number][] = [];
    for (let i = grid[0]!.first; i < grid[0]!.last; i++) {
      for (let j = grid[1]!.first; j < grid[1]!.last; j++) {
        const key = `${level}/${slice}/${i}/${j}`;
        const kept = this.kept.get(key);
        if (kept) {
          this.kept.delete(key); // the latest used last
          this.kept.set(key, kept);
          continue;
        }
        if (this.coming.has(key)) continue;
        const distance = Math.hypot(i + 0.5 - grid[0]!.middle, j + 0.5 - grid[1]!.middle);
        const [tileRows, tileColumns] = [
          this.range(i, 0, level, grid[0]!.side),
          this.range(j, 1, level, grid[1]!.side),
        ];
        found.push([key, { level, slice, rows: tileRows, columns: tileColumns, picture: null }, distance]);
      }
    }
    this.wanted = found.sort((a, b) => a[2] - b[2]).map(([key, kept]) => [key, kept]);
    if (found.length) {
      const part = grid.map(
        (side, d): Range => [
          this.range(side.first, d, level, side.side)[0],
          this.range(side.last - 1, d, level, side.side)[1],
        ],
      );
      this.evaluation.prefetch(...this.placed(part[0]!, part[1]!, level, slice));
    }
    this.start();
    return this.settled;
  }

  /** What is there of a slice, what fits a level best last. */
  drawable(level: number, slice: number): Tile[] {
    const there = [...this.kept.values()].filter((tile) => tile.slice === slice);
    return there.sort((a, b) => Math.abs(b.level - level) - Math.abs(a.level - level) || a.level - b.level);
  }

  private start(): void {
    const most = performance.now() - this.moved < CALM ? 1 : 2 * this.evaluation.pool.size;
    while (this.wanted.length && this.coming.size < most) {
      const [key, tile] = this.wanted.shift()!;
      this.coming.add(key);
      this.picture(tile).then(
        (picture) => this.keep(key, { ...tile, picture }),
        (error) => {
          this.keep(key, tile); // not asked for again
          this.onError(error);
        },
      );
    }
  }

  private picture({ level, slice, rows, columns }: Tile): Promise<ImageBitmap> {
    return this.evaluation.evaluate(...this.placed(rows, columns, level, slice), "picture");
  }

  /** Pixels of a level as a box of fine samples and its resolution. */
  private placed(rows: Range, columns: Range, level: number, slice: number): [Box, Scale[]] {
    const scale = powerOfTwo(level);
    const flat = this.evaluation.representation.manifest.tile.length === 2;
    return flat
      ? [
          [rows, columns],
          [scale, scale],
        ]
      : [
          [[slice, slice + 1], rows, columns],
          [ONE, scale, scale],
        ];
  }

  private keep(key: string, tile: Tile): void {
    this.coming.delete(key);
    this.kept.set(key, tile);
    for (const [oldest, old] of this.kept) {
      if (this.kept.size <= KEPT) break;
      old.picture?.close();
      this.kept.delete(oldest);
    }
    this.start();
    this.onTile();
  }

  private get tileSides(): number[] {
    return this.evaluation.representation.manifest.tile.slice(-2);
  }

  /** Which pictures of a level meet a range along an axis: whole partitions, where they are small enough. */
  private grid(
    range: Range,
    axis: number,
    level: number,
  ): { side: number; first: number; last: number; middle: number } {
    const scale = 2 ** level;
    const partition = this.tileSides[axis]! * scale;
    const whole = Number.isInteger(partition) && partition <= SIDE;
    const side = whole ? partition * Math.floor(SIDE / partition) : SIDE;
    const [first, last] = [Math.floor((range[0] * scale) / side), Math.ceil((range[1] * scale) / side)];
    return { side, first, last, middle: ((range[0] + range[1]) / 2) * (scale / side) };
  }

  /** The pixels of a picture, cut at the window. */
  private range(index: number, axis: number, level: number, side: number): Range {
    const [low, high] = this.evaluation.representation.manifest.window.slice(-2)[axis]!;
    const scale = 2 ** level;
    return [Math.max(index * side, Math.floor(low * scale)), Math.min((index + 1) * side, Math.ceil(high * scale))];
  }
}

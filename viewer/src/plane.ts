/** A picture, or one slice of a film or volume, drawn: overview first, then what is evaluated at the zoom. */

import type { Box, Range } from "./box";
import type { Evaluation } from "./evaluation";
import { shownRange } from "./samples";
import type { Scene } from "./scene";
import { Tiles } from "./tiles";
import { Viewport } from "./viewport";

const LARGEST_OVERVIEW = 1 << 24; // cells

export class Plane implements Scene {
  readonly view: Viewport;
  readonly tiles: Tiles;
  /** The frame or slice. */
  slice: number;
  private readonly overviews = new Map<number, OffscreenCanvas | null>();

  constructor(private readonly evaluation: Evaluation) {
    const { window } = evaluation.representation.manifest;
    const [rows, columns] = window.slice(-2) as [Range, Range];
    this.view = new Viewport(rows, columns);
    this.tiles = new Tiles(evaluation);
    this.slice = window.length === 3 ? window[0]![0] : 0;
  }

  listen(onMore: () => void, onError: (error: unknown) => void): void {
    this.tiles.onTile = onMore;
    this.tiles.onError = onError;
  }

  get settled(): boolean {
    return this.tiles.settled;
  }

  draw(context: CanvasRenderingContext2D): boolean {
    const { view, tiles, slice } = this;
    const [rows, columns] = view.seen;
    const complete = rows[0] >= rows[1] || columns[0] >= columns[1] || tiles.want(rows, columns, view.zoom, slice);
    context.save();
    this.clip(context);
    context.imageSmoothingEnabled = true;
    const level = Tiles.levelOf(view.zoom);
    const drawable = tiles.drawable(level, slice);
    const failed = drawable.some((tile) => tile.level === level && !tile.picture);
    const covered = complete && tiles.needed(level) && !failed;
    if (!covered) this.drawOverview(context);
    for (const tile of drawable) {
      if (!tile.picture || (covered && tile.level !== level)) continue;
      const scale = 2 ** tile.level;
      this.place(
        context,
        tile.picture,
        tile.rows.map((n) => n / scale) as Range,
        tile.columns.map((n) => n / scale) as Range,
      );
    }
    context.restore();
    return complete;
  }

  drawBorders(context: CanvasRenderingContext2D): void {
    const { view, evaluation } = this;
    const tile = evaluation.representation.manifest.tile.slice(-2) as [number, number];
    if (Math.min(...tile) * view.zoom < 4) return;
    const [rows, columns] = view.seen;
    context.beginPath();
    for (let row = Math.ceil(rows[0] / tile[0]) * tile[0]; row <= rows[1]; row += tile[0]) {
      const y = Math.round(view.py(row)) + 0.5;
      context.moveTo(view.px(columns[0]), y);
      context.lineTo(view.px(columns[1]), y);
    }
    for (let column = Math.ceil(columns[0] / tile[1]) * tile[1]; column <= columns[1]; column += tile[1]) {
      const x = Math.round(view.px(column)) + 0.5;
      context.moveTo(x, view.py(rows[0]));
      context.lineTo(x, view.py(rows[1]));
    }
    for (const [style, width] of [
      ["#0004", 3],
      ["#fff9", 1],
    ] as const) {
      context.strokeStyle = style;
      context.lineWidth = width;
      context.stroke();
    }
  }

  private clip(context: CanvasRenderingContext2D): void {
    const [rows, columns] = this.evaluation.representation.manifest.window.slice(-2) as [Range, Range];
    const [x, y] = [Math.round(this.view.px(columns[0])), Math.round(this.view.py(rows[0]))];
    context.beginPath();
    context.rect(x, y, Math.round(this.view.px(columns[1])) - x, Math.round(this.view.py(rows[1])) - y);
    context.clip();
  }

  /** Whole pixels, so that neighbours leave no gap. */
  private place(context: CanvasRenderingContext2D, picture: CanvasImageSource, rows: Range, columns: Range): void {
    const { view } = this;
    const [x, y] = [Math.round(view.px(columns[0])), Math.round(view.py(rows[0]))];
    const [right, bottom] = [Math.round(view.px(columns[1])), Math.round(view.py(rows[1]))];
    if (right < 0 || bottom < 0 || x > view.width || y > view.height) return;
    context.drawImage(picture, x, y, right - x, bottom - y);
  }

  private drawOverview(context: CanvasRenderingContext2D): void {
    const { tile, window } = this.evaluation.representation.manifest;
    const depth = window.length === 3 ? Math.floor(this.slice / tile[0]!) : 0;
    if (!this.overviews.has(depth)) this.overviews.set(depth, overviewOf(this.evaluation, depth));
    const picture = this.overviews.get(depth);
    if (!picture) return;
    const [rows, columns] = cellsOf(this.evaluation).map(
      ([low, high], d): Range => [low * tile.at(d - 2)!, high * tile.at(d - 2)!],
    );
    this.place(context, picture, rows!, columns!);
  }
}

/** The partitions of the window along rows and columns. */
function cellsOf({ representation: { manifest } }: Evaluation): Box {
  const tile = manifest.tile.slice(-2);
  return manifest.window.slice(-2).map(([low, high], d) => [Math.floor(low / tile[d]!), Math.ceil(high / tile[d]!)]);
}

/** One pixel for each partition. */
function overviewOf(evaluation: Evaluation, depth: number): OffscreenCanvas | null {
  const { overview, lattice, manifest } = evaluation.representation;
  const [rows, columns] = cellsOf(evaluation) as [Range, Range];
  const [height, width] = [rows[1] - rows[0], columns[1] - columns[0]];
  if (!overview || height * width > LARGEST_OVERVIEW) return null;
  const { channels: C } = manifest.signal;
  const [black, white] = shownRange(manifest.signal);
  const picture = new ImageData(width, height);
  for (let place = 0; place < lattice.length; place++) {
    const id = lattice.id(place);
    if (id.length === 3 && id.shift() !== depth) continue;
    const [row, column] = [id[0]! - rows[0], id[1]! - columns[0]];
    if (row < 0 || row >= height || column < 0 || column >= width) continue;
    const byte = (channel: number): number => ((overview[place * C + channel]! - black) * 255) / (white - black);
    const colours = C > 2 ? [byte(0), byte(1), byte(2)] : [byte(0), byte(0), byte(0)];
    picture.data.set([...colours, C % 2 ? 255 : byte(C - 1)], 4 * (row * width + column));
  }
  const canvas = new OffscreenCanvas(width, height);
  canvas.getContext("2d")!.putImageData(picture, 0, 0);
  return canvas;
}

/** A map of the lattice: which rows were fetched so far, and where the canvas looks. */

import type { Range } from "./box";
import type { Lattice } from "./lattice";
import type { Representation } from "./representation";
import type { Rows } from "./rows";
import type { Viewport } from "./viewport";

const MOST_CELLS = 144; // along a side
const STATES = [1, 3, 2]; // by the flags of `Rows.fetched`

/** Draw it; `depth` is the layer of partitions that is shown of a film or volume. */
export function drawMap(
  canvas: HTMLCanvasElement,
  { lattice, manifest }: Representation,
  rows: Rows,
  view: Viewport,
  depth: number,
): void {
  const D = manifest.tile.length;
  const flat = (values: Range[]): [Range, Range] =>
    D === 1 ? [[0, 1], values[0]!] : (values.slice(-2) as [Range, Range]);
  const [tileRows, tileColumns] = D === 1 ? [1, manifest.tile[0]!] : (manifest.tile.slice(-2) as [number, number]);
  const [down, across] = flat(manifest.extent);
  const cells = ([low, high]: Range, tile: number): Range => [Math.floor(low / tile), Math.ceil(high / tile)];
  const [r, c] = [cells(down, tileRows), cells(across, tileColumns)];
  const group = Math.max(1, Math.ceil(Math.max(r[1] - r[0], c[1] - c[0]) / MOST_CELLS));
  const side = Math.max(1, Math.floor(MOST_CELLS / Math.ceil((c[1] - c[0]) / group)));
  const width = Math.ceil((c[1] - c[0]) / group) * side;
  const height = D === 1 ? 24 : Math.ceil((r[1] - r[0]) / group) * side;
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d")!;
  const style = getComputedStyle(canvas);
  const colours = ["--missing", "--along", "--accent"].map((name) => style.getPropertyValue(name));
  const wide = Math.ceil((c[1] - c[0]) / group);
  const gap = side > 3 ? 1 : 0;
  const tall = D === 1 ? height : side;
  cellsOf(lattice, rows.fetched, depth, r[0], c[0], group, wide).forEach((state, cell) => {
    context.fillStyle = colours[state - 1]!;
    context.fillRect((cell % wide) * side, Math.floor(cell / wide) * side, side - gap, tall - gap);
  });
  const [seenRows, seenColumns] = view.seen;
  const x = (value: number): number => ((value / tileColumns - c[0]) / group) * side;
  const y = (value: number): number => (D === 1 ? value * height : ((value / tileRows - r[0]) / group) * side);
  context.strokeStyle = style.getPropertyValue("--strong");
  context.lineWidth = 2;
  const [left, top] = [x(seenColumns[0]) + 1, y(seenRows[0]) + 1];
  context.strokeRect(left, top, Math.max(1, x(seenColumns[1]) - left - 1), Math.max(1, y(seenRows[1]) - top - 1));
}

/** Of each group of partitions: 1 if no row was fetched, 2 if some came along with others, 3 if some were asked for. */
function cellsOf(
  lattice: Lattice,
  fetched: Uint8Array,
  depth: number,
  row: number,
  column: number,
  group: number,
  wide: number,
): Map<number, number> {
  const D = lattice.tile.length;
  const states = new Map<number, number>();
  for (let place = 0, at = 0; place < lattice.length; place++, at += D) {
    if (D === 3 && lattice.ids[at] !== depth) continue;
    const down = D === 1 ? 0 : Math.floor((lattice.ids[at + D - 2]! - row) / group);
    const cell = down * wide + Math.floor((lattice.ids[at + D - 1]! - column) / group);
    states.set(cell, Math.max(states.get(cell) ?? 0, STATES[fetched[place]!]!));
  }
  return states;
}

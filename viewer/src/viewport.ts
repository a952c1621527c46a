/**
 * Where the canvas looks: borders of samples (sample n lies from n to n + 1) to device pixels and back, panned and
 * zoomed without end.
 */

import type { Range } from "./box";

const LARGEST_ZOOM = 2 ** 16; // device pixels a sample; beyond, float32 coordinates tell no neighbours apart
const MARGIN = 0.96; // of the canvas that the whole fills

export class Viewport {
  width = 1;
  height = 1;
  zoom = 1;
  private x = 0;
  private y = 0;

  /** Of a plane of rows and columns. */
  constructor(
    private readonly rows: Range,
    private readonly columns: Range,
  ) {
    this.x = (columns[0] + columns[1]) / 2;
    this.y = (rows[0] + rows[1]) / 2;
  }

  resize(width: number, height: number): void {
    const fitted = this.isFitted;
    this.width = width;
    this.height = height;
    if (fitted) this.fit();
  }

  fit(): void {
    this.zoom = this.fitted;
    this.x = (this.columns[0] + this.columns[1]) / 2;
    this.y = (this.rows[0] + this.rows[1]) / 2;
  }

  get isFitted(): boolean {
    return this.zoom === this.fitted || this.width === 1;
  }

  private get fitted(): number {
    const across = this.width / (this.columns[1] - this.columns[0]);
    const down = this.height / (this.rows[1] - this.rows[0]);
    return MARGIN * Math.min(across, down);
  }

  pan(dx: number, dy: number): void {
    this.x = clamp(this.x - dx / this.zoom, this.columns);
    this.y = clamp(this.y - dy / this.zoom, this.rows);
  }

  /** Zoom so that what lies at a pixel stays there. */
  zoomAt(px: number, py: number, factor: number): void {
    const [column, row] = [this.column(px), this.row(py)];
    this.zoom = Math.min(LARGEST_ZOOM, Math.max(this.fitted / 4, this.zoom * factor));
    this.x = clamp(column - (px - this.width / 2) / this.zoom, this.columns);
    this.y = clamp(row - (py - this.height / 2) / this.zoom, this.rows);
  }

  /** The column and row under a pixel. */
  column(px: number): number {
    return this.x + (px - this.width / 2) / this.zoom;
  }

  row(py: number): number {
    return this.y + (py - this.height / 2) / this.zoom;
  }

  /** The pixel of a column and of a row. */
  px(column: number): number {
    return (column - this.x) * this.zoom + this.width / 2;
  }

  py(row: number): number {
    return (row - this.y) * this.zoom + this.height / 2;
  }

  /** What of the plane is seen: rows, columns. */
  get seen(): [Range, Range] {
    const cut = ([low, high]: Range, from: number, to: number): Range => [Math.max(low, from), Math.min(high, to)];
    return [
      cut(this.rows, this.row(0), this.row(this.height)),
      cut(this.columns, this.column(0), this.column(this.width)),
    ];
  }
}

const clamp = (value: number, [low, high]: Range): number => Math.min(high, Math.max(low, value));

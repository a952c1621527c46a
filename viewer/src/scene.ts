/** What a page shows of a file: a plane or a sound. */

import type { Viewport } from "./viewport";

export interface Scene {
  readonly view: Viewport;
  /** Ask for what is seen, and draw what is there. Returns whether all of it is. */
  draw(context: CanvasRenderingContext2D): boolean;
  /** Whether nothing that was asked for is missing. */
  readonly settled: boolean;
  /** Borders of partitions, where they are not too close to each other. */
  drawBorders(context: CanvasRenderingContext2D): void;
  /** Told of more to draw, and of what went wrong. */
  listen(onMore: () => void, onError: (error: unknown) => void): void;
}

/** What workers are asked, and what they answer. */

import type { Box } from "./box";
import type { Request } from "./decode";
import type { Manifest } from "./manifest";

export interface Start {
  module: WebAssembly.Module;
  manifest: Manifest;
  shared: Float32Array;
  rowSize: number;
}

export interface Task {
  request: Request;
  /** What of the result is wanted: values in their range, bytes [*shape, C] or a picture. */
  result: "values" | "bytes" | "picture";
  /** The samples of the result, each the mean of `factor` along each axis. */
  box: Box;
  factor: number[];
}

export interface Answers {
  values: Float32Array;
  bytes: Uint8Array;
  picture: ImageBitmap;
}

export type Answer = { result: Answers[Task["result"]] } | { error: string };

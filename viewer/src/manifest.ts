/** The manifest of a file, version 2 (docs/format.md), and what follows from it. */

import { type Box, contains, isEmpty, product } from "./box";
import { need } from "./errors";
import { canonical, type Json } from "./json";

export interface Model {
  mode: "lg" | "lc" | "mlp";
  dimensions: number;
  channels: number;
  local_width: number;
  global_width: number;
  hidden_layers: number;
  w0: number;
  agg_type: "fc" | "fc_and_add";
}

export interface Coordinates {
  kind: "signal" | "tile";
  size: number[];
  shared_scale: number[];
  local_scale: number[] | null;
}

export interface SignalInfo {
  kind: "image" | "audio" | "video" | "volume";
  channels: number;
  value_range: [number, number];
  dtype: string;
  sampling_rate: [number, number] | null;
  spacing: number[] | null;
  colour: [number, number] | null;
}

export interface Manifest {
  format_version: 2;
  model: Model;
  codec: string;
  row_layout: Json;
  partitions: number;
  tile: number[];
  halo: number[];
  coordinates: Coordinates;
  extent: Box;
  window: Box;
  signal: SignalInfo;
  crc32: { [name: string]: number };
  origin: string;
  lineage: string;
  history: { [key: string]: Json }[];
  fit: { [key: string]: Json };
  config: { [key: string]: Json };
}

export interface Entry {
  dtype: string;
  shape: number[];
  data_offsets: [number, number];
}

const KINDS = { image: [2, 4], audio: [1, 64], video: [3, 4], volume: [3, 4] } as const; // dimensions, most channels
const FARTHEST = 2 ** 31;
const LARGEST_FACTOR = 1e6;
const KEYS: { [part: string]: string[] } = {
  manifest: [
    ...["format_version", "model", "codec", "row_layout", "partitions", "tile", "halo", "coordinates", "extent"],
    ...["window", "signal", "crc32", "origin", "lineage", "history", "fit", "config"],
  ],
  model: ["mode", "dimensions", "channels", "local_width", "global_width", "hidden_layers", "w0", "agg_type"],
  coordinates: ["kind", "size", "shared_scale", "local_scale"],
  signal: ["kind", "channels", "value_range", "dtype", "sampling_rate", "spacing", "colour"],
  fit: ["steps", "seconds", "psnr", "stopped", "device"],
};

type Shape = [name: string, shape: number[]];

function layers(prefix: string, widths: number[], first = 0): Shape[] {
  return widths.slice(1).flatMap((out, k): Shape[] => [
    [`${prefix}_${first + k}_weight`, [out, widths[k]!]],
    [`${prefix}_${first + k}_bias`, [out]],
  ]);
}

/** Names and shapes of the tensors of a row. */
export function rowLayout(model: Model): Shape[] {
  const widths = new Array<number>(model.hidden_layers + 1).fill(model.local_width);
  return layers("local", [model.dimensions, ...widths, model.channels]);
}

/** Names and shapes of the shared network's tensors. */
export function sharedLayout(model: Model): Shape[] {
  if (model.mode !== "lg") return [];
  const { local_width: local, global_width: wide, hidden_layers } = model;
  const depths = new Array<number>(hidden_layers + 1).fill(wide);
  const network = layers("global", [model.dimensions, ...depths]);
  if (model.agg_type === "fc") return [...network, ...layers("aggregation", [local + wide, local])];
  return [...network, ...depths.flatMap((_, k) => layers("aggregation", [wide, local], k))];
}

export const count = (layout: Shape[]): number => layout.reduce((sum, [, shape]) => sum + product(shape), 0);

/** The header's part on tensors, in order; `local` is the last. */
export function tensorTable(manifest: Manifest): Map<string, Entry> {
  const { model, partitions: each } = manifest;
  const tensors: [string, string, number[]][] = [
    ...sharedLayout(model).map(([name, shape]): [string, string, number[]] => [`shared.${name}`, "F32", shape]),
    ["partitions", "I32", [each, model.dimensions]],
    ["row_crc32", "U32", [each]],
    ["row_edit", "I32", [each]],
    ["row_blank", "I32", [each]],
  ];
  if (manifest.crc32["overview"] !== undefined) tensors.push(["overview", "F32", [each, model.channels]]);
  tensors.push(["local", "F32", [each, count(rowLayout(model))]]);
  let at = 0;
  return new Map(
    tensors.map(([name, dtype, shape]) => {
      const begin = at;
      at += 4 * product(shape);
      return [name, { dtype, shape, data_offsets: [begin, at] }];
    }),
  );
}

/** The manifest, if it can be. */
export function checked(plain: Json): Manifest {
  const manifest = plain as unknown as Manifest;
  hasKeys(plain, "manifest");
  for (const part of ["model", "coordinates", "signal", "fit"] as const)
    hasKeys(manifest[part] as unknown as Json, part);
  checkModel(manifest);
  checkSignal(manifest);
  checkPlaces(manifest);
  isWhole(manifest.partitions, "partitions", 1, 2 ** 40);
  right(manifest.model.mode !== "mlp" || manifest.partitions === 1, "mode mlp has exactly one partition");
  need(manifest.codec === "float32", `row codec ${String(manifest.codec)} is unknown to this page; take a newer one`);
  let offset = 0;
  const layout = rowLayout(manifest.model).map(([name, shape]) => {
    const entry = { name, shape, offset };
    offset += product(shape);
    return entry;
  });
  right(canonical(manifest.row_layout) === canonical(layout), "row layout and model differ");
  for (const name of ["origin", "lineage"] as const) right(typeof manifest[name] === "string", `${name} is no text`);
  right(isObject(manifest.config as Json), "config is no mapping");
  checkHistory(manifest);
  const names = [...tensorTable(manifest).keys()].filter((name) => name !== "local");
  right(
    isObject(manifest.crc32) && sameNames(Object.keys(manifest.crc32), names),
    "its checksums do not match its tensors",
  );
  for (const name of names) isWhole(manifest.crc32[name], `crc32 of ${name}`, 0, 2 ** 32 - 1);
  return manifest;
}

function checkModel({ model }: Manifest): void {
  right(["lg", "lc", "mlp"].includes(model.mode), "the mode is unknown");
  right(["fc", "fc_and_add"].includes(model.agg_type), "agg_type is unknown");
  isWhole(model.dimensions, "dimensions", 1, 3);
  isWhole(model.channels, "channels", 1, 64);
  isWhole(model.local_width, "local_width", 1, 16384);
  isWhole(model.global_width, "global_width", model.mode === "lg" ? 1 : 0, 16384);
  isWhole(model.hidden_layers, "hidden_layers", 0, 64);
  isFactor(model.w0, "w0");
}

function checkSignal({ model, signal }: Manifest): void {
  const kind = Object.hasOwn(KINDS, signal.kind) ? KINDS[signal.kind] : undefined;
  right(kind && kind[0] === model.dimensions, "the dimensions do not fit the kind");
  right(signal.channels === model.channels && model.channels <= kind[1], "the channels do not fit");
  const range = numbers(signal.value_range, "value_range", 2);
  right(range[0]! < range[1]!, "the value range is empty");
  right(typeof signal.dtype === "string", "dtype is no text");
  if (signal.sampling_rate !== null)
    numbers(signal.sampling_rate, "sampling_rate", 2).forEach((n) => isWhole(n, "sampling_rate", 1));
  if (signal.colour !== null) numbers(signal.colour, "colour", 2).forEach((n) => isWhole(n, "colour", 1, 255));
  if (signal.spacing !== null)
    numbers(signal.spacing, "spacing", model.dimensions).forEach((n) => right(n > 0, "spacing is not positive"));
}

function checkPlaces({ model, tile, halo, coordinates, extent, window }: Manifest): void {
  const D = model.dimensions;
  numbers(tile, "tile", D).forEach((n) => isWhole(n, "tile", 1, FARTHEST - 1));
  numbers(halo, "halo", D).forEach((n) => isWhole(n, "halo", 0, FARTHEST - 1));
  right(["signal", "tile"].includes(coordinates.kind), "the coordinates are unknown");
  numbers(coordinates.size, "size", D).forEach((n) => isWhole(n, "size", 1, FARTHEST - 1));
  numbers(coordinates.shared_scale, "shared_scale", D).forEach((n) => isFactor(n, "shared_scale"));
  right(coordinates.local_scale !== null || coordinates.kind === "signal", "tile coordinates have no local scale");
  if (coordinates.local_scale !== null)
    numbers(coordinates.local_scale, "local_scale", D).forEach((n) => isFactor(n, "local_scale"));
  isBox(extent, D, "the extent");
  isBox(window, D, "the window");
  right(contains(extent, window), "the window is not inside the extent");
}

function checkHistory({ history, model, extent }: Manifest): void {
  right(Array.isArray(history) && history.length > 0, "the history is empty");
  for (const entry of history) {
    right(isObject(entry as Json), "an entry of the history is no mapping");
    const given = entry["given"] ?? [];
    right(Array.isArray(given), "given in the history is no list");
    for (const box of [...given, entry["held"] ?? extent]) {
      right(Array.isArray(box) && box.length === model.dimensions, "a box in the history is none");
      for (const range of box)
        numbers(range, "a box in the history", 2).forEach((n) => isWhole(n, "a box in the history"));
    }
  }
}

function right(condition: unknown, reason: string): asserts condition {
  need(condition, `damaged: ${reason}; restore the file from a copy`);
}

const isObject = (value: Json | undefined): boolean =>
  value !== null && typeof value === "object" && !Array.isArray(value);

const sameNames = (a: string[], b: string[]): boolean => a.length === b.length && b.every((name) => a.includes(name));

function hasKeys(value: Json, part: string): void {
  right(
    isObject(value) && sameNames(Object.keys(value as object), KEYS[part]!),
    `${part} lacks a key, or has one that is unknown`,
  );
}

function numbers(value: unknown, what: string, length: number): number[] {
  const fits = Array.isArray(value) && value.length === length && value.every((n) => typeof n === "number");
  right(fits, `${what} does not have ${length} numbers`);
  return value as number[];
}

function isWhole(value: unknown, what: string, least = -Infinity, most = Infinity): void {
  right(Number.isInteger(value) && least <= (value as number) && (value as number) <= most, `${what} is out of range`);
}

function isFactor(value: unknown, what: string): void {
  right(typeof value === "number" && value > 0 && value <= LARGEST_FACTOR, `${what} is out of range`);
}

function isBox(value: Box, dimensions: number, what: string): void {
  right(Array.isArray(value) && value.length === dimensions, `${what} does not have ${dimensions} ranges`);
  for (const range of value) numbers(range, what, 2).forEach((n) => isWhole(n, what, -FARTHEST, FARTHEST));
  right(!isEmpty(value), `${what} is empty`);
}

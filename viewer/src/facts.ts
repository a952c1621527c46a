/** A file in words. */

import { shapeOf } from "./box";
import { count, sharedLayout } from "./manifest";
import type { Representation } from "./representation";

const CHANNELS = ["gray", "gray with alpha", "RGB", "RGBA"];

export const whole = (number: number): string => Math.round(number).toLocaleString("en");

export const bytes = (number: number): string =>
  number < 1e4
    ? `${whole(number)} bytes`
    : number < 1e6
      ? `${(number / 1e3).toFixed(1)} kB`
      : `${(number / 1e6).toFixed(2)} MB`;

export const times = (numbers: readonly number[]): string => numbers.map(whole).join(" × ");

/** Samples per second along the first axis. */
export function rateOf({ manifest: { signal } }: Representation): number | null {
  return signal.sampling_rate && signal.sampling_rate[0] / signal.sampling_rate[1];
}

/** Names and texts of what is known. */
export function factsOf(representation: Representation): [string, string][] {
  const { manifest, source, lattice, rowSize } = representation;
  const { model, signal, window, tile, fit, coordinates } = manifest;
  const rate = rateOf(representation);
  const shape = shapeOf(window);
  const channels =
    signal.kind === "audio"
      ? `${model.channels} channel${model.channels > 1 ? "s" : ""}`
      : CHANNELS[model.channels - 1]!;
  const widths = model.mode === "lg" ? `${model.local_width} + ${model.global_width}` : String(model.local_width);
  const facts: [string, string][] = [
    ["kind", `${signal.kind}, ${channels}, ${signal.dtype}`],
    ["samples", times(shape)],
    ["model", `${model.mode}, width ${widths}, ${coordinates.kind} coordinates`],
    ["partitions", `${whole(lattice.length)} of ${times(tile)}`],
    ["parameters", whole(lattice.length * rowSize + count(sharedLayout(model)))],
    ["file", bytes(source.size)],
  ];
  if (rate)
    facts.splice(2, 0, [
      "length",
      `${(shape[0]! / rate).toFixed(2)} s at ${rate.toLocaleString("en")} ${signal.kind === "audio" ? "Hz" : "frames/s"}`,
    ]);
  if (typeof fit["psnr"] === "number") facts.push(["PSNR", `${fit["psnr"].toFixed(2)} dB`]);
  if (signal.colour) facts.push(["colour", `H.273 ${signal.colour.join(", ")}, shown as if sRGB`]);
  return facts;
}

/** Boxes of positions: half-open ranges of whole numbers, one an axis, as `lgsirens/grid/box.py` has them. */

import { need } from "./errors";

export type Range = [number, number];
export type Box = Range[];

export const shapeOf = (box: Box): number[] => box.map(([low, high]) => high - low);

export const product = (numbers: readonly number[]): number => numbers.reduce((a, b) => a * b, 1);

export const isEmpty = (box: Box): boolean => box.some(([low, high]) => low >= high);

export const contains = (outer: Box, inner: Box): boolean =>
  outer.every(([low, high], d) => low <= inner[d]![0] && inner[d]![1] <= high);

export const intersect = (a: Box, b: Box): Box =>
  a.map(([low, high], d) => [Math.max(low, b[d]![0]), Math.min(high, b[d]![1])]);

/** The smallest box that holds two. */
export const bounding = (a: Box, b: Box): Box =>
  a.map(([low, high], d) => [Math.min(low, b[d]![0]), Math.max(high, b[d]![1])]);

/** `start:stop` an axis, as `--region` takes it. */
export const formatBox = (box: Box): string => box.map(([low, high]) => `${low}:${high}`).join(",");

/** A region such as `100:300, 50:` within an extent; an end that is left out is the border. */
export function parseRegion(text: string, extent: Box): Box {
  const parts = text.split(",");
  need(parts.length === extent.length, `region ${text}: give start:stop for each of ${extent.length} axes`);
  const box: Box = parts.map((part, d) => {
    const match = /^\s*([+-]?\d{1,15})?:([+-]?\d{1,15})?\s*$/.exec(part);
    need(match, `region ${text}: ${part.trim()} is no range; give start:stop, such as 100:300`);
    return [Number(match[1] ?? extent[d]![0]), Number(match[2] ?? extent[d]![1])];
  });
  const inside = !isEmpty(box) && contains(extent, box);
  need(inside, `region ${formatBox(box)} is empty or outside; choose one within ${formatBox(extent)}`);
  return box;
}

/** Resolutions, rational along each axis: fine sample j at scale s lies at position `(j + 0.5) / s - 0.5`. */

import type { Box, Range } from "./box";
import { need } from "./errors";

export interface Scale {
  num: number;
  den: number;
}

export const ONE: Scale = { num: 1, den: 1 };

/** 2 ** level. */
export const powerOfTwo = (level: number): Scale =>
  level < 0 ? { num: 1, den: 2 ** -level } : { num: 2 ** level, den: 1 };

export const valueOf = (scale: Scale): number => scale.num / scale.den;

/** A whole number of times finer. */
export const times = (scale: Scale, factor: number): Scale => {
  const divisor = gcd(scale.num * factor, scale.den);
  return { num: (scale.num * factor) / divisor, den: scale.den / divisor };
};

function gcd(a: number, b: number): number {
  return b ? gcd(b, a % b) : a;
}

/** A scale such as 2, 1.5 or 3/2. */
export function parseScale(text: string): Scale {
  const match = /^\s*(\d{1,6})(?:\/(\d{1,6})|\.(\d{1,6}))?\s*$/.exec(text);
  const places = match?.[3]?.length ?? 0;
  const num = match ? Number(match[1] + (match[3] ?? "")) : 0;
  const den = match?.[2] ? Number(match[2]) : 10 ** places;
  need(num > 0 && den > 0, `scale ${text}: give a number above 0, such as 2, 1.5 or 3/2`);
  return times({ num, den }, 1);
}

/** The first fine sample at or beyond a border of tiles: `ceil(border * s - 1/2)`. */
const firstFine = (border: number, { num, den }: Scale): number => Math.ceil((2 * border * num - den) / (2 * den));

/** The fine samples whose positions lie in `[a - 0.5, b - 0.5)`. */
export const fineRange = ([low, high]: Range, scale: Scale): Range => [firstFine(low, scale), firstFine(high, scale)];

export const fineBox = (box: Box, scales: Scale[]): Box => box.map((range, d) => fineRange(range, scales[d]!));

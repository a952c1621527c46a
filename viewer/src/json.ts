/** Canonical JSON (RFC 8785): keys sorted by their UTF-16 code units, no blanks, numbers as JavaScript prints them. */

import { need } from "./errors";

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

/** The one text of a value. */
export function canonical(value: Json): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  const entries = Object.keys(value)
    .sort()
    .map((key) => `${JSON.stringify(key)}:${canonical(value[key]!)}`);
  return `{${entries.join(",")}}`;
}

/** The value of a canonical text; any other is refused, and so are duplicate keys and numbers beyond JSON's. */
export function parse(text: string, what: string): Json {
  let value: Json;
  try {
    value = JSON.parse(text) as Json;
  } catch {
    need(false, `damaged: its ${what} is no JSON; restore the file from a copy`);
  }
  need(
    canonical(value) === text,
    `damaged: its ${what} is not canonical JSON; restore it, or write it again by lgsirens crop`,
  );
  return value;
}

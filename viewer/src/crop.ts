/** A crop as `lgsirens crop` writes it: the same bytes, but for the time in the history and the manifest's checksum. */

import { type Box, bounding, intersect } from "./box";
import { crc32, crc32OfText } from "./crc32";
import { need } from "./errors";
import { canonical, type Json } from "./json";
import { count, type Manifest, sharedLayout, tensorTable } from "./manifest";
import type { Representation } from "./representation";
import type { Rows } from "./rows";

const PER_ROW = ["partitions", "row_crc32", "row_edit", "row_blank", "overview"];
const CHUNK_ROWS_BYTES = 16 << 20;

/** What a crop keeps. */
export interface Crop {
  places: number[];
  parameters: number;
  bytes: number;
  /** All bytes but those of the rows. */
  head: Uint8Array<ArrayBuffer>;
}

/** Keep the partitions that meet a region; `version` of lgsirens goes to the history. */
export function planCrop(whole: Representation, region: Box, version: string, now = new Date()): Crop {
  const places = whole.lattice.meeting(region);
  need(places.length, "no partition is there; choose another region");
  const extent = bounding(keptExtent(whole, places), region);
  const date = `${now.toISOString().slice(0, 19)}+00:00`;
  const entry = { action: "crop", date, version, window: region, partitions: places.length };
  const tensors = new Map<string, Uint8Array<ArrayBuffer>>();
  for (const [name, bytes] of whole.tensors)
    tensors.set(name, PER_ROW.includes(name) ? selected(bytes, whole, places) : bytes);
  const manifest: Manifest = {
    ...whole.manifest,
    partitions: places.length,
    extent,
    window: region,
    history: [...whole.manifest.history, entry],
    crc32: Object.fromEntries([...tensors].map(([name, bytes]) => [name, crc32(bytes)])),
  };
  const head = joined([header(manifest), ...tensors.values()]);
  const local = places.length * whole.rowSize;
  return { places, parameters: local + count(sharedLayout(manifest.model)), bytes: head.length + 4 * local, head };
}

/** The whole file of a crop. */
export async function writeCrop(crop: Crop, rows: Rows, rowSize: number): Promise<Blob> {
  const parts: BlobPart[] = [crop.head];
  const step = Math.max(1, Math.floor(CHUNK_ROWS_BYTES / (4 * rowSize)));
  for (let start = 0; start < crop.places.length; start += step) {
    parts.push((await rows.read(crop.places.slice(start, start + step))).buffer as ArrayBuffer);
  }
  return new Blob(parts, { type: "application/octet-stream" });
}

/** The bounding box of the tiles, cut at the old extent. */
function keptExtent({ lattice, manifest }: Representation, places: number[]): Box {
  return intersect(places.map((place) => lattice.box(place)).reduce(bounding), manifest.extent);
}

function selected(bytes: Uint8Array, { lattice }: Representation, places: number[]): Uint8Array<ArrayBuffer> {
  const each = bytes.length / lattice.length;
  const kept = new Uint8Array(places.length * each);
  places.forEach((place, n) => kept.set(bytes.subarray(place * each, (place + 1) * each), n * each));
  return kept;
}

function header(manifest: Manifest): Uint8Array {
  const text = canonical(manifest as unknown as Json);
  const crc = crc32OfText(text);
  const metadata = { lgsirens: text, lgsirens_crc32: String(crc) };
  const table = Object.fromEntries(tensorTable(manifest)) as unknown as { [name: string]: Json };
  const json = new TextEncoder().encode(canonical({ __metadata__: metadata, ...table }));
  // As long as if each CRC-32 had ten digits.
  const spare = [...Object.values(manifest.crc32), crc].reduce((sum, number) => sum + 10 - String(number).length, 0);
  const length = Math.ceil((json.length + spare) / 8) * 8;
  const bytes = new Uint8Array(8 + length).fill(0x20);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(length), true);
  bytes.set(json, 8);
  return bytes;
}

function joined(parts: Uint8Array[]): Uint8Array<ArrayBuffer> {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

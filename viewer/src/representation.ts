/** A file opened: its manifest and index, all of it checked; rows stay where they are until they are needed. */

import { crc32, crc32OfText } from "./crc32";
import { need } from "./errors";
import { canonical, type Json, parse } from "./json";
import { Lattice } from "./lattice";
import { checked, count, type Manifest, rowLayout, sharedLayout, tensorTable } from "./manifest";
import type { Source } from "./source";

export interface Representation {
  source: Source;
  manifest: Manifest;
  lattice: Lattice;
  /** The bytes of every tensor but `local`. */
  tensors: Map<string, Uint8Array>;
  /** All shared tensors, one after the other. */
  shared: Float32Array;
  /** [P, C], the mean of each partition, if it is known. */
  overview: Float32Array | null;
  /** [P] */
  rowCrc32: Uint32Array;
  /** K */
  rowSize: number;
  /** Where the first row begins. */
  rowsAt: number;
}

const LARGEST_HEADER = 1e8;
const BRACE = 0x7b;

/** Open a file. */
export async function open(source: Source): Promise<Representation> {
  need(source.size > 8, "not a file of lgsirens: it is too short; lgsirens encode writes one");
  const begin = copied(await source.read(0, 9));
  const length = new DataView(begin.buffer).getBigUint64(0, true);
  need(
    length <= LARGEST_HEADER && begin[8] === BRACE,
    "not a file of lgsirens, or damaged: it does not begin as a .safetensors file; choose another",
  );
  need(
    Number(length) <= source.size - 8,
    `truncated: its header has ${length} bytes, the file ${source.size}; restore it from a copy`,
  );
  const { manifest, table } = readHeader(await source.read(8, Number(length)));
  const start = 8 + Number(length);
  const end = start + table.get("local")!.data_offsets[1];
  need(
    source.size === end,
    `truncated or overlong: ${source.size} bytes, its header describes ${end}; restore it from a copy`,
  );
  const rowsAt = start + table.get("local")!.data_offsets[0];
  const index = await source.read(start, rowsAt - start);
  const tensors = new Map<string, Uint8Array>();
  for (const [name, { dtype, data_offsets }] of table) {
    if (name === "local") continue;
    const bytes = copied(index.subarray(...data_offsets));
    need(crc32(bytes) === manifest.crc32[name], `tensor ${name} is damaged (its CRC-32 differs); restore a copy`);
    if (dtype === "F32") checkFinite(new Float32Array(bytes.buffer), name);
    tensors.set(name, bytes);
  }
  const numbers = (name: string): Int32Array => new Int32Array(tensors.get(name)!.buffer);
  const lattice = new Lattice(manifest.tile, numbers("partitions"));
  need(
    lattice.isRight(manifest.extent),
    "damaged: the partition ids are not unique and in order, or lie outside; restore a copy",
  );
  checkEdits(manifest, numbers("row_edit"), numbers("row_blank"));
  const shared = new Float32Array(count(sharedLayout(manifest.model)));
  let at = 0;
  for (const [name] of sharedLayout(manifest.model)) {
    const tensor = new Float32Array(tensors.get(`shared.${name}`)!.buffer);
    shared.set(tensor, at);
    at += tensor.length;
  }
  const overview = tensors.get("overview");
  return {
    source,
    manifest,
    lattice,
    tensors,
    shared,
    rowsAt,
    overview: overview ? new Float32Array(overview.buffer) : null,
    rowCrc32: new Uint32Array(tensors.get("row_crc32")!.buffer),
    rowSize: count(rowLayout(manifest.model)),
  };
}

export function checkFinite(values: Float32Array, name: string): void {
  for (const value of values) {
    need(Number.isFinite(value), `tensor ${name} holds NaN or infinite weights; restore a copy or encode again`);
  }
}

function readHeader(bytes: Uint8Array): { manifest: Manifest; table: ReturnType<typeof tensorTable> } {
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes).replace(/ +$/, "");
  } catch {
    need(false, "not a file of lgsirens, or damaged: its header is no text; choose another");
  }
  let plain: Json;
  try {
    plain = JSON.parse(text) as Json;
  } catch {
    need(false, "damaged: its header is no JSON; restore the file from a copy");
  }
  const metadata = (plain as { [key: string]: Json })["__metadata__"] as { [key: string]: Json } | null | undefined;
  const words = metadata?.["lgsirens"];
  need(typeof words === "string", "not a file of lgsirens: it has no manifest; lgsirens encode writes one");
  need(
    metadata!["lgsirens_crc32"] === String(crc32OfText(words)),
    "damaged: the manifest's CRC-32 differs; restore a copy",
  );
  let version: Json | undefined;
  try {
    version = (JSON.parse(words) as { [key: string]: Json } | null)?.["format_version"];
  } catch {
    need(false, "damaged: its manifest is no JSON; restore the file from a copy");
  }
  need(version !== 1, "format version 1; lgsirens crop writes it again as version 2, which this page reads");
  need(version === 2, `format version ${JSON.stringify(version)}, which this page does not know; take a newer one`);
  parse(text, "header");
  const manifest = checked(parse(words, "manifest"));
  const table = tensorTable(manifest);
  const { __metadata__: _, ...rest } = plain as { [key: string]: Json };
  const same = canonical(rest) === canonical(Object.fromEntries(table) as unknown as Json);
  need(same, "damaged: the header's names, types, shapes or offsets do not match the manifest; restore a copy");
  return { manifest, table };
}

function checkEdits({ history }: Manifest, edit: Int32Array, blank: Int32Array): void {
  for (let n = 0; n < edit.length; n++) {
    const named = Math.abs(blank[n]!) - 1;
    const there = edit[n]! >= 0 && edit[n]! < history.length && named < history.length;
    need(
      there && (blank[n]! >= 0 || history[named]!["held"]),
      "damaged: a row names an edit that is not there; restore a copy",
    );
  }
}

/** Bytes in a buffer of their own. */
function copied(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  return bytes.slice();
}

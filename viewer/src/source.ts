/** Where bytes are read from: a local file, or a URL by HTTP ranges. */

import { need, PageError } from "./errors";

export interface Source {
  readonly name: string;
  readonly size: number;
  /** What was asked of it so far. */
  readonly asked: { bytes: number; requests: number };
  read(offset: number, size: number): Promise<Uint8Array>;
}

const FIRST_BYTES = 1 << 18; // the header, and the index of all but large files

/** A file that was dropped on the page. */
export class BlobSource implements Source {
  readonly asked = { bytes: 0, requests: 0 };

  constructor(
    private readonly blob: Blob,
    readonly name: string,
  ) {}

  get size(): number {
    return this.blob.size;
  }

  async read(offset: number, size: number): Promise<Uint8Array> {
    this.asked.bytes += size;
    this.asked.requests++;
    try {
      const data = new Uint8Array(await this.blob.slice(offset, offset + size).arrayBuffer());
      need(data.length === size, `truncated: it ends at ${offset + data.length}; restore the file from a copy`);
      return data;
    } catch (error) {
      if (error instanceof PageError) throw error;
      throw new PageError("cannot be read any more; was it moved or changed? open it again");
    }
  }
}

/** A URL whose server answers ranges; one that does not gives the whole file, once. */
export async function openUrl(url: URL): Promise<Source> {
  const name = decodeURIComponent(url.pathname.split("/").pop() || url.href);
  const answer = await ask(url, 0, FIRST_BYTES);
  const first = new Uint8Array(await body(answer));
  if (answer.status === 200) {
    const whole = new BlobSource(new Blob([first]), name);
    whole.asked.requests = 1;
    whole.asked.bytes = first.length;
    return whole;
  }
  const size = Number(/\/(\d+)$/.exec(answer.headers.get("content-range") ?? "")?.[1] ?? NaN);
  need(Number.isSafeInteger(size), "the server does not say how long the file is; try another server");
  return new UrlSource(url, name, size, answer.headers.get("etag"), first);
}

class UrlSource implements Source {
  readonly asked: { bytes: number; requests: number };

  constructor(
    private readonly url: URL,
    readonly name: string,
    readonly size: number,
    private readonly etag: string | null,
    private readonly first: Uint8Array,
  ) {
    this.asked = { bytes: first.length, requests: 1 };
  }

  async read(offset: number, size: number): Promise<Uint8Array> {
    const known = this.first.subarray(offset, offset + size);
    if (known.length === size) return known;
    const data = new Uint8Array(size);
    data.set(known);
    data.set(await this.fetch(offset + known.length, size - known.length), known.length);
    return data;
  }

  private async fetch(offset: number, size: number): Promise<Uint8Array> {
    this.asked.requests++;
    const answer = await ask(this.url, offset, size);
    const range = answer.headers.get("content-range") ?? "";
    const same =
      answer.headers.get("etag") === this.etag && range === `bytes ${offset}-${offset + size - 1}/${this.size}`;
    need(answer.status === 206 && same, "was replaced or changed since it was opened; load the page again");
    const data = new Uint8Array(await body(answer));
    need(data.length === size, `the server sent ${data.length} of ${size} bytes; try again`);
    this.asked.bytes += size;
    return data;
  }
}

async function ask(url: URL, offset: number, size: number): Promise<Response> {
  let answer: Response;
  try {
    answer = await fetch(url, { headers: { Range: `bytes=${offset}-${offset + size - 1}` }, cache: "no-store" });
  } catch {
    throw new PageError("cannot be fetched: no answer from the server, or it is another host than the page's");
  }
  if (answer.status === 416) throw new PageError("is empty, or was cut since it was opened; restore it from a copy");
  need(answer.ok, `the server answers ${answer.status} ${answer.statusText}; check the address`);
  return answer;
}

async function body(answer: Response): Promise<ArrayBuffer> {
  try {
    return await answer.arrayBuffer();
  } catch {
    throw new PageError("the connection broke off; try again");
  }
}

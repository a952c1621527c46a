/** PNG of 8 bits, written as its rows come. */

import { crc32 } from "./crc32";

const COLOUR_TYPES = [0, 4, 2, 6]; // gray, with alpha, RGB, with alpha
const SIGNATURE = new Uint8Array([137, 80, 78, 71, 13, 10, 26, 10]);
const NO_FILTER = 0;

/** Of bytes [height, width, channels], given in bands of whole rows. */
export async function writePng(
  width: number,
  height: number,
  channels: number,
  bands: AsyncIterable<Uint8Array>,
): Promise<Blob> {
  const header = new DataView(new ArrayBuffer(13));
  header.setUint32(0, width);
  header.setUint32(4, height);
  header.setUint8(8, 8);
  header.setUint8(9, COLOUR_TYPES[channels - 1]!);
  const packer = new CompressionStream("deflate");
  const packed = new Response(packer.readable).arrayBuffer();
  const writer = packer.writable.getWriter();
  for await (const band of bands) await writer.write(filtered(band, width * channels));
  await writer.close();
  const parts = [
    chunk("IHDR", new Uint8Array(header.buffer)),
    chunk("IDAT", new Uint8Array(await packed)),
    chunk("IEND", new Uint8Array()),
  ];
  return new Blob([SIGNATURE, ...parts], { type: "image/png" });
}

/** Each row begins with the number of its filter. */
function filtered(band: Uint8Array, rowBytes: number): Uint8Array<ArrayBuffer> {
  const rows = band.length / rowBytes;
  const out = new Uint8Array(rows * (rowBytes + 1));
  for (let row = 0; row < rows; row++) {
    out[row * (rowBytes + 1)] = NO_FILTER;
    out.set(band.subarray(row * rowBytes, (row + 1) * rowBytes), row * (rowBytes + 1) + 1);
  }
  return out;
}

function chunk(type: string, data: Uint8Array): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(12 + data.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, data.length);
  for (let n = 0; n < 4; n++) bytes[4 + n] = type.charCodeAt(n);
  bytes.set(data, 8);
  view.setUint32(8 + data.length, crc32(bytes.subarray(4, 8 + data.length)));
  return bytes;
}

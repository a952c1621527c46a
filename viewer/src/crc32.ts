/** CRC-32 as zlib has it, eight bytes at a time. */

const TABLES = Array.from({ length: 8 }, () => new Uint32Array(256));
for (let n = 0; n < 256; n++) {
  let c = n;
  for (let bit = 0; bit < 8; bit++) c = c & 1 ? (c >>> 1) ^ 0xedb88320 : c >>> 1;
  TABLES[0]![n] = c >>> 0;
}
for (let n = 0; n < 256; n++) {
  for (let k = 1; k < 8; k++) {
    const before = TABLES[k - 1]![n]!;
    TABLES[k]![n] = (before >>> 8) ^ TABLES[0]![before & 255]!;
  }
}

/** The checksum of bytes, going on from that of what stands before them. */
export function crc32(data: Uint8Array, before = 0): number {
  const [t0, t1, t2, t3, t4, t5, t6, t7] = TABLES as unknown as Uint32Array[];
  let c = ~before;
  let i = 0;
  for (const whole = data.length - 7; i < whole; i += 8) {
    c ^= data[i]! | (data[i + 1]! << 8) | (data[i + 2]! << 16) | (data[i + 3]! << 24);
    c =
      t7![c & 255]! ^
      t6![(c >>> 8) & 255]! ^
      t5![(c >>> 16) & 255]! ^
      t4![c >>> 24]! ^
      t3![data[i + 4]!]! ^
      t2![data[i + 5]!]! ^
      t1![data[i + 6]!]! ^
      t0![data[i + 7]!]!;
  }
  for (; i < data.length; i++) c = t0![(c ^ data[i]!) & 255]! ^ (c >>> 8);
  return ~c >>> 0;
}

const ENCODER = new TextEncoder();

/** The same of a text's UTF-8 bytes. */
export function crc32OfText(text: string): number {
  return crc32(ENCODER.encode(text));
}

/** WAV of 32-bit floats. */

const FLOAT = 3;

/** Of samples [n, channels], given in parts. */
export function writeWav(rate: number, channels: number, parts: Float32Array[]): Blob {
  const bytes = 4 * parts.reduce((sum, part) => sum + part.length, 0);
  const header = new DataView(new ArrayBuffer(44));
  const text = (at: number, word: string): void =>
    [...word].forEach((c, n) => header.setUint8(at + n, c.charCodeAt(0)));
  text(0, "RIFF");
  header.setUint32(4, 36 + bytes, true);
  text(8, "WAVEfmt ");
  header.setUint32(16, 16, true);
  header.setUint16(20, FLOAT, true);
  header.setUint16(22, channels, true);
  header.setUint32(24, rate, true);
  header.setUint32(28, rate * channels * 4, true);
  header.setUint16(32, channels * 4, true);
  header.setUint16(34, 32, true);
  text(36, "data");
  header.setUint32(40, bytes, true);
  return new Blob([header, ...(parts as Float32Array<ArrayBuffer>[])], { type: "audio/wav" });
}

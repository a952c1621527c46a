/** A worker: one instance of the kernel, one task at a time. */

import { shapeOf } from "./box";
import { BLOCK_SAMPLES, Decoder } from "./decode";
import { wordsOf } from "./errors";
import { Kernel } from "./kernel";
import { asBytes, asPixels, averaged, inRange } from "./samples";
import type { Answer, Answers, Start, Task } from "./tasks";

let manifest: Start["manifest"];
let decoder: Decoder;

self.onmessage = async ({ data }: MessageEvent<Start | Task>) => {
  if ("module" in data) {
    manifest = data.manifest;
    decoder = new Decoder(manifest, new Kernel(data.module, manifest.model, data.shared, data.rowSize, BLOCK_SAMPLES));
    return;
  }
  const answer = (message: Answer, moved: Transferable[] = []): void => self.postMessage(message, { transfer: moved });
  try {
    const result = await done(data);
    answer({ result }, [result instanceof ImageBitmap ? result : (result.buffer as ArrayBuffer)]);
  } catch (error) {
    answer({ error: wordsOf(error) });
  }
};

async function done({ request, result, box, factor }: Task): Promise<Answers[Task["result"]]> {
  const { signal } = manifest;
  const decoded = averaged(decoder.decode(request), request.box, box, factor, signal.channels);
  if (result === "values") return inRange(decoded, signal);
  if (result === "bytes") return new Uint8Array(asBytes(decoded, signal).buffer);
  const [height, width] = shapeOf(box).slice(-2) as [number, number];
  return createImageBitmap(new ImageData(asPixels(decoded, signal), width, height));
}

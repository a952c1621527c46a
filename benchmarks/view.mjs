/** What `view.py` measures in a browser: node benchmarks/view.mjs REPEATS FILE... prints one JSON object a file. */

import { basename } from "node:path";
import { launch, ready, serve } from "../viewer/tests/browser.mjs";

const PAN_SECONDS = 3;

/** Times of the first drawing and of all that is seen, in ms since the navigation began; drawings are counted. */
function watch() {
  window.times = { frames: 0 };
  const { drawImage, clearRect } = CanvasRenderingContext2D.prototype;
  CanvasRenderingContext2D.prototype.drawImage = function (...words) {
    window.times.overview ??= performance.now();
    return drawImage.apply(this, words);
  };
  CanvasRenderingContext2D.prototype.clearRect = function (...words) {
    if (this.canvas.id === "canvas") window.times.frames++;
    return clearRect.apply(this, words);
  };
  document.addEventListener("DOMContentLoaded", () => {
    new MutationObserver(() => {
      if (document.documentElement.dataset.state === "ready") window.times.picture ??= performance.now();
    }).observe(document.documentElement, { attributeFilter: ["data-state"] });
  });
}

/** Drawings a second while the mouse drags back and forth. */
async function panning(page) {
  await page.mouse.move(500, 400);
  await page.mouse.down();
  const count = () => page.evaluate(() => [performance.now(), window.times.frames]);
  const [began, before] = await count();
  for (let n = 0, now = began; now - began < 1000 * PAN_SECONDS; n++) {
    await page.mouse.move(500 + 150 * Math.sin(n / 15), 400 + 100 * Math.sin(n / 11));
    [now] = await count();
  }
  const [ended, after] = await count();
  await page.mouse.up();
  return (ended - began) / (after - before);
}

const [repeats, ...files] = process.argv.slice(2);
const browser = await launch();
for (const file of files) {
  const server = await serve([file]);
  const result = { file: basename(file), overview: [], picture: [], panning: [] };
  for (let turn = 0; turn < Number(repeats); turn++) {
    const context = await browser.newContext({ viewport: { width: 1280, height: 800 } });
    const page = await context.newPage();
    await page.addInitScript(watch);
    await page.goto(server.address(file));
    await ready(page);
    const { overview, picture } = await page.evaluate(() => window.times);
    result.overview.push(overview);
    result.picture.push(picture);
    for (let n = 0; n < 3; n++) await page.keyboard.press("+");
    await ready(page);
    result.panning.push(await panning(page));
    await context.close();
  }
  server.close();
  console.log(JSON.stringify(result));
}
await browser.close();

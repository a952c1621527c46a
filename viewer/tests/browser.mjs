/** What the tests share: a browser, servers of files, downloads. */

import { existsSync, readFileSync, statSync } from "node:fs";
import { execFileSync } from "node:child_process";
import { createServer } from "node:http";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

export const ROOT = fileURLToPath(new URL("../..", import.meta.url));
export const PAGE = join(ROOT, "lgsirens/access/view.html");
const CHROMIUM = process.env.CHROMIUM ?? ["/usr/bin/chromium", "/usr/bin/google-chrome"].find(existsSync);

export const PYTHON = process.env.PYTHON ?? join(ROOT, ".venv/bin/python");

/** Run the package's Python. */
export function python(...words) {
  return execFileSync(PYTHON, words, { cwd: ROOT, encoding: "utf8", env: { ...process.env, PYTHONPATH: ROOT } });
}

/** Debian's browser, without a window. */
export function launch() {
  if (!CHROMIUM) throw new Error("no chromium: apt-get install chromium, or name one in CHROMIUM");
  return chromium.launch({
    executablePath: CHROMIUM,
    args: ["--no-sandbox", "--autoplay-policy=no-user-gesture-required"],
  });
}

/** A static host of the page and some files; `ranges: false` always gives whole files. */
export async function serve(files, { ranges = true, change = (data) => data } = {}) {
  const asked = [];
  const server = createServer((request, response) => {
    const name = decodeURIComponent(new URL(request.url, "http://host").pathname.slice(1));
    const path = name === "view.html" ? PAGE : files.find((file) => basename(file) === name);
    asked.push({ name, range: request.headers.range });
    if (!path) return response.writeHead(404).end();
    const data = name === "view.html" ? readFileSync(path) : change(readFileSync(path), asked.length);
    const type = name.endsWith(".html") ? "text/html" : "application/octet-stream";
    const etag = `"${statSync(path).mtimeMs}-${data.length}"`;
    const [, low, high] = /bytes=(\d+)-(\d+)/.exec(request.headers.range ?? "") ?? [];
    if (!ranges || low === undefined) return response.writeHead(200, { "content-type": type, etag }).end(data);
    const last = Math.min(Number(high), data.length - 1);
    const headers = { "content-type": type, etag, "content-range": `bytes ${low}-${last}/${data.length}` };
    response.writeHead(206, headers).end(data.subarray(Number(low), last + 1));
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = `http://127.0.0.1:${server.address().port}`;
  return {
    asked,
    address: (file) => `${address}/view.html?file=${encodeURIComponent(basename(file))}`,
    close: () => server.close(),
  };
}

/** Wait until all that is seen is there. */
export async function ready(page) {
  await page.waitForSelector("html[data-state=ready], html[data-state=error]", { timeout: 30_000 });
  const message = await page.locator("#message-text").textContent();
  if (message) throw new Error(message);
}

/** Wait until something is so. (The page's policy forbids Playwright's own waiting for a function.) */
export async function until(condition) {
  for (let turn = 0; turn < 200; turn++) {
    if (await condition()) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`never: ${condition}`);
}

/** The bytes that a button saves. */
export async function saved(page, button) {
  const [download] = await Promise.all([page.waitForEvent("download"), page.click(button)]);
  return readFileSync(await download.path());
}

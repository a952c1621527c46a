/** What the tests share: a browser, servers of files, downloads. */

import { existsSync, readFileSync, statSync } from "node:fs";
import { execFileSync } from "node:child_process";
import { createServer } from "node:http";
import { basename, join } from "node:path";
import { chromium } from "playwright-core";

export const ROOT = join(import.meta.dirname, "../..");
export const PAGE = join(ROOT, "lgsirens/access/view.html");
const CHROMIUM = process.env.CHROMIUM ?? ["/usr/bin/chromium", "/usr/bin/google-chrome"].find(existsSync);

/** Run the package's Python. */
export function python(...words) {
  const program = process.env.PYTHON ?? join(ROOT, ".venv/bin/python");
  return execFileSync(program, words, { cwd: ROOT, encoding: "utf8", env: { ...process.env, PYTHONPATH: ROOT } });
}

/** Debian's browser, without a window. */
export function launch() {
  if (!CHROMIUM) throw new Error("no chromium: apt-get install chromium, or name one in CHROMIUM");
  return chromium.launch({ executablePath: CHROMIUM, args: ["--no-sandbox", "--autoplay-policy=no-user-gesture-required"] });
}

/** A static host of the page and some files; `ranges: false` always gives whole files. */
export async function serve(files, { ranges = true, change = null } = {}) {
  const asked = [];
  const server = createServer((request, response) => {
    const name = decodeURIComponent(new URL(request.url, "http://host").pathname.slice(1));
    const path = name === "view.html" ? PAGE : files.find((file) => basename(file) === name);
    asked.push({ name, range: request.headers.range });
    if (!path) return response.writeHead(404).end();
    let data = readFileSync(path);
    if (change && name !== "view.html") data = change(data, asked.length) ?? data;
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

/** The bytes that a button saves. */
export async function saved(page, button) {
  const [download] = await Promise.all([page.waitForEvent("download"), page.click(button)]);
  return readFileSync(await download.path());
}

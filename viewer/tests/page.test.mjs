/** The page in a browser: looking, selecting, playing; what it refuses; what it asks of whom. */

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, beforeEach, test } from "node:test";
import { pathToFileURL } from "node:url";
import { launch, PAGE, python, PYTHON, ready, ROOT, serve, until } from "./browser.mjs";

const folder = mkdtempSync(join(tmpdir(), "view-"));
const file = (name) => join(folder, `${name}.safetensors`);
const servers = [];
let browser, page;

before(async () => {
  python("viewer/tests/fixtures.py", "make", folder);
  browser = await launch();
});
after(async () => {
  await browser?.close();
  servers.forEach((server) => server.close());
  rmSync(folder, { recursive: true });
});
beforeEach(async () => {
  await page?.context().close();
  const context = await browser.newContext({ viewport: { width: 1000, height: 700 }, hasTouch: true });
  page = await context.newPage();
});

async function show(path, options) {
  const server = await serve([path], options);
  servers.push(server);
  await page.goto(server.address(path));
  return server;
}

/** The middle of the canvas as numbers: how far its pixels differ, and a hash of them. */
async function drawn() {
  await page.waitForTimeout(100);
  await ready(page);
  return page.evaluate(() => {
    const canvas = document.getElementById("canvas");
    const { data } = canvas
      .getContext("2d")
      .getImageData(canvas.width / 4, canvas.height / 4, canvas.width / 2, canvas.height / 2);
    let hash = 0;
    for (const byte of data) hash = (hash * 31 + byte) | 0;
    return hash;
  });
}

const refused = async () => {
  await page.waitForSelector("html[data-state=error]");
  assert.ok(await page.isVisible("#message"));
  return page.textContent("#message-text");
};

test("zooming and panning evaluate anew", async () => {
  const server = await show(file("lg-tile"));
  await ready(page);
  const [first] = server.asked.filter(({ name }) => name !== "view.html");
  assert.match(first.range, /^bytes=0-/);
  await until(async () => /^20 of 20 rows fetched/.test(await page.textContent("#map-text")));
  const whole = await drawn();
  for (let n = 0; n < 4; n++) await page.keyboard.press("+");
  const near = await drawn();
  assert.notEqual(near, whole);
  await page.keyboard.press("ArrowLeft");
  assert.notEqual(await drawn(), near);
  await page.keyboard.press("0");
  assert.equal(await drawn(), whole);
  await page.mouse.move(300, 300);
  await page.mouse.wheel(0, -900);
  assert.notEqual(await drawn(), whole);
  for (let n = 0; n < 60; n++) await page.keyboard.press("+");
  await ready(page);
  assert.match(await page.textContent("#status"), /65536 pixels a sample/);
});

test("of many partitions the overview is enough, and then the rows in view", async () => {
  const server = await show(file("many"));
  await ready(page);
  await until(async () => /^0 of 160,000 rows fetched/.test(await page.textContent("#map-text")));
  await page.mouse.move(300, 300);
  await page.mouse.wheel(0, -1600);
  const fetched = async () => Number(/^([\d,]+) of/.exec(await page.textContent("#map-text"))[1].replaceAll(",", ""));
  await until(async () => (await fetched()) > 0);
  await drawn();
  assert.ok((await fetched()) < 10_000, "more than what is seen");
  assert.ok(server.asked.length < 80, `${server.asked.length} requests`);
});

test("borders on a key", async () => {
  await show(file("lg-signal"));
  await ready(page);
  const without = await drawn();
  await page.keyboard.press("b");
  assert.notEqual(await drawn(), without);
  await page.keyboard.press("b");
  assert.equal(await drawn(), without);
});

test("a drag pans; with Shift, or in Select, it selects; Escape selects nothing", async () => {
  await show(file("lg-signal"));
  await ready(page);
  const before = await drawn();
  const drag = async () => {
    await page.mouse.move(250, 250);
    await page.mouse.down();
    await page.mouse.move(400, 350, { steps: 5 });
    await page.mouse.up();
  };
  await drag();
  assert.notEqual(await drawn(), before);
  assert.equal(await page.inputValue("#region-text"), "0:65,0:64");
  await page.keyboard.press("0");
  await page.keyboard.down("Shift");
  await drag();
  await page.keyboard.up("Shift");
  const region = await page.inputValue("#region-text");
  assert.match(region, /^\d+:\d+,\d+:\d+$/);
  assert.notEqual(region, "0:65,0:64");
  assert.match(await page.textContent("#region-facts"), /partitions\d+parameters/);
  await page.keyboard.press("Escape");
  assert.equal(await page.inputValue("#region-text"), "0:65,0:64");
  await page.click("#select");
  await drag();
  assert.equal(await page.inputValue("#region-text"), region);
  await page.fill("#region-text", "0:9,60:70");
  await page.keyboard.press("Enter");
  assert.match(await page.textContent("#region-facts"), /outside; choose one within 0:65,0:64/);
});

test("two fingers zoom", async () => {
  await show(file("lg-signal"));
  await ready(page);
  const before = await page.textContent("#status");
  const session = await page.context().newCDPSession(page);
  const touch = (type, ...points) =>
    session.send("Input.dispatchTouchEvent", { type, touchPoints: points.map(([x, y], id) => ({ x, y, id })) });
  await touch("touchStart", [300, 300], [350, 350]);
  for (let n = 0; n < 5; n++) await touch("touchMove", [300 - 20 * n, 300 - 20 * n], [350 + 20 * n, 350 + 20 * n]);
  await touch("touchEnd");
  await ready(page);
  const zoom = (text) => Number(/([\d.]+) pixels a sample/.exec(text)[1]);
  assert.ok(zoom(await page.textContent("#status")) > 3 * zoom(before));
});

test("the overview is there before any row", async () => {
  const server = await serve([file("large")]);
  servers.push(server);
  let asked = 0;
  await page.route(/\/large.safetensors$/, (route) => (asked++ ? undefined : route.continue()));
  await page.goto(server.address(file("large")));
  await until(() => asked > 1);
  const middle = () =>
    page.evaluate(() => {
      const canvas = document.getElementById("canvas");
      return [...canvas.getContext("2d").getImageData(canvas.width / 2, canvas.height / 2, 1, 1).data];
    });
  await until(async () => (await middle())[3] === 255);
  assert.equal(await page.getAttribute("html", "data-state"), "loading");
  await until(async () => /^0 of 144 rows/.test(await page.textContent("#map-text")));
});

test("a row that is damaged is named", async () => {
  const damaged = readFileSync(file("lg-signal"));
  damaged[damaged.length - 5] ^= 1;
  writeFileSync(file("damaged"), damaged);
  await show(file("damaged"));
  assert.match(await refused(), /damaged.safetensors: row 19 is damaged \(its CRC-32 differs\)/);
});

test("films and volumes have a slider, and play", async () => {
  for (const [name, word] of [
    ["film", "frame"],
    ["volume", "slice"],
  ]) {
    await show(file(name));
    await ready(page);
    const first = await drawn();
    assert.match(await page.textContent("#slider-text"), new RegExp(`^${word} 0`));
    await page.fill("#slider", "5");
    assert.notEqual(await drawn(), first);
    await page.keyboard.press("Escape");
    await page.locator("#canvas").focus();
    await page.keyboard.press(",");
    assert.match(await page.textContent("#slider-text"), new RegExp(`^${word} 4`));
    await page.keyboard.press(" ");
    await until(async () => !(await page.textContent("#slider-text")).startsWith(`${word} 4`));
    await page.keyboard.press(" ");
    assert.equal(await page.textContent("#play"), "Play");
  }
});

test("sounds are drawn, selected in time, and play", async () => {
  await show(file("sound-tile"));
  await ready(page);
  const whole = await drawn();
  for (let n = 0; n < 20; n++) await page.keyboard.press("+");
  assert.notEqual(await drawn(), whole);
  await page.keyboard.press("0");
  await page.keyboard.down("Shift");
  await page.mouse.move(200, 300);
  await page.mouse.down();
  await page.mouse.move(400, 300, { steps: 3 });
  await page.mouse.up();
  await page.keyboard.up("Shift");
  assert.match(await page.inputValue("#region-text"), /^\d+:\d+$/);
  assert.match(await page.textContent("#region-facts"), /time\d\.\d+ to \d\.\d+ s/);
  const from = await page.textContent("#slider-text");
  await page.click("#play");
  await until(async () => (await page.textContent("#slider-text")) > from);
  await until(async () => (await page.textContent("#play")) === "Play");
});

test("dark where the system is", async () => {
  const colour = () => page.evaluate(() => getComputedStyle(document.documentElement).backgroundColor);
  await page.emulateMedia({ colorScheme: "light" });
  await show(file("lc-signal"));
  const light = await colour();
  await page.emulateMedia({ colorScheme: "dark" });
  assert.notEqual(await colour(), light);
});

test("a page from a disk shows a file that is chosen, and asks nobody anything", async () => {
  const asked = [];
  page.on("request", (request) => asked.push(request.url()));
  const address = pathToFileURL(PAGE).href;
  await page.goto(address);
  assert.ok(await page.isVisible("#welcome"));
  await page.setInputFiles("#file", file("film"));
  await ready(page);
  assert.ok(await page.isHidden("#welcome"));
  assert.deepEqual(
    asked.filter((url) => !/^(blob|data):/.test(url)),
    [address],
  );
});

test("nothing but the file is asked for, and the policy forbids the rest", async () => {
  const asked = [];
  page.on("request", (request) => asked.push(request.url()));
  const server = await show(file("lg-signal"));
  await ready(page);
  const origin = new URL(server.address("x")).origin;
  const names = asked.filter((url) => !/^(blob|data):/.test(url)).map((url) => new URL(url));
  assert.ok(
    names.every((url) => url.origin === origin && /^\/(view.html|lg-signal.safetensors)$/.test(url.pathname)),
    String(names),
  );
  assert.ok(
    await page.evaluate(() =>
      fetch("https://example.com/").then(
        () => false,
        () => true,
      ),
    ),
  );
  const broken = await page.evaluate(async () => {
    const violated = [];
    addEventListener("securitypolicyviolation", (event) => violated.push(event.effectiveDirective));
    document.body.append(Object.assign(document.createElement("script"), { textContent: "window.ran = true" }));
    document.body.append(Object.assign(new Image(), { src: "https://example.com/x.png" }));
    await fetch("https://example.com/").catch(() => {});
    await new Promise((resolve) => setTimeout(resolve, 200));
    return [window.ran ?? false, ...violated.sort()];
  });
  assert.deepEqual(broken, [false, "connect-src", "img-src", "script-src-elem"]);
  await page.goto(`${origin}/view.html?file=${encodeURIComponent("https://example.com/a.safetensors")}`);
  assert.match(await refused(), /another host/);
});

test("text of a file is text", async () => {
  const name = "<img src=x onerror=alert(1)>.safetensors";
  await page.goto(pathToFileURL(PAGE).href);
  await page.setInputFiles("#file", { name, mimeType: "", buffer: readFileSync(file("mlp")) });
  await ready(page);
  assert.equal(await page.textContent("#name"), name);
  assert.equal(await page.locator("img").count(), 0);
});

test("files that are damaged or foreign are refused in one line", async () => {
  const good = readFileSync(file("lg-tile"));
  const changed = (change) => Buffer.from(change(Buffer.from(good)) ?? good);
  const text = (before, after) =>
    changed((bytes) => Buffer.from(bytes.toString("latin1").replace(before, after), "latin1"));
  const cases = [
    [Buffer.from("hello"), /too short/],
    [Buffer.from("\x01\0\0\0\0\0\0\0and so on"), /does not begin as a .safetensors file/],
    [good.subarray(0, 3000), /truncated: its header/],
    [good.subarray(0, -1), /truncated or overlong/],
    [Buffer.concat([good, Buffer.from("more")]), /truncated or overlong/],
    [text('\\"w0\\":30', '\\"w0\\":31'), /manifest's CRC-32 differs/],
    [text('"__metadata__"', '"__metadatb__"'), /no manifest/],
    [text('"lgsirens_crc32"', '"lgsirens_crc32" '), /manifest's CRC-32 differs|no JSON|canonical/],
    [
      changed((bytes) => ((bytes[8 + Number(bytes.readBigUInt64LE()) + 4] ^= 1), bytes)),
      /tensor shared.global_0_weight is damaged/,
    ],
    [readFileSync(join(ROOT, "docs/demo.png")), /not a file of lgsirens/],
  ];
  await page.goto(pathToFileURL(PAGE).href);
  for (const [buffer, words] of cases) {
    await page.setInputFiles("#file", { name: "x.safetensors", mimeType: "", buffer });
    assert.match(await refused(), words);
    await page.setInputFiles("#file", file("lg-tile"));
    await page.waitForSelector("html[data-state=ready]");
  }
});

test("a server without ranges gives the whole file; one that changes it is told", async () => {
  const server = await show(file("film"), { ranges: false });
  await ready(page);
  assert.equal(server.asked.length, 2);
  const longer = Buffer.from("more");
  await show(file("large"), { change: (data, turn) => (turn > 2 ? Buffer.concat([data, longer]) : data) });
  assert.match(await refused(), /large.safetensors: was replaced or changed/);
  await page.goto(server.address("nothing.safetensors"));
  assert.match(await refused(), /nothing.safetensors: the server answers 404/);
});

test("lgsirens view serves the page and the file", async () => {
  const words = ["-m", "lgsirens", "view", file("lg-signal"), "--no_browser"];
  const server = spawn(PYTHON, words, { cwd: ROOT, stdio: ["ignore", "pipe", "inherit"] });
  try {
    const address = await new Promise((resolve, reject) => {
      server.stdout.once("data", (data) => resolve(String(data).trim()));
      server.once("exit", (code) => reject(new Error(`ended with ${code}`)));
    });
    await page.goto(address);
    await ready(page);
    await until(async () => /^20 of 20 rows fetched/.test(await page.textContent("#map-text")));
    assert.match(address, /^http:\/\/127\.0\.0\.1:\d+\/[\w-]{20,}\/view\.html\?file=lg-signal\.safetensors$/);
    assert.equal((await page.goto(new URL("/view.html", address).href)).status(), 404);
  } finally {
    server.kill("SIGINT");
  }
  assert.equal(await new Promise((resolve) => server.once("exit", resolve)), 0);
});

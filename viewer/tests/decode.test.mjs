/** What the page decodes and crops of every mode and kind is what the command does. */

import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { launch, python, ready, saved, serve } from "./browser.mjs";

const folder = mkdtempSync(join(tmpdir(), "view-"));
let browser, page, cases, server;

before(async () => {
  python("viewer/tests/fixtures.py", "make", folder);
  cases = JSON.parse(readFileSync(join(folder, "cases.json"), "utf8"));
  server = await serve(Object.keys(cases).map((name) => join(folder, `${name}.safetensors`)));
  browser = await launch();
  page = await browser.newPage();
});
after(async () => {
  await browser?.close();
  server?.close();
  rmSync(folder, { recursive: true });
});

test("values are those of the command, and crops its bytes", async (t) => {
  for (const [name, { region, scale, slice, kind, window }] of Object.entries(cases)) {
    await t.test(name, async () => {
      await page.goto(server.address(`${name}.safetensors`));
      await ready(page);
      assert.equal(await page.inputValue("#region-text"), window);
      await page.fill("#region-text", region);
      await page.keyboard.press("Enter");
      if (kind === "audio") writeFileSync(join(folder, `${name}.wav`), await saved(page, "#wav"));
      else {
        await page.fill("#scale", scale);
        if (kind !== "image") await page.fill("#slider", String(slice));
        writeFileSync(join(folder, `${name}.png`), await saved(page, "#png"));
      }
      const bytes = /as a file([\d,.]+) bytes/.exec(await page.textContent("#region-facts"));
      const crop = await saved(page, "#crop");
      if (bytes) assert.equal(Number(bytes[1].replaceAll(",", "")), crop.length);
      assertSame(crop, readFileSync(join(folder, `${name}-expected.safetensors`)));
    });
  }
  python("viewer/tests/fixtures.py", "compare", folder);
});

/** Byte for byte, but for the time in the last entry of the history and the manifest's checksum. */
function assertSame(crop, expected) {
  assert.equal(crop.length, expected.length);
  const length = Number(expected.readBigUInt64LE());
  const header = (bytes) => {
    const text = bytes
      .subarray(0, 8 + length)
      .toString("latin1")
      .trimEnd();
    const { __metadata__: metadata } = JSON.parse(text.slice(8));
    const { date } = JSON.parse(metadata.lgsirens).history.at(-1);
    assert.match(date, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00$/);
    const at = text.lastIndexOf(date);
    const timeless = text.slice(0, at) + text.slice(at + date.length);
    return timeless.replace(`"lgsirens_crc32":"${metadata.lgsirens_crc32}"`, "");
  };
  assert.equal(header(crop), header(expected));
  assert.ok(crop.subarray(8 + length).equals(expected.subarray(8 + length)), "tensors differ");
}

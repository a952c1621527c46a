/**
 * Builds lgsirens/access/view.html: the page, its style, its program, its workers' and the kernel in one file.
 * `--check` compares instead of writing. Needs clang and lld (Debian: apt-get install clang lld).
 */

import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const HERE = fileURLToPath(new URL(".", import.meta.url));
const PAGE = join(HERE, "../lgsirens/access/view.html");

function kernel() {
  const folder = mkdtempSync(join(tmpdir(), "kernel-"));
  const file = join(folder, "kernel.wasm");
  const flags = ["--target=wasm32", "-std=gnu11", "-O3", "-msimd128", "-mbulk-memory", "-ffreestanding", "-nostdlib"];
  const includes = ["-Ikernel/include", "-I../lgsirens/nn/kernels/source"];
  const link = "-Wl,--no-entry,--allow-undefined,--strip-all,-z,stack-size=65536";
  execFileSync("clang", [...flags, ...includes, link, "-o", file, "kernel/kernel.c"], { cwd: HERE, stdio: "inherit" });
  const bytes = readFileSync(file);
  rmSync(folder, { recursive: true });
  return bytes.toString("base64");
}

async function bundle(entry, define) {
  const options = { bundle: true, minify: true, write: false, format: "iife", target: "es2022", legalComments: "none" };
  const { outputFiles } = await build({
    ...options,
    absWorkingDir: HERE,
    entryPoints: [entry],
    define,
    charset: "utf8",
  });
  return outputFiles[0].text.trim();
}

const text = (name) => readFileSync(join(HERE, name), "utf8");
const hash = (content) => `'sha256-${createHash("sha256").update(content).digest("base64")}'`;
const [, version] = /__version__ = "(.+)"/.exec(text("../lgsirens/system/program.py"));
const worker = await bundle("src/worker.ts", {});
const script = await bundle("src/page.ts", {
  WORKER_SOURCE: JSON.stringify(worker),
  KERNEL_BASE64: JSON.stringify(kernel()),
  VERSION: JSON.stringify(version),
});
if (script.includes("</script")) throw new Error("the program would end its own element");
const style = text("src/page.css");
const policy = [
  "default-src 'none'",
  `script-src ${hash(script)} 'wasm-unsafe-eval'`,
  `style-src ${hash(style)}`,
  "worker-src blob:",
  "connect-src 'self'",
  "img-src data:",
  "base-uri 'none'",
  "form-action 'none'",
].join("; ");
const parts = { POLICY: policy, STYLE: style, SCRIPT: script };
const page = text("src/page.html").replace(/%(POLICY|STYLE|SCRIPT)%/g, (_, name) => parts[name]);

if (!process.argv.includes("--check")) {
  writeFileSync(PAGE, page);
} else if (readFileSync(PAGE, "utf8") !== page) {
  const [compiler] = execFileSync("clang", ["--version"], { encoding: "utf8" }).split("\n");
  console.error(
    `lgsirens/access/view.html is not what viewer/ builds (by ${compiler}; it was built by Debian's clang 14): run npm run build`,
  );
  process.exit(1);
}

/** The page: a file is opened, a scene shows it, keys and buttons act on that. */

import { list, page } from "./elements";
import { need, wordsOf } from "./errors";
import { Evaluation } from "./evaluation";
import { bytes, factsOf, whole } from "./facts";
import { attach } from "./gestures";
import { drawMap } from "./map";
import { Plane } from "./plane";
import { Pool } from "./pool";
import { RegionForm } from "./region";
import { open } from "./representation";
import { Rows } from "./rows";
import { Sound } from "./sound";
import { BlobSource, openUrl, type Source } from "./source";
import { Transport } from "./transport";

interface Shown {
  evaluation: Evaluation;
  scene: Plane | Sound;
  region: RegionForm;
  transport: Transport;
}

const ZOOM_STEP = 1.5;
const PAN_STEP = 80; // pixels
const SOON = 200; // ms
const root = document.documentElement;
const context = page.canvas.getContext("2d")!;
let shown: Shown | null = null;
let opening = 0;
let drawn = 0; // the animation frame that is asked for
const timers = new Set<() => void>();

/** `empty`, `loading`, `ready` (all that is seen is there) or `error`. */
function state(name: "empty" | "loading" | "ready" | "error"): void {
  root.dataset["state"] = name;
}

async function show(name: string, source: () => Promise<Source>): Promise<void> {
  const turn = ++opening;
  close();
  state("loading");
  page.name.textContent = name;
  document.title = `${name} · lgsirens`;
  page.welcome.hidden = page.message.hidden = true;
  const pool = new Pool();
  try {
    const representation = await open(await source());
    await pool.begin(representation);
    if (turn !== opening) return pool.stop();
    const evaluation = new Evaluation(representation, new Rows(representation), pool);
    const scene = representation.manifest.signal.kind === "audio" ? new Sound(evaluation) : new Plane(evaluation);
    const slice = (): number => (scene instanceof Plane ? scene.slice : 0);
    const region = new RegionForm(evaluation, slice, () => {
      shown?.transport.show();
      redraw();
    });
    const transport = new Transport(evaluation, scene, () => region.box[0]!, redraw);
    scene.listen(
      () => (scene.settled ? redraw() : soon(redraw)),
      (error) => turn === opening && tell(error),
    );
    evaluation.rows.onFetch = () => soon(drawRowsMap);
    list(page.facts, factsOf(representation));
    shown = { evaluation, scene, region, transport };
    root.classList.add("opened");
    resize();
  } catch (error) {
    pool.stop();
    if (turn === opening) tell(error);
  }
}

function close(): void {
  shown?.transport.close();
  shown?.region.close();
  shown?.evaluation.pool.stop();
  shown = null;
  page.work.textContent = "";
  root.classList.remove("opened");
}

function tell(error: unknown): void {
  page.messageText.textContent = `${page.name.textContent}: ${wordsOf(error)}`;
  page.message.hidden = false;
  state("error");
}

function resize(): void {
  const ratio = devicePixelRatio || 1;
  const [width, height] = [Math.round(page.canvas.clientWidth * ratio), Math.round(page.canvas.clientHeight * ratio)];
  if (page.canvas.width !== width || page.canvas.height !== height) {
    page.canvas.width = width;
    page.canvas.height = height;
  }
  shown?.scene.view.resize(width, height);
  redraw();
}

function redraw(): void {
  drawn ||= requestAnimationFrame(draw);
}

/** What workers and servers bring is drawn some times a second: they want the processor, too. */
function soon(act: () => void): void {
  if (timers.has(act)) return;
  const done = (): void => {
    timers.delete(act);
    act();
  };
  timers.add(act);
  setTimeout(done, SOON);
}

function draw(): void {
  drawn = 0;
  context.clearRect(0, 0, page.canvas.width, page.canvas.height);
  if (!shown) return;
  const { scene, region } = shown;
  const complete = scene.draw(context);
  if (isPressed(page.borders)) scene.drawBorders(context);
  region.draw(context, scene.view);
  if (root.dataset["state"] !== "error") state(complete ? "ready" : "loading");
  const zoom = scene.view.zoom;
  page.status.textContent = `${complete ? "" : "evaluating · "}${zoom >= 1 ? `${zoom.toFixed(zoom < 10 ? 2 : 0)} pixels a sample` : `${(1 / zoom).toFixed(2)} samples a pixel`}`;
  soon(drawRowsMap);
}

function drawRowsMap(): void {
  if (!shown) return;
  const {
    scene,
    evaluation: { representation, rows },
  } = shown;
  const { source, lattice, manifest } = representation;
  const depth = scene instanceof Plane ? Math.floor(scene.slice / manifest.tile[0]!) : 0;
  if (!page.panel.hidden) drawMap(page.map, representation, rows, scene.view, depth);
  const fetched = rows.fetched.reduce((sum, flag) => sum + Number(flag === 1), 0);
  const { bytes: read, requests } = source.asked;
  page.mapText.textContent = `${whole(fetched)} of ${whole(lattice.length)} rows fetched · ${bytes(read)} of ${bytes(source.size)} in ${whole(requests)} request${requests === 1 ? "" : "s"}`;
}

const isPressed = (button: HTMLButtonElement): boolean => button.getAttribute("aria-pressed") === "true";

function press(button: HTMLButtonElement): void {
  button.setAttribute("aria-pressed", String(!isPressed(button)));
  root.classList.toggle("selecting", isPressed(page.select));
  page.panel.hidden = !isPressed(page.details);
  resize();
}

function zoom(factor: number): void {
  const view = shown?.scene.view;
  view?.zoomAt(view.width / 2, view.height / 2, factor);
  redraw();
}

function pan(dx: number, dy: number): void {
  shown?.scene.view.pan(dx * PAN_STEP, dy * PAN_STEP);
  redraw();
}

const KEYS: { [key: string]: () => void } = {
  "+": () => zoom(ZOOM_STEP),
  "=": () => zoom(ZOOM_STEP),
  "-": () => zoom(1 / ZOOM_STEP),
  "0": () => page.fit.click(),
  ArrowLeft: () => pan(1, 0),
  ArrowRight: () => pan(-1, 0),
  ArrowUp: () => pan(0, 1),
  ArrowDown: () => pan(0, -1),
  b: () => press(page.borders),
  s: () => press(page.select),
  d: () => press(page.details),
  o: () => page.file.click(),
  " ": () => shown?.transport.toggle(),
  ",": () => shown?.transport.step(-1),
  ".": () => shown?.transport.step(1),
  Escape: () => shown?.region.set(null),
  "?": () => page.help.showModal(),
};

function wire(): void {
  page.open.onclick = () => page.file.click();
  page.file.onchange = () => page.file.files?.[0] && drop(page.file.files[0]);
  page.fit.onclick = () => {
    shown?.scene.view.fit();
    redraw();
  };
  page.zoomIn.onclick = () => zoom(ZOOM_STEP);
  page.zoomOut.onclick = () => zoom(1 / ZOOM_STEP);
  for (const button of [page.borders, page.select, page.details]) button.onclick = () => press(button);
  page.showHelp.onclick = () => page.help.showModal();
  addEventListener("keydown", (event) => {
    const typing = event.target instanceof HTMLInputElement && event.key !== "Escape";
    const act = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    const onButton = event.target instanceof HTMLButtonElement && event.key === " ";
    if (typing || onButton || !act || event.ctrlKey || event.metaKey || event.altKey || page.help.open) return;
    event.preventDefault();
    act();
  });
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    const file = event.dataTransfer?.files[0];
    if (file) drop(file);
  });
  attach(page.canvas, {
    view: () => shown?.scene.view ?? null,
    changed: redraw,
    selecting: () => isPressed(page.select),
    select: (from, to) => shown?.region.drag(shown.scene.view, from, to),
  });
  new ResizeObserver(resize).observe(page.canvas);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
}

function drop(file: File): void {
  void show(file.name, async () => new BlobSource(file, file.name));
}

wire();
state("empty");
if (innerWidth < 700) press(page.details);
const asked = new URLSearchParams(location.search).get("file");
if (asked) {
  void show(asked, async () => {
    const url = new URL(asked, location.href);
    need(
      url.origin === location.origin && url.protocol.startsWith("http"),
      "is on another host than the page; put the page beside it, or download it and drop it here",
    );
    return openUrl(url);
  });
}

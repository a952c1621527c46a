/** The page's elements by their ids. */

function element<T extends HTMLElement>(id: string, kind: new () => T): T {
  const found = document.getElementById(id);
  if (!(found instanceof kind)) throw new Error(`no ${id}`);
  return found;
}

const button = (id: string): HTMLButtonElement => element(id, HTMLButtonElement);
const input = (id: string): HTMLInputElement => element(id, HTMLInputElement);
const other = (id: string): HTMLElement => element(id, HTMLElement);

export const page = {
  canvas: element("canvas", HTMLCanvasElement),
  name: other("name"),
  facts: other("facts"),
  status: other("status"),
  work: other("work"),
  message: other("message"),
  messageText: other("message-text"),
  welcome: other("welcome"),
  panel: other("panel"),
  help: element("help", HTMLDialogElement),
  map: element("map", HTMLCanvasElement),
  mapText: other("map-text"),
  region: element("region", HTMLFormElement),
  regionText: input("region-text"),
  regionFacts: other("region-facts"),
  scale: input("scale"),
  crop: button("crop"),
  png: button("png"),
  pngPart: other("png-part"),
  wav: button("wav"),
  clear: button("clear"),
  transport: other("transport"),
  play: button("play"),
  slider: input("slider"),
  sliderText: other("slider-text"),
  file: input("file"),
  open: button("open"),
  fit: button("fit"),
  zoomIn: button("zoom-in"),
  zoomOut: button("zoom-out"),
  borders: button("borders"),
  select: button("select"),
  details: button("details"),
  showHelp: button("show-help"),
};

/** Names and texts as a list; never as markup. */
export function list(into: HTMLElement, entries: [string, string][]): void {
  into.replaceChildren(
    ...entries.flatMap(([name, text]) => {
      const [term, words] = [document.createElement("dt"), document.createElement("dd")];
      term.textContent = name;
      words.textContent = text;
      return [term, words];
    }),
  );
}

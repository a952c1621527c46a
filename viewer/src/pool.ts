/** Workers that evaluate: tasks in the order in which they are given. */

import { PageError } from "./errors";
import type { Representation } from "./representation";
import type { Answer, Answers, Start, Task } from "./tasks";

declare const WORKER_SOURCE: string;
declare const KERNEL_BASE64: string;

const MOST_WORKERS = 8;
// At once, while the file is fetched.
const kernel = WebAssembly.compile(Uint8Array.from(atob(KERNEL_BASE64), (letter) => letter.charCodeAt(0)));

interface Waiting {
  task: Task;
  resolve: (result: never) => void;
  reject: (error: Error) => void;
}

export class Pool {
  readonly size = Math.max(1, Math.min(navigator.hardwareConcurrency || 2, MOST_WORKERS));
  private readonly idle: Worker[] = [];
  private readonly all: Worker[] = [];
  private readonly queue: Waiting[] = [];

  /** Workers that begin while the file is fetched. */
  constructor() {
    const url = URL.createObjectURL(new Blob([WORKER_SOURCE], { type: "text/javascript" }));
    for (let n = 0; n < this.size; n++) this.all.push(new Worker(url));
  }

  /** Tell them what they evaluate. */
  async begin({ manifest, shared, rowSize }: Representation): Promise<void> {
    const start: Start = { module: await kernel, manifest, shared, rowSize };
    for (const worker of this.all) worker.postMessage(start);
    this.idle.push(...this.all);
  }

  /** Evaluate. */
  run<Result extends Task["result"]>(task: Task & { result: Result }): Promise<Answers[Result]> {
    return new Promise((resolve, reject) => {
      this.queue.push({ task, resolve, reject });
      this.next();
    });
  }

  stop(): void {
    this.all.forEach((worker) => worker.terminate());
  }

  private next(): void {
    const worker = this.idle.pop();
    if (!worker) return;
    const waiting = this.queue.shift();
    if (!waiting) {
      this.idle.push(worker);
      return;
    }
    const { task, resolve, reject } = waiting;
    worker.onmessage = ({ data }: MessageEvent<Answer>) => {
      this.idle.push(worker);
      if ("error" in data) reject(new PageError(data.error));
      else resolve(data.result as never);
      this.next();
    };
    worker.onerror = () => reject(new PageError("the evaluation failed; load the page again"));
    worker.postMessage(task, [task.request.rows.buffer as ArrayBuffer]);
  }
}

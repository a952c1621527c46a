/** The package's compiled kernel in one worker: memory, and calls. */

import type { Model } from "./manifest";

interface Functions {
  memory: WebAssembly.Memory;
  heap(): number;
  set_model(
    mode: number,
    dims: number,
    channels: number,
    width: number,
    wide: number,
    depths: number,
    w0: number,
    shared: number,
  ): void;
  workspace(): number;
  table_size(samples: number): number;
  fill_table(samples: number, x: number, table: number, room: number): void;
  evaluate(samples: number, row: number, x: number, xLocal: number, table: number, values: number, room: number): void;
}

const MODES = { fc: 1, fc_and_add: 2 };
const TABLE_BYTES = 64 << 20;

export class Kernel {
  private readonly functions: Functions;
  private readonly shared: number;
  private readonly room: number;
  private readonly row: number;
  private readonly x: number;
  private readonly xLocal: number;
  private readonly values: number;
  private readonly firstTable: number;
  private readonly tables = new Map<string, number>();
  private end: number;

  /** Room for blocks of so many samples. */
  constructor(
    module: WebAssembly.Module,
    private readonly model: Model,
    shared: Float32Array,
    rowSize: number,
    samples: number,
  ) {
    const farthest = { sinf: Math.sin, cosf: Math.cos };
    this.functions = new WebAssembly.Instance(module, { env: farthest }).exports as unknown as Functions;
    this.end = this.functions.heap();
    this.shared = this.take(shared.length);
    this.floats(this.shared, shared.length).set(shared);
    this.row = this.take(rowSize);
    this.x = this.take(samples * model.dimensions);
    this.xLocal = this.take(samples * model.dimensions);
    this.values = this.take(samples * model.channels);
    const mode = model.mode === "lg" ? MODES[model.agg_type] : 0;
    const wide = mode ? model.global_width : 0;
    const depths = model.hidden_layers + 1;
    this.functions.set_model(
      mode,
      model.dimensions,
      model.channels,
      model.local_width,
      wide,
      depths,
      model.w0,
      mode ? this.shared : 0,
    );
    this.room = this.take(this.functions.workspace() / 4);
    this.firstTable = this.end;
  }

  /** The row that the next evaluations take. */
  setRow(row: Float32Array): void {
    this.floats(this.row, row.length).set(row);
  }

  /**
   * Values [samples, C] of the current row; they stay until the next call.
   *
   * `x` and `xLocal` write what the shared and the local networks see, [samples, D]. Blocks of one `key` see the same:
   * what the shared network contributes is evaluated once for all.
   */
  evaluate(
    samples: number,
    key: string | null,
    x: (to: Float32Array) => void,
    xLocal: ((to: Float32Array) => void) | null,
  ): Float32Array {
    const { functions, model } = this;
    const numbers = samples * model.dimensions;
    const shares = model.mode === "lg";
    let table = shares && key !== null ? this.tables.get(key) : undefined;
    if ((shares && table === undefined) || !xLocal) x(this.floats(this.x, numbers));
    if (xLocal) xLocal(this.floats(this.xLocal, numbers));
    if (shares && key !== null && table === undefined) {
      table = this.newTable(key, functions.table_size(samples));
      functions.fill_table(samples, this.x, table, this.room);
    }
    functions.evaluate(samples, this.row, this.x, xLocal ? this.xLocal : this.x, table ?? 0, this.values, this.room);
    return this.floats(this.values, samples * model.channels);
  }

  private newTable(key: string, size: number): number {
    if (this.end - this.firstTable + 4 * size > TABLE_BYTES) {
      this.tables.clear();
      this.end = this.firstTable;
    }
    const at = this.take(size);
    this.tables.set(key, at);
    return at;
  }

  private take(floats: number): number {
    const at = this.end;
    this.end = (at + 4 * floats + 63) & ~63;
    const pages = Math.ceil((this.end - this.functions.memory.buffer.byteLength) / 65536);
    if (pages > 0) this.functions.memory.grow(pages);
    return at;
  }

  private floats(at: number, length: number): Float32Array {
    return new Float32Array(this.functions.memory.buffer, at, length);
  }
}

/** Plays samples as they are evaluated. */

import type { Range } from "./box";
import type { Sound } from "./sound";

const PART = 16384; // samples scheduled at a time
const AHEAD = 1.5; // seconds
const RATES: Range = [8000, 96000]; // which an AudioContext takes

export class Player {
  private context: AudioContext | null = null;

  constructor(
    private readonly sound: Sound,
    private readonly rate: number,
    private readonly channels: number,
    private readonly peak: number,
  ) {}

  get playing(): boolean {
    return this.context !== null;
  }

  /** Play a range; `onMove` is told where it is, in samples, and null at the end. */
  async play([first, last]: Range, onMove: (position: number | null) => void): Promise<void> {
    const known = this.rate >= RATES[0] && this.rate <= RATES[1];
    const context = (this.context = new AudioContext(known ? { sampleRate: this.rate } : {}));
    const began = context.currentTime + 0.1;
    const follow = (): void => {
      if (this.context !== context) return;
      const position = first + Math.max(0, context.currentTime - began) * this.rate;
      if (position >= last) this.stop();
      onMove(position < last ? position : null);
      requestAnimationFrame(follow);
    };
    follow();
    for (let start = first; start < last && this.context === context; start += PART) {
      const stop = Math.min(start + PART, last);
      const values = await this.sound.samples([start, stop]);
      while (this.context === context && (start - first) / this.rate > context.currentTime - began + AHEAD) {
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
      if (this.context !== context) return;
      const buffer = context.createBuffer(Math.min(2, this.channels), stop - start, this.rate);
      for (let channel = 0; channel < buffer.numberOfChannels; channel++) {
        const to = buffer.getChannelData(channel);
        for (let n = 0; n < to.length; n++) to[n] = values[n * this.channels + channel]! / this.peak;
      }
      const node = new AudioBufferSourceNode(context, { buffer });
      node.connect(context.destination);
      node.start(began + (start - first) / this.rate);
    }
  }

  stop(): void {
    void this.context?.close();
    this.context = null;
  }
}

/**
 * When what has arrived is shown: with each frame while little comes, at most 20 times a second
 * in a flood, 10 times (or less) where frames are expensive, once a second where nobody looks.
 */

const FLOOD_ROWS_S = 1_000;
const FLOOD_MS = 50;
const HEAVY_FRAME_MS = 12;
const HEAVY_MS = 100;
const HEAVY_SHARE = 4;
const HIDDEN_MS = 1_000;

export interface Clock {
  now(): number;
  frame(run: () => void): void;
  wait(run: () => void, ms: number): void;
  /** Soon, after what the frame has changed is laid out. */
  after(run: () => void): void;
  hidden(): boolean;
}

const BROWSER: Clock = {
  now: () => performance.now(),
  frame: (run) => requestAnimationFrame(run),
  wait: (run, ms) => setTimeout(run, ms),
  after: (run) => {
    const channel = new MessageChannel();
    channel.port1.onmessage = () => {
      channel.port1.close();
      run();
    };
    channel.port2.postMessage(null);
  },
  hidden: () => document.hidden,
};

export class Pace {
  #show: () => void;
  #clock: Clock;
  #asked = false;
  #shown_at = -Infinity;
  #rows = 0;
  #rows_s = 0;
  #cost_ms = 0;

  constructor(show: () => void, clock: Clock = BROWSER) {
    this.#show = show;
    this.#clock = clock;
  }

  /** `rows` more are to be shown. */
  ask(rows = 1): void {
    this.#rows += rows;
    if (this.#asked) return;
    this.#asked = true;
    const wait = this.interval - (this.#clock.now() - this.#shown_at);
    // Frames do not come to a page that is hidden.
    if (this.#clock.hidden()) this.#clock.wait(this.#run, Math.max(0, wait));
    else if (wait <= 0) this.#clock.frame(this.#run);
    else this.#clock.wait(() => this.#clock.frame(this.#run), wait);
  }

  /** Milliseconds between two showings, as things are. */
  get interval(): number {
    if (this.#clock.hidden()) return HIDDEN_MS;
    // However slow the machine is, most of its time is left for scrolling.
    if (this.#cost_ms > HEAVY_FRAME_MS) return Math.max(HEAVY_MS, this.#cost_ms * HEAVY_SHARE);
    return this.#rows_s > FLOOD_ROWS_S ? FLOOD_MS : 0;
  }

  #run = (): void => {
    const start = this.#clock.now();
    const passed_s = Math.min(1, Math.max(0.001, (start - this.#shown_at) / 1_000));
    const share = Math.min(1, passed_s * 4);
    this.#rows_s += (this.#rows / passed_s - this.#rows_s) * share;
    this.#rows = 0;
    this.#asked = false;
    this.#shown_at = start;
    this.#show();
    this.#clock.after(() => {
      this.#cost_ms += (this.#clock.now() - start - this.#cost_ms) * 0.2;
    });
  };
}

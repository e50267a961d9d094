/**
 * The live connection of one log, as long as somebody wants it: it comes back by itself.
 *
 *     connecting ──► live ──► ended
 *         ▲           │
 *         └─ reconnecting (0.25 → 8 s, with jitter) / offline
 *
 * It knows nothing of entries. Where to go on is asked for at each connection, so a frame that
 * was not taken is sent again. A line that has been silent for 35 s is dead: the server sends
 * something at least every 15. Why a WebSocket was refused a browser does not say, so after a
 * failure the service is asked over HTTP whether there is anything to come back to (`probe`).
 */

import type { Frame } from './api';
import { parse } from './json';

export type ConnectionState = 'idle' | 'connecting' | 'live' | 'reconnecting' | 'offline' | 'ended';

const RETRY_FIRST_MS = 250;
const RETRY_MAX_MS = 8_000;
const SILENCE_MAX_MS = 35_000;
const STEADY_MS = 3_000;
const LOOK_MS = 5_000;
const ENDED = 1_000;

export interface SocketOptions {
  /** The address to connect to, of this moment. */
  url: () => string;
  frame: (frame: Frame) => void;
  /** After a failed connection: false where it is of no use to come back. */
  probe: () => Promise<boolean>;
}

export class LogSocket {
  state = $state.raw<ConnectionState>('connecting');
  /** When the next attempt is made, in ms of `Date.now()`. */
  retry_at = $state.raw(0);
  /** Since when there is no connection; 0 while there is one. */
  lost_at = $state.raw(0);

  #options: SocketOptions;
  #socket: WebSocket | null = null;
  #attempts = 0;
  #heard_at = 0;
  #connected_at = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #watch: ReturnType<typeof setInterval>;
  #closed = false;

  constructor(options: SocketOptions) {
    this.#options = options;
    this.#watch = setInterval(this.#look, LOOK_MS);
    addEventListener('online', this.reconnect);
    this.#connect();
  }

  /** Try again at once. */
  reconnect = (): void => {
    if (this.#closed || this.state === 'live') return;
    this.#attempts = 0;
    this.#connect();
  };

  /** Leave this connection and make another, for what it should send has changed. */
  restart(): void {
    if (!this.#closed) this.#connect();
  }

  /** The last connection that there will be is over. */
  close(state: ConnectionState = 'idle'): void {
    this.#closed = true;
    this.state = state;
    this.lost_at = 0;
    clearTimeout(this.#timer);
    clearInterval(this.#watch);
    removeEventListener('online', this.reconnect);
    this.#drop();
  }

  #connect(): void {
    clearTimeout(this.#timer);
    this.#drop();
    if (this.state !== 'live') this.state = 'connecting';
    this.#heard_at = this.#connected_at = Date.now();
    const socket = new WebSocket(this.#options.url());
    this.#socket = socket;
    socket.onmessage = (event: MessageEvent<string>) => {
      if (this.#socket === socket) this.#hear(event.data);
    };
    socket.onclose = (event) => {
      if (this.#socket === socket) this.#lose(event.code);
    };
  }

  #hear(data: string): void {
    this.#heard_at = Date.now();
    this.lost_at = 0;
    if (this.state !== 'live') this.state = 'live';
    const frame = parse(data) as Frame;
    // It brings something: then a break is no reason to be careful.
    if (frame.type === 'entries') this.#attempts = 0;
    this.#options.frame(frame);
  }

  #lose(code: number): void {
    this.#drop();
    if (code === ENDED) {
      this.close('ended');
      return;
    }
    // A connection that breaks as soon as it is made must not be made four times a second.
    if (this.#heard_at - this.#connected_at > STEADY_MS) this.#attempts = 0;
    this.lost_at ||= Date.now();
    const wait = Math.min(RETRY_MAX_MS, RETRY_FIRST_MS * 2 ** this.#attempts++) * (0.75 + Math.random() / 2);
    this.retry_at = Date.now() + wait;
    this.state = navigator.onLine ? 'reconnecting' : 'offline';
    this.#timer = setTimeout(() => void this.#retry(), wait);
  }

  async #retry(): Promise<void> {
    const useful = await this.#options.probe();
    if (this.#closed) return;
    if (useful) this.#connect();
    else this.close('idle');
  }

  #look = (): void => {
    if (this.#closed) return;
    // Being offline says nothing of a service on this machine: only silence does.
    if (this.#socket && Date.now() - this.#heard_at > SILENCE_MAX_MS) this.#lose(0);
  };

  #drop(): void {
    const socket = this.#socket;
    this.#socket = null;
    socket?.close();
  }
}

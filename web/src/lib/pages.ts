/**
 * The part of a log that the browser holds: pages of rows, the least recently seen given up.
 *
 * A log is an array on the server, and this a window of it. What is looked at and not there is
 * asked for, newest wish first; a wish that is no longer looked at is withdrawn, so dragging
 * the scrollbar over a million rows loads the few pages where it rests. Bounded by pages and
 * by characters, for one page may hold 8 MiB. The last pages are never given up: they grow.
 */

import { isAbort, type Entry } from './api';
import { PAGE_ROWS, pageOf } from './layout';

export const PAGES_MAX = 64;
const CHARACTERS_MAX = 64_000_000;
const AT_ONCE_MAX = 3;
const WISH_MS = 30;
const AGAIN_MS = 2_000;

/** Reads the entries of a page from its first row on. */
export type PageReader = (page: number, signal: AbortSignal) => Promise<Entry[]>;

interface Held {
  entries: (Entry | undefined)[];
  characters: number;
}

export class PageCache {
  /** How many wishes were withdrawn. */
  withdrawn = 0;

  #read: PageReader;
  #arrived: (page: number) => void;
  #failed: (error: unknown) => void;
  #pages = new Map<number, Held>();
  #characters = 0;
  #wishes = new Set<number>();
  #loading = new Map<number, AbortController>();
  #timer: ReturnType<typeof setTimeout> | undefined;
  #last = -1;
  #asked_at = 0;
  #closed = false;

  constructor(read: PageReader, arrived: (page: number) => void, failed: (error: unknown) => void) {
    this.#read = read;
    this.#arrived = arrived;
    this.#failed = failed;
  }

  get pages(): number {
    return this.#pages.size;
  }

  /** Which pages are here. */
  get held(): Iterable<number> {
    return this.#pages.keys();
  }

  /** The entry of `row`, or nothing where it is not here. */
  peek(row: number): Entry | undefined {
    return this.#pages.get(pageOf(row))?.entries[row % PAGE_ROWS];
  }

  /** The rows that are here of `page`. */
  rows(page: number): readonly (Entry | undefined)[] {
    return this.#pages.get(page)?.entries ?? [];
  }

  /** Rows `from` to `to` (excluded) are looked at: what of them is missing is asked for. True where nothing is. */
  look(from: number, to: number): boolean {
    this.#wishes.clear();
    for (let page = pageOf(from); page * PAGE_ROWS < to; page++) {
      const held = this.#pages.get(page);
      if (held) this.#touch(page, held);
      const start = Math.max(from - page * PAGE_ROWS, 0);
      const end = Math.min(to - page * PAGE_ROWS, PAGE_ROWS);
      if (!held || !isWhole(held.entries, start, end)) this.#wishes.add(page);
    }
    for (const [page, controller] of this.#loading) {
      if (this.#wishes.has(page)) continue;
      controller.abort();
      this.#loading.delete(page);
      this.withdrawn++;
    }
    // The first wish is granted at once; while they change, one every few frames.
    if (this.#wishes.size) this.#wish(Math.max(0, this.#asked_at + WISH_MS - Date.now()));
    return this.#wishes.size === 0;
  }

  /** Entries came for the rows from `row` on. */
  put(row: number, entries: readonly Entry[]): void {
    for (let done = 0; done < entries.length;) {
      const page = pageOf(row + done);
      const room = PAGE_ROWS - ((row + done) % PAGE_ROWS);
      this.#keep(page, (row + done) % PAGE_ROWS, entries.slice(done, done + room));
      done += room;
    }
    this.#evict();
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
    for (const controller of this.#loading.values()) controller.abort();
    this.#loading.clear();
    this.#pages.clear();
  }

  #wish(wait_ms: number): void {
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      this.#load();
    }, wait_ms);
  }

  #load(): void {
    this.#asked_at = Date.now();
    for (const page of [...this.#wishes].reverse()) {
      if (this.#loading.has(page)) continue;
      if (this.#loading.size >= AT_ONCE_MAX) return;
      void this.#loadOne(page);
    }
  }

  async #loadOne(page: number): Promise<void> {
    const controller = new AbortController();
    this.#loading.set(page, controller);
    try {
      const entries = await this.#read(page, controller.signal);
      if (controller.signal.aborted) return;
      this.#wishes.delete(page);
      this.put(page * PAGE_ROWS, entries);
      this.#arrived(page);
    } catch (error) {
      if (isAbort(error) || controller.signal.aborted || this.#closed) return;
      this.#failed(error);
      this.#wish(AGAIN_MS);
    } finally {
      if (this.#loading.get(page) === controller) this.#loading.delete(page);
      if (this.#wishes.size && !this.#closed) this.#wish(WISH_MS);
    }
  }

  #keep(page: number, at: number, entries: readonly Entry[]): void {
    const held = this.#pages.get(page) ?? { entries: [], characters: 0 };
    entries.forEach((entry, i) => {
      // What is here already came first, and is the same: a log is only ever appended to.
      if (held.entries[at + i]) return;
      held.entries[at + i] = entry;
      held.characters += entry.message.length + 100;
      this.#characters += entry.message.length + 100;
    });
    this.#last = Math.max(this.#last, page);
    this.#touch(page, held);
  }

  #touch(page: number, held: Held): void {
    this.#pages.delete(page);
    this.#pages.set(page, held);
  }

  #evict(): void {
    for (const [page, held] of this.#pages) {
      if (this.#pages.size <= PAGES_MAX && this.#characters <= CHARACTERS_MAX) return;
      if (page >= this.#last - 1) continue;
      this.#pages.delete(page);
      this.#characters -= held.characters;
    }
  }
}

function isWhole(entries: readonly (Entry | undefined)[], from: number, to: number): boolean {
  for (let at = from; at < to; at++) if (!entries[at]) return false;
  return true;
}

/**
 * Looking through the whole log on the server: for a text, or for the next entry of a level.
 *
 * A step asks for the nearest match beyond where the reader is, so it finds what was never
 * loaded, and comes with its place and the number of all matches. Past the last it goes on at
 * the first. What is asked anew makes what was asked before of no interest.
 */

import { isAbort, problemOf, type Hit, type Level } from './api';
import type { Find } from './address.svelte';
import type { Located } from './epoch';
import { withSearch, type LogFilter } from './filter';
import type { Direction } from './queries';
import type { LogSession } from './session.svelte';

export interface Found {
  ordinal: number;
  total: number;
}

export class Finder {
  /** What the last step for the text found; null before there was one, or where nothing matches. */
  found = $state.raw<Found | null>(null);
  state = $state.raw<'idle' | 'looking' | 'found' | 'none' | 'failed'>('idle');
  /** Why it failed: an expression that is none. */
  detail = $state.raw('');
  seq = $state.raw<number | null>(null);
  levels = $state.raw<Partial<Record<Level, Found>>>({});

  #session: LogSession;
  #asked = 0;

  constructor(session: LogSession) {
    this.#session = session;
  }

  reset(): void {
    this.#asked++;
    this.found = null;
    this.seq = null;
    this.state = 'idle';
    this.detail = '';
    this.levels = {};
  }

  /** The nearest match of `find` beyond `from`; where the filter looks for a text, `find` may be empty. */
  async text(find: Find, from: number, direction: Direction): Promise<Located | null> {
    const asked = ++this.#asked;
    this.state = 'looking';
    const { filter } = this.#session;
    if (this.#session.total === 0) {
      this.state = 'none';
      this.found = this.seq = null;
      return null;
    }
    const wanted: LogFilter = find.text ? withSearch(filter, find.text, find.regex) : filter;
    try {
      const hit = await this.#step(wanted, from, direction);
      if (asked !== this.#asked) return null;
      this.found = hit && { ordinal: hit.ordinal, total: hit.total };
      this.seq = hit?.entry.seq ?? null;
      this.state = hit ? 'found' : 'none';
      return hit && (await this.#session.epoch.locate(hit.entry.seq));
    } catch (error) {
      if (isAbort(error) || asked !== this.#asked) return null;
      this.state = 'failed';
      this.found = this.seq = null;
      this.detail = problemOf(error).message;
      return null;
    }
  }

  /** The nearest entry of `level` beyond `from`. */
  async level(level: Level, from: number, direction: Direction): Promise<Located | null> {
    try {
      const hit = await this.#step({ ...this.#session.filter, levels: [level] }, from, direction);
      this.levels = hit ? { [level]: { ordinal: hit.ordinal, total: hit.total } } : {};
      return hit && (await this.#session.epoch.locate(hit.entry.seq));
    } catch (error) {
      if (isAbort(error)) return null;
      throw error;
    }
  }

  async #step(filter: LogFilter, from: number, direction: Direction): Promise<Hit | null> {
    const session = this.#session;
    const beyond = await session.epoch.queries.step(filter, from, direction);
    if (beyond) return beyond;
    const end = direction === 'next' ? 0 : session.epoch.last_seq + 1;
    return end === from ? null : session.epoch.queries.step(filter, end, direction);
  }
}

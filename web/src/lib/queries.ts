/**
 * All that is asked of the server about one log under one filter.
 *
 * `signal` ends with the opening that asks, and with it what was asked and is not answered yet. The
 * rows of a page alone have a signal of their own, for they are withdrawn when nobody looks any more.
 */

import * as api from './api';
import { NO_FILTER, isEmpty, toQuery, withSearch, type LogFilter } from './filter';
import { BINS } from './timeline';

const TAIL = 200;
const RANGE_MAX = 100_000;
const RANGE_PAGE = 5_000;

export type Direction = 'next' | 'previous';

export class LogQueries {
  readonly id: string;
  readonly filter: LogFilter;
  readonly signal: AbortSignal;

  constructor(id: string, filter: LogFilter, signal: AbortSignal) {
    this.id = id;
    this.filter = filter;
    this.signal = signal;
  }

  get unfiltered(): boolean {
    return isEmpty(this.filter);
  }

  task(): Promise<api.Task> {
    return api.showTask(this.id, this.signal);
  }

  /** The end of the log, whatever the filter. */
  tail(): Promise<api.Page> {
    return api.readPage(this.id, new URLSearchParams({ tail: String(TAIL) }), this.signal);
  }

  outline(): Promise<api.Outline> {
    const query = toQuery(this.filter);
    query.set('bins', String(BINS));
    return api.readOutline(this.id, query, this.signal);
  }

  /** The counts of the whole log, whatever the filter. */
  stats(): Promise<api.Stats> {
    return api.readStats(this.id, new URLSearchParams(), this.signal);
  }

  /** The errors between two entries, whatever the filter. */
  async errors(after: number, before: number): Promise<number> {
    const query = new URLSearchParams({ level: 'ERROR', after: String(after), before: String(before) });
    return (await api.readStats(this.id, query, this.signal)).total;
  }

  /** The first `count` entries after seq `after`. */
  async rows(after: number, count: number, signal: AbortSignal): Promise<api.Entry[]> {
    const query = toQuery(this.filter);
    const entries: api.Entry[] = [];
    // A page also stops at 8 MiB: the rest is asked for until there are as many as there must be.
    while (entries.length < count) {
      query.set('after', String(entries.at(-1)?.seq ?? after));
      query.set('limit', String(count - entries.length));
      const part = await api.readPage(this.id, query, signal);
      entries.push(...part.entries);
      if (!part.more || !part.entries.length) break;
    }
    return entries;
  }

  /** All entries from seq `from` to seq `to`, at most 100,000. */
  async range(from: number, to: number): Promise<api.Entry[]> {
    const query = toQuery(this.filter);
    query.set('before', String(to + 1));
    query.set('limit', String(RANGE_PAGE));
    const entries: api.Entry[] = [];
    for (let after = from - 1; entries.length < RANGE_MAX; after = entries.at(-1)?.seq ?? after) {
      query.set('after', String(after));
      const page = await api.readPage(this.id, query, this.signal);
      entries.push(...page.entries);
      if (!page.more) break;
    }
    return entries;
  }

  /** The nearest entry beyond `from` that the filter, narrowed by `more`, lets through. */
  step(more: Partial<LogFilter>, from: number, direction: Direction): Promise<api.Hit | null> {
    return api.readNext(this.id, toQuery({ ...this.filter, ...more }), from, direction, this.signal);
  }

  /** The entry of `seq`, or the nearest that the filter lets through: the next one, if there is one. */
  async nearest(seq: number): Promise<api.Hit | null> {
    return (await this.step({}, Math.max(0, seq - 1), 'next')) ?? (await this.step({}, seq, 'previous'));
  }

  /** The next entry of `source` beyond `from` in which `text` stands, whatever the filter. */
  said(source: string, text: string, from: number): Promise<api.Hit | null> {
    const query = toQuery(withSearch(NO_FILTER, text, false));
    query.append('source', source);
    return api.readNext(this.id, query, from, 'next', this.signal);
  }

  /** Where what is newer than `after` comes live. */
  live(after: number): string {
    const query = toQuery(this.filter);
    // What has no end yet cannot be asked to end: the server refuses it of a live view.
    query.delete('until');
    query.set('after', String(after));
    const scheme = location.protocol === 'https:' ? 'wss:' : 'ws:';
    return `${scheme}//${location.host}${api.logPath(this.id, '/live', query)}`;
  }
}

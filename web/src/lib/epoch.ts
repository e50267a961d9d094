/**
 * One opening of a log under one filter: the rows that are here, and where each of them is.
 *
 * `seq` has no holes, so a log without a filter is an array on the server: row = seq - 1. With a
 * filter the outline's anchors (the seq of every 1,024th match) give the same. An entry is *taken*
 * when its frame arrives, and becomes a row when it is shown (`append`); what is not newer than the
 * last one taken is ignored. So each entry is here once, in order, however often the line breaks.
 */

import type { Entry, Outline, Page, Progress } from './api';
import type { LogFilter } from './filter';
import { Folding } from './folding';
import { LogLayout, PAGE_ROWS, pageOf } from './layout';
import { PageCache } from './pages';
import type { ProgressBoard } from './progress';
import { LogQueries } from './queries';
import { PageRows, type Measure } from './rows';
import { progressOf } from './shown';
import { LINE_PX, Viewport } from './viewport.svelte';

/** What the rest of the log's pages bring, once somebody has looked at them. */
export interface Loading {
  arrived: () => void;
  failed: (error: unknown) => void;
}

export interface Located {
  row: number;
  seq: number;
}

export class Epoch {
  readonly queries: LogQueries;
  readonly layout = new LogLayout();
  readonly view = new Viewport(this.layout);
  readonly folding: Folding;
  total = 0;
  /** The newest seq that was taken. */
  last_seq = 0;
  /** The cells of the widest line seen. */
  widest = 0;

  #controller = new AbortController();
  #board: ProgressBoard;
  #measure: Measure;
  #cache: PageCache;
  #rows = new Map<number, PageRows>();
  #anchors: number[] = [];
  #taken: Entry[] = [];
  #expanded = new Set<number>();

  /** The newest of each progress is told to `board`, which outlives this. */
  constructor(
    id: string,
    filter: LogFilter,
    board: ProgressBoard,
    measure: Measure,
    { arrived, failed }: Loading,
  ) {
    this.queries = new LogQueries(id, filter, this.#controller.signal);
    this.folding = new Folding(this.layout, this.queries);
    this.#board = board;
    this.#measure = measure;
    this.#cache = new PageCache(
      (page, signal) => this.#read(page, signal),
      (page) => {
        this.#loaded(page);
        arrived();
      },
      failed,
    );
  }

  /** Of the whole log this is the end: it goes on from there. */
  beginAt({ entries, last_seq }: Page): void {
    this.last_seq = this.total = last_seq;
    const row = (entries[0]?.seq ?? 1) - 1;
    this.#putTail(row, entries);
    this.folding.load(row, entries);
  }

  /** The server has looked through the log, which goes on from there. */
  beginAfter({ anchors, last_seq, total }: Outline): void {
    this.#anchors = [...anchors];
    this.last_seq = last_seq;
    this.total = total;
  }

  /** Go on at `seq`: of a whole log, what lies between are rows that are not here yet. */
  leap(seq: number): void {
    this.total = this.last_seq = seq;
  }

  /** Whether it was left: what it still gets is of no interest. */
  get closed(): boolean {
    return this.queries.signal.aborted;
  }

  close(): void {
    this.#controller.abort();
    this.#cache.close();
  }

  // What arrives

  /** How many wait to become rows. */
  get waiting(): number {
    return this.#taken.length;
  }

  /** Take what of `entries` is new; how many were here already, which should be none. */
  take(entries: readonly Entry[]): number {
    const until = this.queries.filter.until;
    let repeated = 0;
    for (const entry of entries) {
      if (entry.seq <= this.last_seq) {
        repeated++;
        continue;
      }
      this.last_seq = entry.seq;
      // The filter's end in time is ours to watch: see `LogQueries.live`.
      if (until && Date.parse(entry.timestamp) >= Date.parse(until)) continue;
      this.#taken.push(entry);
    }
    return repeated;
  }

  /** Make rows of what was taken: of these. */
  append(): readonly Entry[] {
    const entries = this.#taken;
    this.#taken = [];
    if (!entries.length) return entries;
    if (this.queries.unfiltered) this.#appendWhole(entries);
    else this.#appendMatches(entries);
    return entries;
  }

  #appendWhole(entries: readonly Entry[]): void {
    // A hole is not to be expected; were there one, its rows would load where they are looked at.
    let start = 0;
    for (let i = 1; i <= entries.length; i++) {
      if (entries[i]?.seq === (entries[i - 1]?.seq ?? 0) + 1) continue;
      const run = entries.slice(start, i);
      this.#putTail((run[0]?.seq ?? 1) - 1, run);
      start = i;
    }
    this.total = entries.at(-1)?.seq ?? this.total;
  }

  #appendMatches(entries: readonly Entry[]): void {
    entries.forEach((entry, i) => {
      if ((this.total + i) % PAGE_ROWS === 0) this.#anchors.push(entry.seq);
    });
    this.#putTail(this.total, entries);
    this.total += entries.length;
  }

  /** Entries at the end of the log, from `row` on. */
  #putTail(row: number, entries: readonly Entry[]): void {
    this.#cache.put(row, entries);
    this.layout.grow(Math.max(this.total, row + entries.length));
    for (let done = 0; done < entries.length;) {
      const at = (row + done) % PAGE_ROWS;
      const part = entries.slice(done, done + PAGE_ROWS - at);
      this.#measureRows(pageOf(row + done), at, part);
      done += part.length;
    }
    for (const { metadata, source } of entries) {
      const progress = metadata && progressOf(metadata);
      // By this machine's clock, as all that is live: the server's may be another.
      if (progress) this.#board.update(source, progress, Date.now());
    }
    this.folding.see(row, entries);
  }

  /** The entries that are here of those after `seq`, in a whole log. */
  *after(seq: number): Iterable<Entry> {
    for (let row = seq; row < this.total; row++) {
      const entry = this.entry(row);
      if (entry) yield entry;
    }
  }

  /** The row of entry `seq` under the filter, or of the nearest there is; null in an empty log. */
  async locate(seq: number): Promise<Located | null> {
    if (!this.total) return null;
    if (this.queries.unfiltered) {
      const row = Math.max(0, Math.min(seq, this.total) - 1);
      return { row, seq: row + 1 };
    }
    const hit = await this.queries.nearest(seq);
    return hit && { row: Math.min(hit.ordinal, this.total) - 1, seq: hit.entry.seq };
  }

  // What is looked at

  /** The entry of `row`, where it is here. */
  entry(row: number): Entry | undefined {
    return this.#cache.peek(row);
  }

  /** Rows `from` to `to` (excluded) are in view. True where all of them are here. */
  look(from: number, to: number): boolean {
    return this.#cache.look(from, to);
  }

  #read(page: number, signal: AbortSignal): Promise<Entry[]> {
    const first = page * PAGE_ROWS;
    const after = this.queries.unfiltered ? first : (this.#anchors[page] ?? 1) - 1;
    return this.queries.rows(after, Math.min(PAGE_ROWS, this.total - first), signal);
  }

  #loaded(page: number): void {
    const { top, height } = this.view;
    const place = (px: number) => this.layout.rowAt(px / LINE_PX) - page * PAGE_ROWS;
    this.#rows.get(page)?.keepOnly(place(top), place(top + height));
    this.#measurePage(page);
    this.folding.load(page * PAGE_ROWS, this.#cache.rows(page));
  }

  /** The newest numbers that the progress of `row` may show. */
  progress(row: number, progress: Progress): Progress {
    const onPage = this.#rows.get(pageOf(row))?.progress.get(progress.id) ?? progress;
    const newest = pageOf(row) >= pageOf(this.total - 1) ? this.#board.newest(progress.id) : null;
    return newest && newest.current >= onPage.current ? newest : onPage;
  }

  isExpanded(seq: number): boolean {
    return this.#expanded.has(seq);
  }

  /** Show all of the text of `row`, or only its beginning again. True where it is here. */
  expand(row: number, wanted?: boolean): boolean {
    const entry = this.entry(row);
    if (!entry) return false;
    if (wanted ?? !this.isExpanded(entry.seq)) this.#expanded.add(entry.seq);
    else this.#expanded.delete(entry.seq);
    this.view.pause();
    this.#measureRows(pageOf(row), row % PAGE_ROWS, [entry]);
    return true;
  }

  /** Messages are laid out like this from now on. */
  measure(measure: Measure): void {
    this.#measure = measure;
    this.widest = 0;
    // Of pages that are not here any more nothing is known: they are measured when they load again.
    this.layout.forget();
    for (const page of this.#cache.held) this.#measurePage(page);
  }

  #measurePage(page: number): void {
    this.#measureRows(page, 0, this.#cache.rows(page));
  }

  #measureRows(page: number, at: number, entries: readonly (Entry | undefined)[]): void {
    const rows = this.#rows.get(page) ?? new PageRows();
    const lines = rows.lines(entries, at, this.#measure, (seq) => this.isExpanded(seq));
    this.layout.set(page, lines, at);
    this.widest = Math.max(this.widest, rows.widest);
    // Nearly no page has a progress, and of the others there is nothing to remember.
    if (rows.progress.size) this.#rows.set(page, rows);
  }
}

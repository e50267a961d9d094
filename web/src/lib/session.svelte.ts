/**
 * One open log: what of it is here, what is known of the rest, and the connection that brings
 * what is new.
 *
 *     open ──► outline and last page (REST) ──► socket, after the last seq that was taken
 *       │                                          │ entries, each once and in order
 *       └── a new epoch: what an old one still gets is ignored
 *
 * `seq` has no holes, so a log without a filter is an array on the server: row = seq - 1. With a
 * filter the outline's anchors (the seq of every 1,024th match) give the same. An entry is
 * *taken* when its frame arrives, and shown with the next flush; what is not newer than the last
 * one taken is ignored. So each entry is here once, in order, however often the line breaks.
 * Where a reconnection finds itself far behind it does not have all sent that was missed: the
 * missing part is rows like all others, and loaded where it is looked at.
 */

import * as api from './api';
import { LEVELS, Problem, hasEnded, isAbort, problemOf } from './api';
import type { Entry, Frame, Hit, Progress, Task } from './api';
import { NO_FILTER, isEmpty, toQuery, withSearch, type LogFilter } from './filter';
import { Facets } from './facets';
import { Groups, type Group } from './groups';
import { LogLayout, PAGE_ROWS, pageOf } from './layout';
import { Pace } from './pace';
import { PageCache } from './pages';
import { ProgressBoard, type Running } from './progress';
import { PageRows, type Measure } from './rows';
import { groupOf, progressOf } from './shown';
import { LogSocket } from './socket.svelte';
import { BINS, Timeline } from './timeline';
import { LINE_PX, Viewport } from './viewport.svelte';

const TAIL = 200;
const BEHIND_MAX = 20_000;
const LEAP_AGAIN_MS = 1_000;
const PENDING_MAX = 20_000;
const SLOW_MS = 500;
const FACETS_MS = 2_000;
const OUTLINE_AGAIN_MS = 2_000;
const OUTLINE_AGAIN_MAX_MS = 30_000;
const RANGE_MAX = 100_000;
const RANGE_PAGE = 5_000;
const GROUP_END_TRIES = 5;

export type Phase = 'loading' | 'ready' | 'missing' | 'failed';

/** Where to begin: at the end, at an entry (`px` below the top of the view), or where it went wrong. */
export type Place = { at: 'end' } | { at: 'failure' } | { at: 'seq'; seq: number; px: number | null };

export interface Located {
  row: number;
  seq: number;
}

/** One opening of a log under one filter. */
class Epoch {
  controller = new AbortController();
  layout = new LogLayout();
  groups = new Groups();
  rows = new Map<number, PageRows>();
  anchors: number[] = [];
  pending: Entry[] = [];
  pending_rows = 0;
  total = 0;
  /** The newest seq that was taken. */
  last_seq = 0;
  expanded = new Set<number>();
  timers: ReturnType<typeof setInterval>[] = [];

  get signal(): AbortSignal {
    return this.controller.signal;
  }
}

export class LogSession {
  task = $state.raw<Task | null>(null);
  phase = $state.raw<Phase>('loading');
  problem = $state.raw<Problem | null>(null);
  /** Why lines that are looked at cannot be had now; '' where all are here or on their way. */
  trouble = $state.raw('');
  filter = $state.raw<LogFilter>(NO_FILTER);
  total = $state.raw(0);
  /** Changes with anything that a row shows. */
  version = $state.raw(0);
  /** Changes at most twice a second: counts and timeline. */
  slow = $state.raw(0);
  view = $state.raw(new Viewport(new LogLayout()));
  socket = $state.raw<LogSocket | null>(null);
  running = $state.raw<Running[]>([]);
  counts = $state.raw(new Facets().levels);
  /** Sources of the whole log with their counts, the loudest first. */
  sources = $state.raw<[string, number][]>([]);
  /** The cells of the widest line seen. */
  widest = $state.raw(0);

  timeline = new Timeline();
  /** Entries that came although they were here: there should be none. */
  repeated = 0;

  #id = '';
  #epoch = new Epoch();
  #cache: PageCache | null = null;
  #board = new ProgressBoard();
  #measure: Measure = { columns: 0, sourceInline: false };
  #facets = new Facets();
  #pace = new Pace(() => this.#flush());
  /** The server has counted up to this seq. */
  #counted = 0;
  #slow_timer: ReturnType<typeof setTimeout> | undefined;
  #changed: (task: Task) => void;

  /** `changed` hears of every change of the task's status. */
  constructor(changed: (task: Task) => void = () => undefined) {
    this.#changed = changed;
  }

  get id(): string {
    return this.#id;
  }

  get unfiltered(): boolean {
    return isEmpty(this.filter);
  }

  get layout(): LogLayout {
    return this.#epoch.layout;
  }

  /** How many entries the log has, whatever the filter leaves of them. */
  get all(): number {
    return LEVELS.reduce((sum, level) => sum + this.counts[level], 0);
  }

  get lastSeq(): number {
    return this.#epoch.last_seq;
  }

  /** When the log begins, in ms; 0 while nothing was said. */
  get start(): number {
    return Date.parse(this.task?.started_at ?? this.task?.created_at ?? '') || this.timeline.start;
  }

  // Opening and closing

  /** Show `id` under `filter`, from `place` on; where that is. What was open before is left. */
  async open(id: string, filter: LogFilter, place: Place): Promise<Located | null> {
    const other = id !== this.#id;
    this.close();
    const epoch = new Epoch();
    this.#epoch = epoch;
    this.#id = id;
    this.filter = filter;
    if (other) this.#forget();
    this.#cache = new PageCache(
      (page, signal) => this.#readRows(epoch, page, signal),
      (page) => this.#arrived(epoch, page),
      (error) => this.#pageFailed(epoch, error),
    );
    this.view = new Viewport(epoch.layout);
    this.phase = 'loading';
    this.problem = null;
    this.trouble = '';
    this.total = this.widest = 0;
    try {
      await (this.unfiltered ? this.#openWhole(epoch) : this.#openFiltered(epoch));
      return await this.#goTo(epoch, place);
    } catch (error) {
      this.#openFailed(epoch, error);
      return null;
    }
  }

  close(): void {
    this.#epoch.controller.abort();
    this.#epoch.timers.forEach(clearInterval);
    this.socket?.close();
    this.socket = null;
    this.#cache?.close();
    this.#cache = null;
  }

  #forget(): void {
    this.task = null;
    this.timeline = new Timeline();
    this.#counted = 0;
    this.#board = new ProgressBoard();
    this.running = [];
    this.#facets = new Facets();
    this.#showFacets();
  }

  async #openWhole(epoch: Epoch): Promise<void> {
    const [task, page] = await Promise.all([
      api.showTask(this.#id, epoch.signal),
      api.readPage(this.#id, new URLSearchParams({ tail: String(TAIL) }), epoch.signal),
    ]);
    if (epoch !== this.#epoch) return;
    epoch.last_seq = epoch.total = page.last_seq;
    const [first] = page.entries;
    if (first) {
      this.#putTail(epoch, first.seq - 1, page.entries);
      this.#seeGroups(epoch, first.seq - 1, page.entries);
    }
    this.#setTask(task);
    this.#begin(epoch, page.ended);
    // Asked for when the rows are there: to count a million entries takes the server from what they wait for.
    void this.#takeOutline(epoch, this.#readOutline(epoch));
  }

  /** Counts and timeline may come later, also much later: the rows neither wait for them nor go with them. */
  async #takeOutline(epoch: Epoch, asked: Promise<api.Outline>, wait = OUTLINE_AGAIN_MS): Promise<void> {
    try {
      const known = await asked;
      if (epoch === this.#epoch) this.#setOutline(epoch, known);
    } catch (error) {
      if (epoch !== this.#epoch || isAbort(error)) return;
      if (problemOf(error).status === 404) this.#openFailed(epoch, error);
      else setTimeout(() => this.#outlineAgain(epoch, wait), wait);
    }
  }

  #outlineAgain(epoch: Epoch, waited: number): void {
    if (epoch !== this.#epoch) return;
    void this.#takeOutline(epoch, this.#readOutline(epoch), Math.min(OUTLINE_AGAIN_MAX_MS, 2 * waited));
  }

  async #openFiltered(epoch: Epoch): Promise<void> {
    const facets = this.#readFacets(epoch);
    const [task, outline] = await Promise.all([
      api.showTask(this.#id, epoch.signal),
      this.#readOutline(epoch),
    ]);
    await facets;
    if (epoch !== this.#epoch) return;
    this.#setTask(task);
    epoch.anchors = [...outline.anchors];
    epoch.last_seq = outline.last_seq;
    epoch.total = outline.total;
    this.#loadTimeline(outline);
    this.#begin(epoch, hasEnded(task));
    if (!hasEnded(task)) epoch.timers.push(setInterval(() => void this.#readFacets(epoch), FACETS_MS));
  }

  #begin(epoch: Epoch, ended: boolean): void {
    epoch.layout.grow(epoch.total);
    this.phase = 'ready';
    if (!ended) this.#connect(epoch);
    else this.#board.end();
    this.#show(epoch);
    this.#showSlow();
  }

  #connect(epoch: Epoch): void {
    this.socket = new LogSocket({
      url: () => this.#liveAddress(epoch),
      frame: (frame) => {
        if (epoch === this.#epoch) this.#hear(epoch, frame);
      },
      probe: () => this.#probe(epoch),
    });
  }

  #liveAddress(epoch: Epoch): string {
    const query = toQuery(this.filter);
    // What has no end yet cannot be asked to end: the server refuses it of a live view.
    query.delete('until');
    query.set('after', String(epoch.last_seq));
    const scheme = location.protocol === 'https:' ? 'wss:' : 'ws:';
    return `${scheme}//${location.host}${api.logPath(this.#id, '/live', query)}`;
  }

  /** Whether there is still something to connect to; what is gone or was replaced is dealt with. */
  async #probe(epoch: Epoch): Promise<boolean> {
    try {
      const task = await api.showTask(this.#id, epoch.signal);
      if (epoch !== this.#epoch) return false;
      if (task.last_seq >= epoch.last_seq) return true;
      // Fewer than we have seen: it is another log under the same name.
      void this.open(this.#id, this.filter, { at: 'end' });
      return false;
    } catch (error) {
      if (isAbort(error) || epoch !== this.#epoch) return false;
      const problem = problemOf(error);
      if (problem.status !== 404) return problem.status !== 401;
      this.#openFailed(epoch, problem);
      return false;
    }
  }

  #openFailed(epoch: Epoch, error: unknown): void {
    if (epoch !== this.#epoch || isAbort(error)) return;
    const problem = problemOf(error);
    this.problem = problem;
    this.phase = problem.status === 404 ? 'missing' : 'failed';
  }

  #pageFailed(epoch: Epoch, error: unknown): void {
    if (epoch !== this.#epoch) return;
    const problem = problemOf(error);
    if (problem.status === 404) this.#openFailed(epoch, problem);
    else this.trouble = problem.message;
  }

  async #goTo(epoch: Epoch, place: Place): Promise<Located | null> {
    if (epoch !== this.#epoch || place.at === 'end') return null;
    const seq = place.at === 'seq' ? place.seq : await this.#failure();
    const found = seq === null ? null : await this.locate(seq);
    if (!found || epoch !== this.#epoch) return null;
    this.#reveal(epoch, found.row, place.at === 'seq' ? place.px : null);
    return found;
  }

  /** The first error of a task that failed. */
  async #failure(): Promise<number | null> {
    if (this.task?.status !== 'failed') return null;
    return (await this.step({ levels: ['ERROR'] }, 0, 'next'))?.entry.seq ?? null;
  }

  #reveal(epoch: Epoch, row: number, px: number | null): void {
    this.unfold(row);
    epoch.layout.grow(epoch.total);
    this.view.show(row, px ?? this.view.height / 3);
    this.version++;
  }

  // What arrives

  #hear(epoch: Epoch, frame: Frame): void {
    if (frame.type === 'entries') this.#take(epoch, frame.entries);
    else if (frame.type === 'progress') {
      this.#board.update(frame.source, frame.progress, Date.now());
      this.#pace.ask(0);
    } else if (frame.type === 'task') this.#setTask(frame.task);
    else if (frame.type === 'hello') this.#greet(epoch, frame.task, frame.last_seq);
    else {
      epoch.last_seq = Math.max(epoch.last_seq, frame.last_seq);
      if (frame.type === 'end') this.#end(epoch, frame.task);
    }
  }

  #take(epoch: Epoch, entries: readonly Entry[]): void {
    for (const entry of entries) {
      if (entry.seq <= epoch.last_seq) {
        this.repeated++;
        continue;
      }
      epoch.last_seq = entry.seq;
      // The filter's end in time is ours to watch: see `#liveAddress`.
      if (this.filter.until && Date.parse(entry.timestamp) >= Date.parse(this.filter.until)) continue;
      epoch.pending.push(entry);
    }
    if (epoch.pending.length > PENDING_MAX) this.#flush();
    else this.#pace.ask(entries.length);
  }

  #greet(epoch: Epoch, task: Task, last_seq: number): void {
    this.#setTask(task);
    this.#pace.ask(0);
    if (last_seq - epoch.last_seq > BEHIND_MAX) void this.#leap(epoch, last_seq);
  }

  /** Go on at the end: what lies between is loaded where it is looked at. */
  async #leap(epoch: Epoch, last_seq: number): Promise<void> {
    this.#flush();
    if (this.unfiltered) {
      epoch.total = epoch.last_seq = last_seq;
      this.socket?.restart();
    } else {
      this.socket?.close();
    }
    const outline = await this.#readOutline(epoch).catch(() => null);
    if (epoch !== this.#epoch) return;
    if (outline && !this.unfiltered) {
      epoch.anchors = [...outline.anchors];
      epoch.total = outline.total;
      epoch.last_seq = outline.last_seq;
    }
    if (outline) this.#setOutline(epoch, outline);
    // Without it the line is tried again from where it was, and may find itself behind again.
    if (!this.unfiltered) this.#later(epoch, outline ? 0 : LEAP_AGAIN_MS, () => this.#connect(epoch));
    this.#show(epoch);
  }

  /** Do `deed` in a while, unless something else was opened. */
  #later(epoch: Epoch, ms: number, deed: () => void): void {
    setTimeout(() => {
      if (epoch === this.#epoch && !epoch.signal.aborted) deed();
    }, ms);
  }

  #end(epoch: Epoch, task: Task): void {
    this.#flush();
    this.#setTask(task);
    this.#board.end();
    this.running = [];
    this.socket?.close('ended');
    epoch.timers.forEach(clearInterval);
    void this.#readOutline(epoch)
      .then((outline) => {
        if (epoch === this.#epoch) this.#setOutline(epoch, outline);
      })
      .catch(() => undefined);
    if (!this.unfiltered) void this.#readFacets(epoch);
  }

  /** Show what has arrived since the last time. */
  #flush(): void {
    const epoch = this.#epoch;
    const entries = epoch.pending;
    epoch.pending = [];
    if (entries.length) this.#append(epoch, entries);
    this.#show(epoch);
    if (entries.length) this.#slow_timer ??= setTimeout(() => this.#showSlow(), SLOW_MS);
  }

  #append(epoch: Epoch, entries: readonly Entry[]): void {
    const whole = this.unfiltered;
    for (const entry of entries) this.#count(entry, whole);
    if (whole) {
      // A hole is not to be expected; were there one, its rows would load where they are looked at.
      let start = 0;
      for (let i = 1; i <= entries.length; i++) {
        if (entries[i]?.seq === (entries[i - 1]?.seq ?? 0) + 1) continue;
        const run = entries.slice(start, i);
        this.#putTail(epoch, (run[0]?.seq ?? 1) - 1, run);
        start = i;
      }
      epoch.total = entries.at(-1)?.seq ?? epoch.total;
    } else {
      entries.forEach((entry, i) => {
        if ((epoch.total + i) % PAGE_ROWS === 0) epoch.anchors.push(entry.seq);
      });
      this.#putTail(epoch, epoch.total, entries);
      epoch.total += entries.length;
    }
  }

  #count(entry: Entry, whole: boolean): void {
    if (entry.seq <= this.#counted) return;
    this.timeline.add(entry);
    if (whole) this.#facets.add(entry);
  }

  /** Entries at the end of the log, from `row` on. */
  #putTail(epoch: Epoch, row: number, entries: readonly Entry[]): void {
    this.#cache?.put(row, entries);
    epoch.layout.grow(Math.max(epoch.total, row + entries.length));
    for (let done = 0; done < entries.length;) {
      const at = (row + done) % PAGE_ROWS;
      const part = entries.slice(done, done + PAGE_ROWS - at);
      this.#measureRows(epoch, pageOf(row + done), at, part);
      done += part.length;
    }
    for (const [i, entry] of entries.entries()) {
      if (!entry.metadata) continue;
      const progress = progressOf(entry.metadata);
      // By this machine's clock, as all that is live: the server's may be another.
      if (progress) this.#board.update(entry.source, progress, Date.now());
      else if (this.unfiltered) epoch.groups.see(row + i, entry);
    }
  }

  #measureRows(epoch: Epoch, page: number, at: number, entries: readonly (Entry | undefined)[]): void {
    const rows = epoch.rows.get(page) ?? new PageRows();
    const lines = rows.lines(entries, at, this.#measure, (seq) => epoch.expanded.has(seq));
    epoch.layout.set(page, lines, at);
    this.widest = Math.max(this.widest, rows.widest);
    // Nearly no page has a progress, and of the others there is nothing to remember.
    if (rows.progress.size) epoch.rows.set(page, rows);
  }

  /** A page was loaded because somebody looked at it. */
  #arrived(epoch: Epoch, page: number): void {
    if (epoch !== this.#epoch) return;
    const entries = this.#cache?.rows(page) ?? [];
    const { view } = this;
    const [from, to] = [view.top, view.top + view.height].map((px) => epoch.layout.rowAt(px / LINE_PX));
    epoch.rows.get(page)?.keepOnly((from ?? 0) - page * PAGE_ROWS, (to ?? 0) - page * PAGE_ROWS);
    this.#measureRows(epoch, page, 0, entries);
    if (this.unfiltered) this.#seeGroups(epoch, page * PAGE_ROWS, entries);
    this.#show(epoch);
  }

  #seeGroups(epoch: Epoch, first: number, entries: readonly (Entry | undefined)[]): void {
    entries.forEach((entry, i) => {
      if (entry?.metadata) epoch.groups.see(first + i, entry);
    });
    if (epoch.groups.foldQuiet(first, entries)) epoch.layout.fold(epoch.groups.spans);
  }

  async #readRows(epoch: Epoch, page: number, signal: AbortSignal): Promise<Entry[]> {
    const first = page * PAGE_ROWS;
    const count = Math.min(PAGE_ROWS, epoch.total - first);
    const query = toQuery(this.filter);
    let after = this.unfiltered ? first : (epoch.anchors[page] ?? 1) - 1;
    const entries: Entry[] = [];
    // A page also stops at 8 MiB: the rest is asked for until there are as many as there must be.
    while (entries.length < count) {
      query.set('after', String(after));
      query.set('limit', String(count - entries.length));
      const part = await api.readPage(this.#id, query, signal);
      entries.push(...part.entries);
      after = entries.at(-1)?.seq ?? after;
      if (!part.more || !part.entries.length) break;
    }
    return entries;
  }

  #readOutline(epoch: Epoch): Promise<api.Outline> {
    const query = toQuery(this.filter);
    query.set('bins', String(BINS));
    return api.readOutline(this.#id, query, epoch.signal);
  }

  #setOutline(epoch: Epoch, outline: api.Outline): void {
    this.#loadTimeline(outline);
    if (!this.unfiltered) {
      this.#showSlow();
      return;
    }
    this.#facets.load(outline);
    // Entries that were taken after the server had counted.
    for (let seq = outline.last_seq + 1; seq <= epoch.total; seq++) {
      const entry = this.#cache?.peek(seq - 1);
      if (entry) this.#count(entry, true);
    }
    this.#showSlow();
  }

  #loadTimeline(outline: api.Outline): void {
    this.timeline.load(outline.bins);
    this.#counted = outline.last_seq;
  }

  async #readFacets(epoch: Epoch): Promise<void> {
    // Counts are an extra: where they cannot be had, those of before stay.
    const stats = await api.readStats(this.#id, new URLSearchParams(), epoch.signal).catch(() => null);
    if (!stats || epoch !== this.#epoch) return;
    this.#facets.load(stats);
    this.#showSlow();
  }

  #setTask(task: Task): void {
    const before = this.task;
    this.task = task;
    // Until the log is counted, as of this moment, this is the best that is known.
    if (!before) {
      this.#facets.levels = { ...task.counts };
      this.#showFacets();
    }
    if (task.progress && !hasEnded(task)) this.#board.update(task.plugin, task.progress, Date.now());
    if (before?.status !== task.status) this.#changed(task);
  }

  // What is shown

  #show(epoch: Epoch): void {
    if (epoch !== this.#epoch) return;
    epoch.layout.grow(epoch.total);
    this.total = epoch.total;
    if (this.socket) this.running = this.#board.running;
    this.view.changed();
    this.version++;
  }

  #showSlow(): void {
    clearTimeout(this.#slow_timer);
    this.#slow_timer = undefined;
    this.#showFacets();
    this.slow++;
  }

  #showFacets(): void {
    this.counts = { ...this.#facets.levels };
    this.sources = this.#facets.sources;
  }

  /** The entry of `row`, where it is here. */
  entry(row: number): Entry | undefined {
    return this.#cache?.peek(row);
  }

  /** Rows `from` to `to` (excluded) are in view. */
  look(from: number, to: number): void {
    if (this.#cache?.look(from, to)) this.trouble = '';
  }

  group(row: number): Group | undefined {
    return this.#epoch.groups.at(row);
  }

  isExpanded(seq: number): boolean {
    return this.#epoch.expanded.has(seq);
  }

  /** The newest numbers that the progress of `row` may show. */
  progress(row: number, progress: Progress): Progress {
    const epoch = this.#epoch;
    const onPage = epoch.rows.get(pageOf(row))?.progress.get(progress.id) ?? progress;
    const newest = pageOf(row) >= pageOf(epoch.total - 1) ? this.#board.newest(progress.id) : null;
    return newest && newest.current >= onPage.current ? newest : onPage;
  }

  /** Messages are laid out like this from now on. */
  setMeasure(measure: Measure): void {
    const { columns, sourceInline } = this.#measure;
    if (columns === measure.columns && sourceInline === measure.sourceInline) return;
    this.#measure = measure;
    this.#measureAll();
  }

  #measureAll(): void {
    const epoch = this.#epoch;
    this.widest = 0;
    // Of pages that are not here any more nothing is known: they are measured when they load again.
    epoch.layout.forget();
    for (const page of this.#cache?.held ?? []) {
      this.#measureRows(epoch, page, 0, this.#cache?.rows(page) ?? []);
    }
    this.#show(epoch);
  }

  /** Rows were measured, and had other heights than was thought: pairs of row and lines. */
  mend(rows: readonly (readonly [number, number])[]): void {
    const changed = rows.filter(([row, lines]) => this.#epoch.layout.mend(row, lines));
    if (changed.length) this.#show(this.#epoch);
  }

  /** Show all of an entry's text, or only its beginning again. */
  toggleExpanded(row: number, wanted?: boolean): void {
    const entry = this.entry(row);
    if (!entry) return;
    const { expanded } = this.#epoch;
    if (wanted ?? !expanded.has(entry.seq)) expanded.add(entry.seq);
    else expanded.delete(entry.seq);
    this.view.pause();
    this.#measureRows(this.#epoch, pageOf(row), row % PAGE_ROWS, [entry]);
    this.#show(this.#epoch);
  }

  /** Fold or open the group that starts at `row`; where its end was not seen yet, it is looked for. */
  async toggleGroup(row: number): Promise<void> {
    const epoch = this.#epoch;
    const group = epoch.groups.at(row);
    if (!group) return;
    this.view.pause();
    if (group.to === null) await this.#findEnd(epoch, group);
    if (epoch !== this.#epoch || group.to === null) return;
    group.folded = !group.folded;
    epoch.layout.fold(epoch.groups.spans);
    this.#show(epoch);
    if (group.errors === null) await this.#countErrors(epoch, group, group.to + 1);
  }

  async #findEnd(epoch: Epoch, group: Group): Promise<void> {
    const query = toQuery(withSearch(NO_FILTER, group.title, false));
    query.append('source', group.source);
    let from = group.start_seq;
    for (let tries = 0; tries < GROUP_END_TRIES; tries++) {
      const hit = await api.readNext(this.#id, query, from, 'next', epoch.signal);
      if (!hit) return;
      if (groupOf(hit.entry.metadata)?.id === group.id) {
        epoch.groups.see(hit.entry.seq - 1, hit.entry);
        return;
      }
      from = hit.entry.seq;
    }
  }

  async #countErrors(epoch: Epoch, group: Group, end_seq: number): Promise<void> {
    const between = { level: 'ERROR', after: String(group.start_seq), before: String(end_seq) };
    group.errors = (await api.readStats(this.#id, new URLSearchParams(between), epoch.signal)).total;
    this.version++;
  }

  /** Open what hides `row`. */
  unfold(row: number): void {
    if (!this.#epoch.groups.openAround(row)) return;
    this.#epoch.layout.fold(this.#epoch.groups.spans);
    this.#show(this.#epoch);
  }

  // Finding

  /** The row of entry `seq` under the filter, or of the nearest there is; null in an empty log. */
  async locate(seq: number): Promise<Located | null> {
    const epoch = this.#epoch;
    if (!epoch.total) return null;
    if (this.unfiltered) {
      const row = Math.max(0, Math.min(seq, epoch.total) - 1);
      return { row, seq: row + 1 };
    }
    const query = toQuery(this.filter);
    const hit =
      (await api.readNext(this.#id, query, Math.max(0, seq - 1), 'next', epoch.signal)) ??
      (await api.readNext(this.#id, query, seq, 'previous', epoch.signal));
    return hit && { row: Math.min(hit.ordinal, epoch.total) - 1, seq: hit.entry.seq };
  }

  /** The nearest entry beyond `from` that the filter, narrowed by `more`, lets through. */
  step(more: Partial<LogFilter>, from: number, direction: 'next' | 'previous'): Promise<Hit | null> {
    const query = toQuery({ ...this.filter, ...more });
    return api.readNext(this.#id, query, from, direction, this.#epoch.signal);
  }

  /** All shown entries from seq `from` to seq `to`, at most 100,000. */
  async readRange(from: number, to: number): Promise<Entry[]> {
    const query = toQuery(this.filter);
    query.set('before', String(to + 1));
    query.set('limit', String(RANGE_PAGE));
    const entries: Entry[] = [];
    for (let after = from - 1; entries.length < RANGE_MAX; after = entries.at(-1)?.seq ?? after) {
      query.set('after', String(after));
      const page = await api.readPage(this.#id, query, this.#epoch.signal);
      entries.push(...page.entries);
      if (!page.more) break;
    }
    return entries;
  }
}

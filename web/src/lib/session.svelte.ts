/**
 * One open log: opening it, the connection that brings what is new, and what of it is shown.
 *
 *     open ──► outline and last page (REST) ──► socket, after the last seq that was taken
 *       │                                          │ entries, each once and in order
 *       └── a new epoch: what an old one still gets is ignored
 *
 * What is here of the log is its `Epoch`, what is counted of it its `Tally`. An entry is taken when
 * its frame arrives, and shown with the next flush. Where a reconnection finds itself far behind
 * it does not have all sent that was missed: the missing part is rows like all others, and loaded
 * where it is looked at.
 */

import { Problem, hasEnded, isAbort, problemOf } from './api';
import type { Entry, Frame, Task } from './api';
import { Epoch, type Located } from './epoch';
import { NO_FILTER, isEmpty, type LogFilter } from './filter';
import { Pace } from './pace';
import { ProgressBoard, type Running } from './progress';
import type { Measure } from './rows';
import { LogSocket } from './socket.svelte';
import { Tally } from './tally.svelte';
import type { Viewport } from './viewport.svelte';

const BEHIND_MAX = 20_000;
const LEAP_AGAIN_MS = 1_000;
const TAKEN_MAX = 20_000;
const FACETS_MS = 2_000;

export type Phase = 'loading' | 'ready' | 'missing' | 'failed';

/** Where to begin: at the end, at an entry (`px` below the top of the view), or where it went wrong. */
export type Place = { at: 'end' } | { at: 'failure' } | { at: 'seq'; seq: number; px: number | null };

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
  socket = $state.raw<LogSocket | null>(null);
  running = $state.raw<Running[]>([]);
  tally = $state.raw(new Tally());
  /** The cells of the widest line seen. */
  widest = $state.raw(0);
  /** Entries that came although they were here: there should be none. */
  repeated = 0;

  #board = new ProgressBoard();
  #measure: Measure = { columns: 0, sourceInline: false };
  #pace = new Pace(() => this.#flush());
  #polling: ReturnType<typeof setInterval> | undefined;
  #changed: (task: Task) => void;

  /** What of the log is here. */
  epoch = $state.raw(this.#newEpoch('', NO_FILTER));

  /** `changed` hears of every change of the task's status. */
  constructor(changed: (task: Task) => void = () => undefined) {
    this.#changed = changed;
  }

  get id(): string {
    return this.epoch.queries.id;
  }

  get unfiltered(): boolean {
    return isEmpty(this.filter);
  }

  get view(): Viewport {
    return this.epoch.view;
  }

  /** When the log begins, in ms; 0 while nothing was said. */
  get start(): number {
    return Date.parse(this.task?.started_at ?? this.task?.created_at ?? '') || this.tally.timeline.start;
  }

  // Opening and closing

  /** Show `id` under `filter`, from `place` on; where that is. What was open before is left. */
  async open(id: string, filter: LogFilter, place: Place): Promise<Located | null> {
    this.close();
    if (id !== this.id) this.#forget();
    const epoch = this.#newEpoch(id, filter);
    this.epoch = epoch;
    this.filter = filter;
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
    this.epoch.close();
    clearInterval(this.#polling);
    this.socket?.close();
    this.socket = null;
  }

  #newEpoch(id: string, filter: LogFilter): Epoch {
    const epoch: Epoch = new Epoch(id, filter, this.#board, this.#measure, {
      arrived: () => this.#show(epoch),
      failed: (error) => this.#pageFailed(epoch, error),
    });
    return epoch;
  }

  #forget(): void {
    this.task = null;
    this.tally = new Tally();
    this.#board = new ProgressBoard();
    this.running = [];
  }

  async #openWhole(epoch: Epoch): Promise<void> {
    const [task, page] = await Promise.all([epoch.queries.task(), epoch.queries.tail()]);
    if (epoch.closed) return;
    epoch.beginAt(page);
    this.#setTask(task);
    this.#begin(epoch, page.ended);
    // Asked for when the rows are there: to count a million entries takes the server from what they
    // wait for. They neither wait for the counts nor go with them.
    this.tally.load(epoch).catch((error: unknown) => this.#openFailed(epoch, error));
  }

  async #openFiltered(epoch: Epoch): Promise<void> {
    const facets = this.tally.loadFacets(epoch);
    const [task, outline] = await Promise.all([epoch.queries.task(), epoch.queries.outline()]);
    await facets;
    if (epoch.closed) return;
    this.#setTask(task);
    epoch.beginAfter(outline);
    this.tally.set(epoch, outline);
    this.#begin(epoch, hasEnded(task));
    if (!hasEnded(task)) this.#polling = setInterval(() => void this.tally.loadFacets(epoch), FACETS_MS);
  }

  #begin(epoch: Epoch, ended: boolean): void {
    epoch.layout.grow(epoch.total);
    this.phase = 'ready';
    if (!ended) this.#connect(epoch);
    else this.#board.end();
    this.#show(epoch);
    this.tally.show();
  }

  #openFailed(epoch: Epoch, error: unknown): void {
    if (epoch.closed || isAbort(error)) return;
    const problem = problemOf(error);
    this.problem = problem;
    this.phase = problem.status === 404 ? 'missing' : 'failed';
  }

  #pageFailed(epoch: Epoch, error: unknown): void {
    if (epoch.closed) return;
    const problem = problemOf(error);
    if (problem.status === 404) this.#openFailed(epoch, problem);
    else this.trouble = problem.message;
  }

  async #goTo(epoch: Epoch, place: Place): Promise<Located | null> {
    if (epoch.closed || place.at === 'end') return null;
    const seq = place.at === 'seq' ? place.seq : await this.#failure(epoch);
    const found = seq === null ? null : await epoch.locate(seq);
    if (!found || epoch.closed) return null;
    this.#reveal(epoch, found.row, place.at === 'seq' ? place.px : null);
    return found;
  }

  /** The first error of a task that failed. */
  async #failure(epoch: Epoch): Promise<number | null> {
    if (this.task?.status !== 'failed') return null;
    return (await epoch.queries.step({ levels: ['ERROR'] }, 0, 'next'))?.entry.seq ?? null;
  }

  #reveal(epoch: Epoch, row: number, px: number | null): void {
    this.unfold(row);
    epoch.layout.grow(epoch.total);
    this.view.show(row, px ?? this.view.height / 3);
    this.version++;
  }

  // What arrives

  #connect(epoch: Epoch): void {
    if (epoch.closed) return;
    this.socket = new LogSocket({
      url: () => epoch.queries.live(epoch.last_seq),
      frame: (frame) => {
        if (!epoch.closed) this.#hear(epoch, frame);
      },
      probe: () => this.#probe(epoch),
    });
  }

  /** Whether there is still something to connect to; what is gone or was replaced is dealt with. */
  async #probe(epoch: Epoch): Promise<boolean> {
    try {
      const task = await epoch.queries.task();
      if (epoch.closed) return false;
      if (task.last_seq >= epoch.last_seq) return true;
      // Fewer than we have seen: it is another log under the same name.
      void this.open(this.id, this.filter, { at: 'end' });
      return false;
    } catch (error) {
      if (isAbort(error) || epoch.closed) return false;
      const problem = problemOf(error);
      if (problem.status !== 404) return problem.status !== 401;
      this.#openFailed(epoch, problem);
      return false;
    }
  }

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
    this.repeated += epoch.take(entries);
    if (epoch.waiting > TAKEN_MAX) this.#flush();
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
      epoch.leap(last_seq);
      this.socket?.restart();
    } else {
      this.socket?.close();
    }
    const outline = await epoch.queries.outline().catch(() => null);
    if (epoch.closed) return;
    if (outline && !this.unfiltered) epoch.beginAfter(outline);
    if (outline) this.tally.set(epoch, outline);
    // Without it the line is tried again from where it was, and may find itself behind again.
    if (!this.unfiltered) setTimeout(() => this.#connect(epoch), outline ? 0 : LEAP_AGAIN_MS);
    this.#show(epoch);
  }

  #end(epoch: Epoch, task: Task): void {
    this.#flush();
    this.#setTask(task);
    this.#board.end();
    this.running = [];
    this.socket?.close('ended');
    clearInterval(this.#polling);
    this.tally.load(epoch).catch(() => undefined);
    if (!this.unfiltered) void this.tally.loadFacets(epoch);
  }

  /** Show what has arrived since the last time. */
  #flush(): void {
    const epoch = this.epoch;
    const entries = epoch.append();
    for (const entry of entries) this.tally.add(entry, this.unfiltered);
    this.#show(epoch);
    if (entries.length) this.tally.showSoon();
  }

  #setTask(task: Task): void {
    const before = this.task;
    this.task = task;
    if (!before) this.tally.guess(task.counts);
    if (task.progress && !hasEnded(task)) this.#board.update(task.plugin, task.progress, Date.now());
    if (before?.status !== task.status) this.#changed(task);
  }

  // What is shown

  #show(epoch: Epoch): void {
    if (epoch !== this.epoch) return;
    epoch.layout.grow(epoch.total);
    this.total = epoch.total;
    this.widest = epoch.widest;
    if (this.socket) this.running = this.#board.running;
    this.view.changed();
    this.version++;
  }

  /** Rows `from` to `to` (excluded) are in view. */
  look(from: number, to: number): void {
    if (this.epoch.look(from, to)) this.trouble = '';
  }

  /** Messages are laid out like this from now on. */
  setMeasure(measure: Measure): void {
    const { columns, sourceInline } = this.#measure;
    if (columns === measure.columns && sourceInline === measure.sourceInline) return;
    this.#measure = measure;
    this.epoch.measure(measure);
    this.#show(this.epoch);
  }

  /** Rows were measured, and had other heights than was thought: pairs of row and lines. */
  mend(rows: readonly (readonly [number, number])[]): void {
    const changed = rows.filter(([row, lines]) => this.epoch.layout.mend(row, lines));
    if (changed.length) this.#show(this.epoch);
  }

  /** Show all of an entry's text, or only its beginning again. */
  toggleExpanded(row: number, wanted?: boolean): void {
    if (this.epoch.expand(row, wanted)) this.#show(this.epoch);
  }

  /** Fold or open the group that starts at `row`. */
  async toggleGroup(row: number): Promise<void> {
    const epoch = this.epoch;
    const group = epoch.folding.at(row);
    if (!group) return;
    this.view.pause();
    await epoch.folding.toggle(group, () => this.#show(epoch));
  }

  /** Open what hides `row`. */
  unfold(row: number): void {
    if (this.epoch.folding.openAround(row)) this.#show(this.epoch);
  }
}

/**
 * One person reading one log: where they are, what they chose, and what each key and button does.
 *
 * The address is what they see, so it is the state, and everything here follows from it: the
 * filter, the lines selected, the text looked for. Components show this and call its methods.
 */

import { copyText, asText } from './copying';
import { Finder } from './finder.svelte';
import { hasEnded, isAbort, problemOf, type Entry, type Level, type Task } from './api';
import { NO_FILTER, isEmpty, isSame, type LogFilter } from './filter';
import type { Located } from './epoch';
import type { Deed } from './keys';
import { remember, remembered } from './memory';
import { anyOf, needleOf, type Needle } from './needle';
import { showCount } from './numbers';
import type { Direction } from './queries';
import { LogSession, type Place } from './session.svelte';
import { TIME_MODES, type TimeMode } from './times';
import { LINE_PX } from './viewport.svelte';
import type { Address, Lines } from './address.svelte';

export type Aside = 'entry' | 'task' | null;

export class LogReader {
  session: LogSession;
  finder: Finder;
  address: Address;
  wrap = $state.raw(false);
  times = $state.raw<TimeMode>('local');
  /** What is shown beside the log. */
  aside = $state.raw<Aside>(null);
  help = $state.raw(false);
  /** A few words that are shown for a moment. */
  notice = $state.raw('');
  /** The end of the selection that moves. */
  head = $state.raw<number | null>(null);
  searchAsked = $state.raw(0);

  #noticeTimer: ReturnType<typeof setTimeout> | undefined;
  #row: number | null = null;

  constructor(address: Address, narrow: boolean, changed: (task: Task) => void) {
    this.address = address;
    this.session = new LogSession(changed);
    this.finder = new Finder(this.session);
    this.wrap = remembered('wrap') === null ? narrow : remembered('wrap') === 'true';
    this.times = TIME_MODES.find((mode) => mode === remembered('times')) ?? 'local';
    address.visited = this.#visited;
    this.head = address.lines?.to ?? null;
    this.#open(address.lines ? { at: 'seq', seq: address.lines.from, px: null } : { at: 'failure' });
  }

  close(): void {
    clearTimeout(this.#noticeTimer);
    // The panel of the next task is made before this one is left.
    if (this.address.visited === this.#visited) this.address.visited = () => undefined;
    this.session.close();
  }

  reopen(): void {
    this.#open({ at: 'failure' });
  }

  get lines(): Lines | null {
    return this.address.lines;
  }

  /** The text in the search field, which either is looked for or leaves only its lines. */
  get text(): string {
    return this.only ? (this.address.filter.search.at(-1) ?? '') : this.address.find.text;
  }

  get only(): boolean {
    return this.address.filter.search.length > 0;
  }

  get regex(): boolean {
    return this.only ? this.address.filter.regex : this.address.find.regex;
  }

  /** What marks the places that were searched for. */
  get needle(): Needle | null {
    const { filter, find } = this.address;
    return anyOf([
      ...filter.search.map((text) => needleOf(text, filter.regex)),
      needleOf(find.text, find.regex),
    ]);
  }

  /** The entry of `seq`, where it is here: of a line that is selected it is. */
  entryOf(seq: number): Entry | undefined {
    const row = seq === this.head ? this.#headRow() : seq - 1;
    const entry = row === null ? undefined : this.session.epoch.entry(row);
    return entry?.seq === seq ? entry : undefined;
  }

  /** Whether new lines are to be expected at the end. */
  get live(): boolean {
    const { task } = this.session;
    return task !== null && !hasEnded(task);
  }

  // What the person chooses

  setFilter(filter: LogFilter): void {
    if (isSame(filter, this.address.filter)) return;
    this.address.setFilter(filter);
    this.#open(this.#here());
  }

  clearFilter(): void {
    this.setFilter(NO_FILTER);
  }

  /** The search text changed. Where it is only looked for, the nearest match is shown. */
  async setText(text: string, regex: boolean): Promise<void> {
    const { filter } = this.address;
    if (this.only) {
      const search = text ? [...filter.search.slice(0, -1), text] : filter.search.slice(0, -1);
      this.setFilter({ ...filter, search, regex });
      return;
    }
    this.address.setFind({ text, regex });
    this.finder.reset();
    if (!text) return;
    const { view } = this.session;
    // At the end of a log the newest match is the nearest, elsewhere the next one in view.
    if (view.following) await this.#find('previous', this.session.epoch.last_seq + 1);
    else await this.#find('next', (this.finder.seq ?? this.#topSeq()) - 1);
  }

  /** Only the lines with the text, or all lines with its places marked. */
  toggleOnly(): void {
    const { filter, find } = this.address;
    if (this.only) {
      const text = filter.search.at(-1) ?? '';
      const search = filter.search.slice(0, -1);
      this.address.setBoth({ ...filter, search }, { text, regex: filter.regex });
    } else if (find.text) {
      this.address.setBoth({ ...filter, search: [find.text], regex: find.regex }, { text: '', regex: false });
    } else return;
    this.#open(this.#here());
  }

  select(seq: number, extend: boolean): void {
    const { lines } = this.address;
    const anchor = extend && lines ? (this.head === lines.from ? lines.to : lines.from) : seq;
    this.head = seq;
    this.#row = null;
    this.address.setLines({ from: Math.min(anchor, seq), to: Math.max(anchor, seq) });
  }

  /** Go to the search field. */
  search(): void {
    this.searchAsked++;
  }

  unselect(): void {
    this.head = this.#row = null;
    this.address.setLines(null);
  }

  setWrap(wrap: boolean): void {
    this.wrap = wrap;
    remember('wrap', String(wrap));
  }

  setTimes(mode: TimeMode): void {
    this.times = mode;
    remember('times', mode);
  }

  follow(): void {
    this.session.view.follow();
    this.session.version++;
  }

  pause(): void {
    if (this.session.view.scrollable) this.session.view.pause();
  }

  // Going somewhere

  /** Show `located` and select it. */
  goTo(located: Located): void {
    const { session } = this;
    session.unfold(located.row);
    const { view } = session;
    const px = view.pixelOf(located.row);
    if (px < view.height * 0.1 || px > view.height * 0.85) view.show(located.row, view.height / 3);
    else view.pause();
    this.select(located.seq, false);
    this.#row = located.row;
    session.version++;
  }

  async goToSeq(seq: number): Promise<void> {
    const located = await this.session.epoch.locate(seq);
    if (located) this.goTo(located);
  }

  /** The first or the next match of the text, beyond the line that is selected. */
  async find(direction: Direction): Promise<void> {
    if (!this.text) {
      this.search();
      return;
    }
    await this.#find(direction, this.#from(direction));
  }

  async #find(direction: Direction, from: number): Promise<void> {
    const located = await this.finder.text(this.address.find, from, direction);
    if (!located) return;
    const entry = this.session.epoch.entry(located.row);
    // What is searched for may be in the part of a long text that is not shown.
    if (entry && entry.message.length > 500) this.session.toggleExpanded(located.row, true);
    this.goTo(located);
  }

  async level(level: Level, direction: Direction): Promise<void> {
    const { levels } = this.address.filter;
    if (levels.length && !levels.includes(level)) {
      this.say(`The filter leaves ${level} out`);
      return;
    }
    const located = await this.finder.level(level, this.#from(direction), direction);
    if (located) this.goTo(located);
    else this.say(`No ${level === 'ERROR' ? 'errors' : level === 'WARNING' ? 'warnings' : level} here`);
  }

  /** Clear the filters and keep the selected line where it is on the screen. */
  async context(): Promise<void> {
    const { session } = this;
    const seq = this.head ?? this.#topSeq();
    if (isEmpty(this.address.filter)) return;
    const row = this.#row ?? (await session.epoch.locate(seq))?.row ?? 0;
    const px = session.view.pixelOf(row);
    const find = this.only ? { text: this.text, regex: this.regex } : this.address.find;
    this.head = seq;
    this.address.lines = { from: seq, to: seq };
    this.address.setBoth(NO_FILTER, find);
    const inView = px >= 0 && px < session.view.height;
    this.#open({ at: 'seq', seq, px: inView ? px : null });
  }

  // Keys

  /** What a key asks for. */
  do(deed: Deed): void {
    const deeds: Record<Deed, () => unknown> = {
      down: () => this.#move(1, false),
      up: () => this.#move(-1, false),
      extendDown: () => this.#move(1, true),
      extendUp: () => this.#move(-1, true),
      pageDown: () => this.#turn(1),
      pageUp: () => this.#turn(-1),
      first: () => this.#first(),
      last: () => this.#last(),
      follow: () => (this.session.view.following ? this.pause() : this.follow()),
      search: () => this.search(),
      next: () => this.find('next'),
      previous: () => this.find('previous'),
      only: () => this.toggleOnly(),
      nextError: () => this.level('ERROR', 'next'),
      previousError: () => this.level('ERROR', 'previous'),
      nextWarning: () => this.level('WARNING', 'next'),
      previousWarning: () => this.level('WARNING', 'previous'),
      detail: () => this.toggleDetail(),
      context: () => this.context(),
      copy: () => this.copy(),
      fold: () => this.#fold(),
      wrap: () => this.setWrap(!this.wrap),
      time: () => this.#cycleTimes(),
      help: () => this.setHelp(true),
      escape: () => this.#escape(),
    };
    void this.attempt(deeds[deed]);
  }

  /** Do `deed`, and say what went wrong. */
  async attempt(deed: () => unknown): Promise<void> {
    try {
      await deed();
    } catch (error) {
      if (!isAbort(error)) this.say(problemOf(error).message);
    }
  }

  toggleDetail(): void {
    if (this.aside !== 'entry' && this.head === null) this.#move(1, false);
    this.toggleAside('entry');
  }

  /** Show `aside` beside the log, or close it where it is shown. */
  toggleAside(aside: Aside): void {
    this.aside = this.aside === aside ? null : aside;
  }

  closeAside = (): void => {
    this.aside = null;
  };

  setHelp(help: boolean): void {
    this.help = help;
  }

  async copy(): Promise<void> {
    const { lines } = this.address;
    if (!lines) {
      this.say('Select lines first: click on one, then on another with Shift held');
      return;
    }
    const entries = await this.session.epoch.queries.range(lines.from, lines.to);
    await this.copyText(asText(entries), showCount(entries.length, 'line'));
  }

  /** Copy `text`, and say what was copied. */
  async copyText(text: string, what: string): Promise<void> {
    this.say((await copyText(text)) ? `Copied ${what}` : 'The browser does not let this page copy');
  }

  say(words: string): void {
    clearTimeout(this.#noticeTimer);
    this.notice = words;
    this.#noticeTimer = setTimeout(() => (this.notice = ''), 3_000);
  }

  #move(step: 1 | -1, extend: boolean): void {
    const { session } = this;
    const { view, epoch } = session;
    const { layout } = epoch;
    const now = this.#headRow();
    const row = now === null ? this.#startRow(step) : layout.neighbour(now, step);
    const seq = row === null ? null : this.#seqOf(row);
    if (row === null || seq === null) return;
    view.pause();
    view.reveal(row);
    this.select(seq, extend);
    this.#row = row;
    session.version++;
  }

  #turn(step: 1 | -1): void {
    const { view } = this.session;
    if (step > 0 && view.following) return;
    view.by(step * Math.max(40, view.height - 40));
    if (step > 0 && view.top + view.height >= view.virtualHeight - 1) view.follow();
    this.session.version++;
  }

  #first(): void {
    const { view } = this.session;
    if (view.scrollable) view.show(0, 0);
    this.session.version++;
    const seq = this.#seqOf(0);
    if (seq !== null) this.select(seq, false);
  }

  #last(): void {
    this.unselect();
    this.follow();
  }

  async #fold(): Promise<void> {
    const row = this.#headRow();
    if (row === null) return;
    if (this.session.epoch.folding.at(row)) await this.session.toggleGroup(row);
    else this.session.toggleExpanded(row);
  }

  #cycleTimes(): void {
    const next = TIME_MODES[(TIME_MODES.indexOf(this.times) + 1) % TIME_MODES.length];
    if (next) this.setTimes(next);
  }

  #escape(): void {
    if (this.aside) this.aside = null;
    else if (this.lines) this.unselect();
  }

  /** The seq of `row`: without a filter it is known also where the entry is not here. */
  #seqOf(row: number): number | null {
    return this.session.epoch.entry(row)?.seq ?? (this.session.unfiltered ? row + 1 : null);
  }

  /** The row of the selection's moving end, where it is known. */
  #headRow(): number | null {
    if (this.head === null) return null;
    if (this.session.unfiltered) return this.head - 1;
    if (this.#row !== null) return this.#row;
    const { view, epoch } = this.session;
    const { layout } = epoch;
    // It was selected by hand, so it is in view.
    for (
      let row: number | null = layout.rowAt(view.top / LINE_PX);
      row !== null;
      row = layout.neighbour(row, 1)
    ) {
      if (view.pixelOf(row) > view.height) return null;
      if (this.session.epoch.entry(row)?.seq === this.head) return row;
    }
    return null;
  }

  #startRow(step: 1 | -1): number {
    const { view, epoch } = this.session;
    const { layout } = epoch;
    return layout.rowAt(
      (step > 0 && !view.following ? view.top + LINE_PX - 1 : view.top + view.height - LINE_PX - 1) / LINE_PX,
    );
  }

  #topSeq(): number {
    const { view, epoch } = this.session;
    const { layout } = epoch;
    return this.#seqOf(layout.rowAt(view.top / LINE_PX)) ?? 1;
  }

  /** From where on to search: the selected line where it is in view, else the view's edge. */
  #from(direction: Direction): number {
    const { session } = this;
    const { view } = session;
    const row = this.#headRow();
    const px = row === null ? -1 : view.pixelOf(row);
    if (this.head !== null && px >= -20 && px <= view.height) return this.head;
    if (view.following) return direction === 'next' ? 0 : session.epoch.last_seq + 1;
    return direction === 'next' ? this.#topSeq() - 1 : this.#topSeq() + 1;
  }

  /** Where to begin after the filter changed: as near as possible to where the reader is. */
  #here(): Place {
    if (this.session.view.following) return { at: 'end' };
    const seq = this.head ?? this.#topSeq();
    return { at: 'seq', seq, px: null };
  }

  #visited = (): void => {
    const { address, session } = this;
    this.head = address.lines?.to ?? null;
    this.#row = null;
    if (address.task !== session.id) return;
    if (!isSame(address.filter, session.filter)) {
      this.#open(address.lines ? { at: 'seq', seq: address.lines.from, px: null } : { at: 'end' });
    } else if (address.lines) void this.#showLines(address.lines);
  };

  async #showLines({ from }: Lines): Promise<void> {
    const { session } = this;
    const located = await session.epoch.locate(from);
    if (!located) return;
    session.unfold(located.row);
    session.view.show(located.row, session.view.height / 3);
    session.version++;
  }

  #open(place: Place): void {
    this.finder.reset();
    this.#row = null;
    const { address, session } = this;
    void session.open(address.task ?? '', address.filter, place).then((located) => {
      if (located && place.at === 'failure') {
        this.select(located.seq, false);
        this.#row = located.row;
      }
      return this.#countMatches();
    });
  }

  /** An address that was opened with a text says how many places there are. */
  async #countMatches(): Promise<void> {
    if (this.session.phase !== 'ready' || !this.text) return;
    const from =
      this.head !== null
        ? this.head - 1
        : this.session.view.following
          ? this.session.epoch.last_seq + 1
          : this.#topSeq() - 1;
    await this.finder.text(this.address.find, from, from > this.session.epoch.last_seq ? 'previous' : 'next');
  }
}

/**
 * One person reading one log: where they are, what they chose, and what each key and button does.
 *
 * The address is what they see, so it is the state, and everything here follows from it: the
 * filter, the lines selected, the text looked for. Components show this and call its methods.
 */

import { copyText, asText } from './copying';
import { Cursor } from './cursor.svelte';
import { Finder } from './finder.svelte';
import { hasEnded, isAbort, problemOf, type Level, type Task } from './api';
import { NO_FILTER, isEmpty, isSame, type LogFilter } from './filter';
import type { Deed } from './keys';
import { remember, remembered } from './memory';
import { anyOf, needleOf, type Needle } from './needle';
import { showCount } from './numbers';
import type { Direction } from './queries';
import { LogSession, type Place } from './session.svelte';
import { TIME_MODES, type TimeMode } from './times';
import type { Address } from './address.svelte';

export type Aside = 'entry' | 'task' | null;

export class LogReader {
  session: LogSession;
  finder: Finder;
  cursor: Cursor;
  address: Address;
  wrap = $state.raw(false);
  times = $state.raw<TimeMode>('local');
  /** What is shown beside the log. */
  aside = $state.raw<Aside>(null);
  help = $state.raw(false);
  /** A few words that are shown for a moment. */
  notice = $state.raw('');
  searchAsked = $state.raw(0);

  #noticeTimer: ReturnType<typeof setTimeout> | undefined;

  constructor(address: Address, narrow: boolean, changed: (task: Task) => void) {
    this.address = address;
    this.session = new LogSession(changed);
    this.finder = new Finder(this.session);
    this.cursor = new Cursor(address, this.session);
    this.wrap = remembered('wrap') === null ? narrow : remembered('wrap') === 'true';
    this.times = TIME_MODES.find((mode) => mode === remembered('times')) ?? 'local';
    address.visited = this.#visited;
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
    else await this.#find('next', (this.finder.seq ?? this.cursor.top) - 1);
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

  /** Go to the search field. */
  search(): void {
    this.searchAsked++;
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

  /** The first or the next match of the text, beyond the line that is selected. */
  async find(direction: Direction): Promise<void> {
    if (!this.text) {
      this.search();
      return;
    }
    await this.#find(direction, this.cursor.from(direction));
  }

  async #find(direction: Direction, from: number): Promise<void> {
    const located = await this.finder.text(this.address.find, from, direction);
    if (!located) return;
    const entry = this.session.epoch.entry(located.row);
    // What is searched for may be in the part of a long text that is not shown.
    if (entry && entry.message.length > 500) this.session.toggleExpanded(located.row, true);
    this.cursor.goTo(located);
  }

  async level(level: Level, direction: Direction): Promise<void> {
    const { levels } = this.address.filter;
    if (levels.length && !levels.includes(level)) {
      this.say(`The filter leaves ${level} out`);
      return;
    }
    const located = await this.finder.level(level, this.cursor.from(direction), direction);
    if (located) this.cursor.goTo(located);
    else this.say(`No ${level === 'ERROR' ? 'errors' : level === 'WARNING' ? 'warnings' : level} here`);
  }

  /** Clear the filters and keep the selected line where it is on the screen. */
  async context(): Promise<void> {
    const { session } = this;
    if (isEmpty(this.address.filter)) return;
    const { seq } = this.cursor;
    const row = this.cursor.row ?? (await session.epoch.locate(seq))?.row ?? 0;
    const px = session.view.pixelOf(row);
    const find = this.only ? { text: this.text, regex: this.regex } : this.address.find;
    this.cursor.select(seq);
    this.address.setBoth(NO_FILTER, find);
    const inView = px >= 0 && px < session.view.height;
    this.#open({ at: 'seq', seq, px: inView ? px : null });
  }

  // Keys

  /** What a key asks for. */
  do(deed: Deed): void {
    const deeds: Record<Deed, () => unknown> = {
      down: () => this.cursor.move(1, false),
      up: () => this.cursor.move(-1, false),
      extendDown: () => this.cursor.move(1, true),
      extendUp: () => this.cursor.move(-1, true),
      pageDown: () => this.cursor.turn(1),
      pageUp: () => this.cursor.turn(-1),
      first: () => this.cursor.toFirst(),
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
    if (this.aside !== 'entry' && this.cursor.head === null) this.cursor.move(1, false);
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

  #last(): void {
    this.cursor.unselect();
    this.follow();
  }

  async #fold(): Promise<void> {
    const { row } = this.cursor;
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
    else if (this.cursor.lines) this.cursor.unselect();
  }

  /** Where to begin after the filter changed: as near as possible to where the reader is. */
  #here(): Place {
    if (this.session.view.following) return { at: 'end' };
    return { at: 'seq', seq: this.cursor.seq, px: null };
  }

  #visited = (): void => {
    const { address, session } = this;
    this.cursor.reread();
    if (address.task !== session.id) return;
    if (!isSame(address.filter, session.filter)) {
      this.#open(address.lines ? { at: 'seq', seq: address.lines.from, px: null } : { at: 'end' });
    } else if (address.lines) void this.cursor.show(address.lines.from);
  };

  #open(place: Place): void {
    this.finder.reset();
    this.cursor.forgetRow();
    const { address, session } = this;
    void session.open(address.task ?? '', address.filter, place).then((located) => {
      if (located && place.at === 'failure') this.cursor.select(located.seq, false, located.row);
      return this.#countMatches();
    });
  }

  /** An address that was opened with a text says how many places there are. */
  async #countMatches(): Promise<void> {
    if (this.session.phase !== 'ready' || !this.text) return;
    const { cursor, session } = this;
    const { last_seq } = session.epoch;
    const atEnd = cursor.head === null && session.view.following;
    const from = atEnd ? last_seq + 1 : cursor.seq - 1;
    await this.finder.text(this.address.find, from, from > last_seq ? 'previous' : 'next');
  }
}

/**
 * The address bar as state: which task, what of it, and which lines.
 *
 *     /tasks/ID?min_level=WARNING&source=git&find=timeout#L120-L140
 *
 * Whoever opens a copied address sees the same. What a person chooses (a task, a filter) is a
 * step that Back undoes; where they look (the lines, the text looked for) is not.
 */

import { NO_FILTER, isSame, parseFilter, toQuery, type LogFilter } from './filter';

export interface Lines {
  from: number;
  to: number;
}

export interface Find {
  text: string;
  regex: boolean;
}

const NOTHING: Find = { text: '', regex: false };
// Browsers refuse an address that changes too often.
const WRITE_MS = 200;

export class Address {
  task = $state.raw<string | null>(null);
  filter = $state.raw<LogFilter>(NO_FILTER);
  find = $state.raw<Find>(NOTHING);
  lines = $state.raw<Lines | null>(null);
  /** Called where Back, Forward or a link changed the address. */
  visited: () => void = () => undefined;

  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor() {
    this.#read();
    addEventListener('popstate', this.#visit);
  }

  close(): void {
    clearTimeout(this.#timer);
    removeEventListener('popstate', this.#visit);
  }

  /** Go to a task, or to where none is shown. */
  go(task: string | null): void {
    this.task = task;
    this.filter = NO_FILTER;
    this.find = NOTHING;
    this.lines = null;
    this.#push();
  }

  setFilter(filter: LogFilter, lines: Lines | null = this.lines): void {
    if (isSame(filter, this.filter)) return;
    this.filter = filter;
    this.lines = lines;
    this.#push();
  }

  setFind(find: Find): void {
    this.find = find;
    this.#replaceSoon();
  }

  /** Look for `find` and filter by `filter` in one step. */
  setBoth(filter: LogFilter, find: Find): void {
    this.filter = filter;
    this.find = find;
    this.#push();
  }

  setLines(lines: Lines | null): void {
    this.lines = lines;
    this.#replaceSoon();
  }

  /** The address of now, as a path. */
  get path(): string {
    return pathOf(this.task, this.filter, this.find, this.lines);
  }

  #visit = (): void => {
    clearTimeout(this.#timer);
    this.#read();
    this.visited();
  };

  #read(): void {
    const query = new URLSearchParams(location.search);
    this.task = /^\/tasks\/([^/]+)\/?$/.exec(location.pathname)?.[1] ?? null;
    this.filter = parseFilter(query);
    this.find = { text: query.get('find') ?? '', regex: query.get('find_regex') === 'true' };
    this.lines = parseLines(location.hash);
  }

  #push(): void {
    clearTimeout(this.#timer);
    history.pushState(null, '', this.path);
  }

  #replaceSoon(): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => history.replaceState(null, '', this.path), WRITE_MS);
  }
}

/** The lines that a fragment names: `#L120` or `#L120-L140`. */
export function parseLines(hash: string): Lines | null {
  const match = /^#L([1-9]\d{0,15})(?:-L?([1-9]\d{0,15}))?$/.exec(hash);
  if (!match) return null;
  const [from, to] = [Number(match[1]), Number(match[2] ?? match[1])];
  return { from: Math.min(from, to), to: Math.max(from, to) };
}

export function fragmentOf(lines: Lines | null): string {
  if (!lines) return '';
  return lines.from === lines.to ? `#L${lines.from}` : `#L${lines.from}-L${lines.to}`;
}

export function pathOf(task: string | null, filter: LogFilter, find: Find, lines: Lines | null): string {
  if (task === null) return '/';
  const query = toQuery(filter);
  if (find.text) query.set('find', find.text);
  if (find.text && find.regex) query.set('find_regex', 'true');
  // ':' and ',' mean nothing in a query, and are easier to read.
  const asked = query.toString().replaceAll('%2C', ',').replaceAll('%3A', ':');
  return `/tasks/${task}${asked && `?${asked}`}${fragmentOf(lines)}`;
}

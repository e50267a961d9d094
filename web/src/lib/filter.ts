/**
 * What of a log is shown: the filter as the address, the server and the page's chips know it.
 *
 * One grammar for all three. What the page does not know (a parameter of tomorrow) is left out
 * rather than sent on, for the server refuses unknown parameters.
 */

import { LEVELS, type Level } from './api';

export interface LogFilter {
  /** None means any. */
  levels: readonly Level[];
  sources: readonly string[];
  search: readonly string[];
  exclude: readonly string[];
  regex: boolean;
  meta: readonly (readonly [string, string])[];
  since: string | null;
  until: string | null;
}

export const NO_FILTER: LogFilter = {
  levels: [],
  sources: [],
  search: [],
  exclude: [],
  regex: false,
  meta: [],
  since: null,
  until: null,
};

/** Whether `filter` leaves every entry in. */
export function isEmpty(filter: LogFilter): boolean {
  return toQuery(filter).size === 0;
}

export function isSame(one: LogFilter, other: LogFilter): boolean {
  return toQuery(one).toString() === toQuery(other).toString();
}

/** The filter that an address or a link says; values that mean nothing are left out. */
export function parseFilter(query: URLSearchParams): LogFilter {
  const listed = (name: string) =>
    query
      .getAll(name)
      .flatMap((text) => text.split(','))
      .map((text) => text.trim())
      .filter(Boolean);
  const lowest = LEVELS.indexOf((query.get('min_level') ?? '').toUpperCase() as Level);
  const named = listed('level').map((text) => text.toUpperCase());
  const levels =
    named.length || lowest > 0
      ? LEVELS.filter((level, rank) => rank >= lowest && (!named.length || named.includes(level)))
      : [];
  return {
    levels: levels.length === LEVELS.length ? [] : levels,
    // As they are: a source's own name may have a comma.
    sources: [...new Set(query.getAll('source').filter(Boolean))],
    search: query.getAll('search').filter(Boolean),
    exclude: query.getAll('exclude').filter(Boolean),
    regex: query.get('regex') === 'true',
    meta: [...query]
      .filter(([name]) => name.startsWith('meta.'))
      .map(([name, value]) => [name.slice(5), value]),
    since: query.get('since'),
    until: query.get('until'),
  };
}

/** The query string of `filter`, in one order, so that equal filters have equal addresses. */
export function toQuery(filter: LogFilter): URLSearchParams {
  const query = new URLSearchParams();
  const levels = LEVELS.filter((level) => filter.levels.includes(level));
  const lowest = levels[0];
  if (levels.length > 1 && lowest && levels.length === LEVELS.length - LEVELS.indexOf(lowest)) {
    query.set('min_level', lowest);
  } else if (levels.length) query.set('level', levels.join(','));
  for (const source of filter.sources) query.append('source', source);
  for (const needle of filter.search) query.append('search', needle);
  for (const needle of filter.exclude) query.append('exclude', needle);
  // Without a text to look for, the flag asks nothing.
  if (filter.regex && (filter.search.length || filter.exclude.length)) query.set('regex', 'true');
  for (const [name, value] of filter.meta) query.append(`meta.${name}`, value);
  if (filter.since) query.set('since', filter.since);
  if (filter.until) query.set('until', filter.until);
  return query;
}

/** `list` with `item` where it was not, and without it where it was. */
export function toggled<T>(list: readonly T[], item: T): T[] {
  return list.includes(item) ? list.filter((other) => other !== item) : [...list, item];
}

/**
 * `filter` with one more text to be found. One flag says how all texts are read, so where the
 * two differ, those that are plain are quoted.
 */
export function withSearch(filter: LogFilter, text: string, regex: boolean): LogFilter {
  if (regex === filter.regex || !(filter.search.length || filter.exclude.length)) {
    return { ...filter, search: [...filter.search, text], regex };
  }
  if (filter.regex) return { ...filter, search: [...filter.search, quoted(text)] };
  return {
    ...filter,
    search: [...filter.search.map(quoted), text],
    exclude: filter.exclude.map(quoted),
    regex: true,
  };
}

/** `filter` with one more plain text that must not be there. */
export function withoutText(filter: LogFilter, text: string): LogFilter {
  return { ...filter, exclude: [...filter.exclude, filter.regex ? quoted(text) : text] };
}

function quoted(text: string): string {
  return text.replace(/[\\.+*?()|[\]{}^$]/g, '\\$&');
}

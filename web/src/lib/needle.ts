/**
 * A search text as something that finds its places in a message, to be marked there.
 *
 * The server decides what matches; this only shows where. Its expressions are RE2's and linear.
 * The browser's may take for ever, and a link from somebody else may carry one that does: those
 * that could are not run here, and their matches are marked by the row alone.
 */

import { findFolded, foldCase } from './fold';

export type Needle = (text: string) => [number, number][];

const MARKS_MAX = 200;
const REGEX_CHARACTERS_MAX = 1_000;
const REPEATS_MAX = 2;

/** A finder for `search`; null where there is nothing to mark, or marking it is not safe. */
export function needleOf(search: string, regex: boolean): Needle | null {
  if (!search) return null;
  if (!regex) {
    const folded = foldCase(search);
    return (text) => findFolded(text, folded).slice(0, MARKS_MAX);
  }
  const pattern = compiled(search);
  return pattern && ((text) => matches(pattern, text.slice(0, REGEX_CHARACTERS_MAX)));
}

/** All of several needles as one. */
export function anyOf(needles: readonly (Needle | null)[]): Needle | null {
  const present = needles.filter((needle) => needle !== null);
  if (present.length < 2) return present[0] ?? null;
  return (text) => merged(present.flatMap((needle) => needle(text)));
}

function merged(places: [number, number][]): [number, number][] {
  const result: [number, number][] = [];
  for (const [from, to] of places.sort((a, b) => a[0] - b[0])) {
    const last = result.at(-1);
    if (last && from <= last[1]) last[1] = Math.max(last[1], to);
    else result.push([from, to]);
  }
  return result;
}

function compiled(search: string): RegExp | null {
  if (!isLinear(search)) return null;
  const flags = /^\(\?([a-z]*)(?:-([a-z]+))?\)/.exec(search);
  const source = flags ? search.slice(flags[0].length) : search;
  const sensitive = flags?.[2]?.includes('i') ?? false;
  try {
    return new RegExp(source, `gu${sensitive ? '' : 'i'}${flags?.[1]?.includes('s') ? 's' : ''}`);
  } catch {
    return null; // RE2 knows forms that JavaScript does not
  }
}

function matches(pattern: RegExp, text: string): [number, number][] {
  const found: [number, number][] = [];
  for (const match of text.matchAll(pattern)) {
    if (match[0]) found.push([match.index, match.index + match[0].length]);
    if (found.length === MARKS_MAX) break;
  }
  return found;
}

/** Whether backtracking stays harmless: no repeated group, no back reference, few unbounded repeats. */
export function isLinear(search: string): boolean {
  const bare = search.replace(/\\[^1-9k]/g, 'x').replace(/\[(?:\\.|[^\]\\])*\]/g, 'x');
  if (/\\[1-9k]/.test(bare) || /\)[*+{]/.test(bare)) return false;
  return (bare.match(/[*+]|\{\d*,\}|\{\d{3,}|\{\d+,\d{3,}/g) ?? []).length <= REPEATS_MAX;
}

/**
 * The groups of a log: which rows they are, and which of them are folded.
 *
 * Groups are known as far as the log was looked at: a start makes one, its end closes it. What
 * was over when it was loaded, had no error and crosses no other is folded; what one watches
 * as it happens stays open. Tasks do several things at once, so groups may cross; a fold hides
 * what lies between its two rows, whoever said it.
 */

import type { Entry } from './api';
import type { Span } from './layout';
import { groupOf } from './shown';

export interface Group {
  id: string;
  title: string;
  source: string;
  /** The row of its start; -1 while only its end was seen. */
  from: number;
  /** The row of its end; null while that is not known. */
  to: number | null;
  start_seq: number;
  started_at: string;
  ended_at: string | null;
  /** Null while it is not known. */
  errors: number | null;
  folded: boolean;
}

export class Groups {
  #groups = new Map<string, Group>();
  /** By the row of its start. */
  #starts = new Map<number, Group>();

  at(row: number): Group | undefined {
    return this.#starts.get(row);
  }

  /** What `entry`, of `row`, says of a group. */
  see(row: number, entry: Entry): Group | null {
    const mark = groupOf(entry.metadata);
    if (!mark) return null;
    const group = this.#groups.get(mark.id) ?? this.#added(mark.id, mark.title, entry.source);
    if (mark.event === 'start' && group.from < 0) {
      group.from = row;
      group.start_seq = entry.seq;
      group.started_at = entry.timestamp;
      this.#starts.set(row, group);
    } else if (mark.event === 'end' && group.to === null) {
      group.to = row;
      group.ended_at = entry.timestamp;
    }
    return group;
  }

  /**
   * Fold what a loaded page shows to be over and without an error. `entries` are the page's, from
   * row `first` on. True where anything was folded.
   */
  foldQuiet(first: number, entries: readonly (Entry | undefined)[]): boolean {
    const last = first + entries.length;
    const whole = [...this.#groups.values()].filter(
      (group) => group.from >= first && group.to !== null && group.to < last && group.errors === null,
    );
    for (const group of whole) group.errors = errorsIn(entries, group.from - first, (group.to ?? 0) - first);
    let folded = false;
    for (const group of whole) {
      if (group.errors || whole.some((other) => cross(group, other))) continue;
      group.folded = folded = true;
    }
    return folded;
  }

  /** The spans that are folded away: sorted, and apart from each other. */
  get spans(): Span[] {
    const spans: Span[] = [];
    const folded = [...this.#groups.values()].filter(
      (group) => group.folded && group.to !== null && group.from >= 0,
    );
    for (const group of folded.sort((a, b) => a.from - b.from)) {
      const last = spans.at(-1);
      const to = (group.to ?? 0) + 1;
      // What starts inside of a fold may reach beyond it.
      if (last && group.from < last.to) last.to = Math.max(last.to, to);
      else spans.push({ from: group.from + 1, to });
    }
    return spans;
  }

  /** Open every group that hides `row`. True where one did. */
  openAround(row: number): boolean {
    let opened = false;
    for (const group of this.#groups.values()) {
      if (!group.folded || group.to === null || row <= group.from || row > group.to) continue;
      group.folded = false;
      opened = true;
    }
    return opened;
  }

  #added(id: string, title: string, source: string): Group {
    const group: Group = {
      ...{ id, title, source, from: -1, to: null, start_seq: 0, started_at: '', ended_at: null },
      ...{ errors: null, folded: false },
    };
    this.#groups.set(id, group);
    return group;
  }
}

function errorsIn(entries: readonly (Entry | undefined)[], from: number, to: number): number {
  let errors = 0;
  for (let at = from; at <= to; at++) if (entries[at]?.level === 'ERROR') errors++;
  return errors;
}

function cross(one: Group, other: Group): boolean {
  const [from, to] = [other.from, other.to ?? Infinity];
  const inside = (row: number) => row > from && row < to;
  return one !== other && inside(one.from) !== inside(one.to ?? Infinity);
}

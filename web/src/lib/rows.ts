/**
 * How many lines each row of a page takes, and which rows stand for others.
 *
 * A progress is said again and again: of a page the first such row stays and shows the newest of
 * its numbers, the later ones are hidden. Whether a row is hidden depends on its own page alone,
 * so nothing that loads elsewhere moves it; and a row that is in view is not hidden by one before it.
 */

import { stripAnsi } from './ansi';
import type { Entry, Progress } from './api';
import { linesOf, widestOf } from './cells';
import { progressOf, shownOf } from './shown';

/** How messages are laid out. */
export interface Measure {
  /** Cells of a line of a message; 0 does not wrap. */
  columns: number;
  /** Whether the source stands before the message, on a narrow screen. */
  sourceInline: boolean;
}

export class PageRows {
  /** The newest of each progress on this page. */
  progress = new Map<string | number, Progress>();
  /** The cells of the widest line. */
  widest = 0;
  #first = new Map<string | number, number>();
  #kept = new Set<number>();

  /** The lines of `entries`, which stand from place `at` of the page on. */
  lines(
    entries: readonly (Entry | undefined)[],
    at: number,
    measure: Measure,
    isExpanded: (seq: number) => boolean,
  ): Uint16Array {
    const lines = new Uint16Array(entries.length).fill(1);
    for (let i = 0; i < entries.length; i++) {
      const entry = entries[i];
      if (!entry) continue;
      const progress = entry.metadata && progressOf(entry.metadata);
      lines[i] = progress
        ? this.#progressLines(progress, at + i)
        : this.#textLines(entry, measure, isExpanded);
    }
    return lines;
  }

  /** Rows may be hidden again, but for those in places `from` to `to`, which are in view. */
  keepOnly(from: number, to: number): void {
    for (const place of this.#kept) if (place < from || place > to) this.#kept.delete(place);
  }

  #progressLines(progress: Progress, place: number): 0 | 1 {
    const first = this.#first.get(progress.id);
    if (first === undefined || place < first) this.#first.set(progress.id, place);
    if (first === undefined || place >= first) this.progress.set(progress.id, progress);
    if (first !== undefined && place > first && !this.#kept.has(place)) return 0;
    this.#kept.add(place);
    return 1;
  }

  #textLines(entry: Entry, measure: Measure, isExpanded: (seq: number) => boolean): number {
    const shown = shownOf(entry, isExpanded(entry.seq));
    const text = stripAnsi(shown.text) + shown.fields;
    const whole = measure.sourceInline ? `${entry.source} ${text}` : text;
    if (!measure.columns) this.widest = Math.max(this.widest, widestOf(whole));
    return Math.min(60_000, linesOf(whole, measure.columns) + (shown.more ? 1 : 0));
  }
}

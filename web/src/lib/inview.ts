/**
 * The rows in view, each as what its component is given.
 *
 * Of some fifty rows a scrolled frame brings seven, and a flush of live entries often none. A row of
 * which nothing has changed is the very object that it was, so nothing that shows it is looked at.
 */

import type { Entry, Progress } from './api';
import type { Epoch } from './epoch';
import type { Group } from './groups';
import { progressOf } from './shown';
import { Slots } from './slots';

export interface RowShown {
  /** Which DOM node shows it. */
  slot: number;
  row: number;
  entry: Entry | undefined;
  /** The timestamp of the row before, where it is known. */
  before: string | undefined;
  expanded: boolean;
  group: Group | undefined;
  progress: Progress | null;
}

export class RowsInView {
  #slots = new Slots();
  /** By slot. */
  #shown: RowShown[] = [];

  /** What `rows` of `epoch` show now. */
  of(epoch: Epoch, rows: readonly number[]): RowShown[] {
    const slots = this.#slots.assign(rows);
    return rows.map((row, i) => this.#kept(read(epoch, row, slots[i] ?? i)));
  }

  #kept(now: RowShown): RowShown {
    const known = this.#shown[now.slot];
    if (known && isSame(known, now)) return known;
    this.#shown[now.slot] = now;
    return now;
  }
}

function read(epoch: Epoch, row: number, slot: number): RowShown {
  const entry = epoch.entry(row);
  const progress = entry?.metadata ? progressOf(entry.metadata) : null;
  const group = epoch.folding.at(row);
  return {
    ...{ slot, row, entry },
    before: epoch.entry(row - 1)?.timestamp,
    expanded: entry !== undefined && epoch.isExpanded(entry.seq),
    // A group is one object that changes: a copy tells that it did.
    group: group && { ...group },
    progress: progress && epoch.progress(row, progress),
  };
}

/** A row that starts a group is never the same: it is rare, and shows what changes elsewhere. */
function isSame(one: RowShown, other: RowShown): boolean {
  return (
    one.row === other.row &&
    one.entry === other.entry &&
    one.before === other.before &&
    one.expanded === other.expanded &&
    one.progress === other.progress &&
    !one.group &&
    !other.group
  );
}

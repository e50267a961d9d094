/**
 * Groups folded away: what `Groups` knows of them, brought to the layout.
 *
 * A group is known as far as the log was looked at, so a person may fold one whose end was never
 * loaded: it is looked for then. What says which rows are whose are rows of the whole log, so
 * under a filter there is nothing to fold.
 */

import type { Entry } from './api';
import { Groups, type Group } from './groups';
import type { LogLayout } from './layout';
import type { LogQueries } from './queries';
import { groupOf } from './shown';

const END_TRIES = 5;

export class Folding {
  #groups = new Groups();
  #layout: LogLayout;
  #queries: LogQueries;

  constructor(layout: LogLayout, queries: LogQueries) {
    this.#layout = layout;
    this.#queries = queries;
  }

  /** The group that starts at `row`. */
  at(row: number): Group | undefined {
    return this.#groups.at(row);
  }

  /** Entries came, from `row` on, as they were said: their groups stay open. */
  see(row: number, entries: readonly (Entry | undefined)[]): void {
    if (!this.#queries.unfiltered) return;
    entries.forEach((entry, i) => {
      if (entry?.metadata) this.#groups.see(row + i, entry);
    });
  }

  /** Entries were loaded, from `row` on: groups that were over and went well are folded. */
  load(row: number, entries: readonly (Entry | undefined)[]): void {
    this.see(row, entries);
    if (this.#queries.unfiltered && this.#groups.foldQuiet(row, entries)) this.#apply();
  }

  /** Open what hides `row`. True where anything did. */
  openAround(row: number): boolean {
    const opened = this.#groups.openAround(row);
    if (opened) this.#apply();
    return opened;
  }

  /** Fold `group`, or open it; `changed` is called whenever that is to be shown. */
  async toggle(group: Group, changed: () => void): Promise<void> {
    if (group.to === null) await this.#findEnd(group);
    if (group.to === null) return;
    group.folded = !group.folded;
    this.#apply();
    changed();
    if (group.errors !== null) return;
    group.errors = await this.#queries.errors(group.start_seq, group.to + 1);
    changed();
  }

  #apply(): void {
    this.#layout.fold(this.#groups.spans);
  }

  /** The end is said by whom the start was said, and has the title in it. */
  async #findEnd(group: Group): Promise<void> {
    let from = group.start_seq;
    for (let tries = 0; tries < END_TRIES; tries++) {
      const hit = await this.#queries.said(group.source, group.title, from);
      if (!hit) return;
      if (groupOf(hit.entry.metadata)?.id === group.id) {
        this.#groups.see(hit.entry.seq - 1, hit.entry);
        return;
      }
      from = hit.entry.seq;
    }
  }
}

/**
 * Where one is in a log: the lines that are selected, which of their ends moves, going elsewhere,
 * and where a search begins.
 *
 * The address names the lines by their seq, so they stay the same lines whatever the filter leaves
 * and wherever they are then. Under a filter a seq alone does not tell its row: that of the end that
 * moves, the head, is remembered from where it was found, until the log is opened anew.
 */

import type { Address, Lines } from './address.svelte';
import type { Entry } from './api';
import type { Located } from './epoch';
import type { Direction } from './queries';
import type { LogSession } from './session.svelte';
import { LINE_PX } from './viewport.svelte';

export class Cursor {
  /** The seq of the end of the selection that moves. */
  head = $state.raw<number | null>(null);

  #address: Address;
  #session: LogSession;
  #row: number | null = null;

  constructor(address: Address, session: LogSession) {
    this.#address = address;
    this.#session = session;
    this.reread();
  }

  get lines(): Lines | null {
    return this.#address.lines;
  }

  /** The address is another one. */
  reread(): void {
    this.head = this.lines?.to ?? null;
    this.forgetRow();
  }

  /** The log was opened anew: its rows may be others. */
  forgetRow(): void {
    this.#row = null;
  }

  /** Select `seq`, which is in `row` where that is known, or all up to it from where one was. */
  select(seq: number, extend = false, row: number | null = null): void {
    const { lines } = this;
    const anchor = extend && lines ? (this.head === lines.from ? lines.to : lines.from) : seq;
    this.head = seq;
    this.#row = row;
    this.#address.setLines({ from: Math.min(anchor, seq), to: Math.max(anchor, seq) });
  }

  unselect(): void {
    this.head = this.#row = null;
    this.#address.setLines(null);
  }

  /** Select the next line, or the one before; with `extend`, beside those that are. */
  move(step: 1 | -1, extend: boolean): void {
    const { view, epoch } = this.#session;
    const now = this.row;
    const row = now === null ? this.#edge(step) : epoch.layout.neighbour(now, step);
    const seq = row === null ? null : this.seqOf(row);
    if (row === null || seq === null) return;
    view.pause();
    view.reveal(row);
    this.select(seq, extend, row);
    this.#session.version++;
  }

  /** Show `located` and select it. */
  goTo(located: Located): void {
    const { view } = this.#session;
    this.#session.unfold(located.row);
    const px = view.pixelOf(located.row);
    if (px < view.height * 0.1 || px > view.height * 0.85) view.show(located.row, view.height / 3);
    else view.pause();
    this.select(located.seq, false, located.row);
    this.#session.version++;
  }

  async goToSeq(seq: number): Promise<void> {
    const located = await this.#session.epoch.locate(seq);
    if (located) this.goTo(located);
  }

  /** Show the line of `seq`; what is selected stays. */
  async show(seq: number): Promise<void> {
    const located = await this.#session.epoch.locate(seq);
    if (!located) return;
    const { view } = this.#session;
    this.#session.unfold(located.row);
    view.show(located.row, view.height / 3);
    this.#session.version++;
  }

  /** Go on by a screen, or back. */
  turn(step: 1 | -1): void {
    const { view } = this.#session;
    if (step > 0 && view.following) return;
    view.by(step * Math.max(40, view.height - 40));
    if (step > 0 && view.top + view.height >= view.virtualHeight - 1) view.follow();
    this.#session.version++;
  }

  toFirst(): void {
    const { view } = this.#session;
    if (view.scrollable) view.show(0, 0);
    this.#session.version++;
    const seq = this.seqOf(0);
    if (seq !== null) this.select(seq);
  }

  /** The row of the head, where it is known. */
  get row(): number | null {
    if (this.head === null) return null;
    if (this.#session.unfiltered) return this.head - 1;
    return this.#row ?? this.#rowInView();
  }

  /** The entry of the head, where it is here. */
  get entry(): Entry | undefined {
    const { row } = this;
    const entry = row === null ? undefined : this.#session.epoch.entry(row);
    return entry?.seq === this.head ? entry : undefined;
  }

  /** The line that the reader is at: the head, or the first in view. */
  get seq(): number {
    return this.head ?? this.top;
  }

  /** The first line in view. */
  get top(): number {
    const { view, epoch } = this.#session;
    return this.seqOf(epoch.layout.rowAt(view.top / LINE_PX)) ?? 1;
  }

  /** The seq of `row`: without a filter it is known also where the entry is not here. */
  seqOf(row: number): number | null {
    const { epoch, unfiltered } = this.#session;
    return epoch.entry(row)?.seq ?? (unfiltered ? row + 1 : null);
  }

  /** Beyond which line to search: the head where it is in view, else the view's edge. */
  from(direction: Direction): number {
    const { view, epoch } = this.#session;
    const { row } = this;
    const px = row === null ? -1 : view.pixelOf(row);
    if (this.head !== null && px >= -20 && px <= view.height) return this.head;
    if (view.following) return direction === 'next' ? 0 : epoch.last_seq + 1;
    return direction === 'next' ? this.top - 1 : this.top + 1;
  }

  /** A line that was selected by hand is in view. */
  #rowInView(): number | null {
    const { view, epoch } = this.#session;
    const { layout } = epoch;
    for (
      let row: number | null = layout.rowAt(view.top / LINE_PX);
      row !== null;
      row = layout.neighbour(row, 1)
    ) {
      if (view.pixelOf(row) > view.height) return null;
      if (epoch.entry(row)?.seq === this.head) return row;
    }
    return null;
  }

  /** The row at the view's edge that a first step begins with. */
  #edge(step: 1 | -1): number {
    const { view, epoch } = this.#session;
    const first = step > 0 && !view.following;
    const px = first ? LINE_PX - 1 : view.height - LINE_PX - 1;
    return epoch.layout.rowAt((view.top + px) / LINE_PX);
  }
}

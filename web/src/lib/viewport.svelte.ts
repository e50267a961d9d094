/**
 * What of the log is in view: scrolling, following and staying, without the DOM.
 *
 * Browsers cap an element at 17 to 33 million pixels, which a million rows exceed. So there are
 * two heights: the log's own (*virtual*), and the scrolled element's (*physical*), which is
 * capped. A small scroll moves both alike; a large one, made with the scrollbar, goes to the
 * same share of the log. `offset` is the difference between the two places; at rest it is
 * brought back to what the scrollbar should show (`rest`).
 *
 * Following ends by what a person does (`pause`), never by how far from the end the view is:
 * in a flood every view is far from the end. While paused the view holds on to a row, so that
 * nothing that arrives, loads or folds elsewhere moves the text.
 *
 * While the scrollbar is held (`grip`) the element neither grows nor is scrolled by the page:
 * Chromium leaves out each step of a drag before which the element has grown, in a flood all.
 */

import type { LogLayout } from './layout';

export const LINE_PX = 20;
const PHYSICAL_MAX_PX = 8_000_000;

export class Viewport {
  /** The virtual place at the top of the view, in pixels. */
  top = $state.raw(0);
  /** Virtual minus physical place. */
  offset = $state.raw(0);
  height = $state.raw(600);
  following = $state.raw(true);
  /** The rows that there were when following ended. */
  pausedTotal = $state.raw(0);

  #layout: LogLayout;
  #physical = 0;
  #anchor = { row: 0, px: 0 };
  /** The two heights when the scrollbar was taken. */
  #held: { virtual: number; physical: number } | null = null;

  constructor(layout: LogLayout) {
    this.#layout = layout;
  }

  get virtualHeight(): number {
    return this.#layout.lines * LINE_PX;
  }

  get physicalHeight(): number {
    return this.#held?.physical ?? Math.min(this.virtualHeight, PHYSICAL_MAX_PX);
  }

  /** Where the element should be scrolled to. */
  get physical(): number {
    return this.#physical;
  }

  get scrollable(): boolean {
    return this.virtualHeight > this.height;
  }

  get #topMax(): number {
    return Math.max(0, this.virtualHeight - this.height);
  }

  /** How far down the scrollbar goes: what came since it was taken is beyond it. */
  get #reach(): number {
    return Math.max(0, (this.#held?.virtual ?? this.virtualHeight) - this.height);
  }

  get #physicalMax(): number {
    return Math.max(0, this.physicalHeight - this.height);
  }

  /** The element was scrolled to `physical`. True where it must be scrolled elsewhere instead. */
  scrolled(physical: number): boolean {
    const moved = physical - this.#physical;
    if (Math.abs(moved) < 1) return false;
    const top = Math.abs(moved) < this.height * 3 ? physical + this.offset : this.#proportional(physical);
    this.#physical = physical;
    if (this.#held && moved < 0) this.pause();
    this.#place(top);
    if (moved > 0 && this.top >= this.#reach - 1) this.follow();
    // At an end of the scrollbar, but not of the log: there must be room to go on.
    const stuck =
      (physical <= 0 && this.top > 0) || (physical >= this.#physicalMax && this.top < this.#topMax);
    return stuck ? this.rest() : this.#bound();
  }

  /** Nothing has moved for a while: the scrollbar shows the place again. True where it must be moved. */
  rest(): boolean {
    const wanted = Math.round(this.#share(this.top, this.#topMax) * this.#physicalMax);
    // A pixel is not worth a scroll, which would end one that is going on.
    return Math.abs(wanted - this.#physical) >= 2 && this.#moveTo(wanted);
  }

  /** Rows came, loaded, folded or changed their height. True where the element must be scrolled. */
  changed(): boolean {
    if (this.following) return this.#toEnd();
    const top = this.#layout.top(this.#anchor.row) * LINE_PX + this.#anchor.px;
    this.top = Math.max(0, Math.min(top, this.#topMax));
    return this.#bound();
  }

  resize(height: number): boolean {
    const atEnd = this.top >= this.#topMax - 1;
    this.height = height;
    // What was the last line in view stays in view, also where it is not followed.
    if (atEnd && !this.following) this.#place(this.#topMax);
    return this.changed();
  }

  /** Stay at the end from now on. */
  follow(): boolean {
    this.following = true;
    return this.#toEnd();
  }

  /** Stay where the view is. */
  pause(): void {
    if (!this.following) return;
    this.following = false;
    this.pausedTotal = this.#layout.total;
    this.#hold();
  }

  /** Show `row` with `px` pixels above it. */
  show(row: number, px: number): boolean {
    this.pause();
    this.#place(this.#layout.top(row) * LINE_PX - px);
    return this.rest();
  }

  /** Show `row`, moving no more than is needed. */
  reveal(row: number): boolean {
    const top = this.#layout.top(row) * LINE_PX;
    const height = this.#layout.lineCount(row) * LINE_PX;
    if (top < this.top) return this.show(row, LINE_PX);
    if (top + height > this.top + this.height - LINE_PX) {
      return this.show(row, Math.max(0, this.height - height - LINE_PX));
    }
    return false;
  }

  /** Move by `px`. */
  by(px: number): boolean {
    this.pause();
    this.#place(this.top + px);
    return this.rest();
  }

  /** The scrollbar is taken, by which one looks back. */
  grip(): void {
    this.pause();
    this.#held = { virtual: this.virtualHeight, physical: this.physicalHeight };
  }

  /** The scrollbar is let go. */
  release(): void {
    this.#held = null;
    if (this.following) this.#toEnd();
    else this.rest();
  }

  /** Where `row` is, in pixels below the top of the view. */
  pixelOf(row: number): number {
    return this.#layout.top(row) * LINE_PX - this.top;
  }

  #place(top: number): void {
    this.top = Math.max(0, Math.min(top, this.#topMax));
    this.#hold();
    this.offset = this.top - this.#physical;
  }

  #hold(): void {
    const row = Math.max(0, this.#layout.rowAt(this.top / LINE_PX));
    this.#anchor = { row, px: this.top - this.#layout.top(row) * LINE_PX };
  }

  #toEnd(): boolean {
    this.top = this.#topMax;
    return this.#moveTo(this.#physicalMax);
  }

  /** The physical place must be one that the element can have, and agree with `top`. */
  #bound(): boolean {
    this.offset = this.top - this.#physical;
    const capped = this.virtualHeight > PHYSICAL_MAX_PX;
    if (!capped && Math.abs(this.offset) >= 2) return this.rest();
    return this.#physical > this.#physicalMax ? this.rest() : false;
  }

  #moveTo(physical: number): boolean {
    const moved = !this.#held && physical !== this.#physical;
    if (moved) this.#physical = physical;
    this.offset = this.top - this.#physical;
    return moved;
  }

  #proportional(physical: number): number {
    return this.#share(physical, this.#physicalMax) * this.#reach;
  }

  #share(place: number, whole: number): number {
    return whole > 0 ? Math.min(1, place / whole) : 0;
  }
}

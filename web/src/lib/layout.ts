/**
 * Where each row of a log is, in lines from the top.
 *
 * Rows have whole lines, and a folded row has none, so places are sums of small integers. A
 * log has a million rows, so sums are kept for each page, and only the pages that were looked
 * at know their rows; in the others a row is taken for one line. Whoever shows rows must hold
 * on to one of them, not to a number of pixels, for the pages above it may turn out taller.
 */

export const PAGE_ROWS = 1_024;

export interface Span {
  from: number;
  /** Excluded. */
  to: number;
}

export class LogLayout {
  #total = 0;
  #rows = new Map<number, Uint16Array>();
  #sums: number[] = [];
  #tops: number[] = [];
  #dirty = 0;
  #folded: Span[] = [];

  get total(): number {
    return this.#total;
  }

  /** All lines. */
  get lines(): number {
    const last = this.#sums.length - 1;
    return last < 0 ? 0 : this.#topOf(last) + (this.#sums[last] ?? 0);
  }

  /** The log has `total` rows now. */
  grow(total: number): void {
    const before = this.#total;
    this.#total = total;
    if (before === total) return;
    for (let page = pageOf(before); page * PAGE_ROWS < total; page++) this.#sum(page);
  }

  /** The rows of `page` from the `at`th on have these lines; 0 hides a row. */
  set(page: number, lines: ArrayLike<number>, at = 0): void {
    let rows = this.#rows.get(page);
    // Most pages have rows of one line, and need no memory of it.
    if (!rows && Array.prototype.every.call(lines, (count) => count === 1)) return;
    if (!rows) {
      rows = new Uint16Array(PAGE_ROWS).fill(1);
      this.#rows.set(page, rows);
    }
    rows.set(lines, at);
    this.#sum(page);
  }

  /** Rows are laid out anew: none is known. */
  forget(): void {
    const pages = [...this.#rows.keys()];
    this.#rows.clear();
    for (const page of pages) this.#sum(page);
  }

  /** A row was measured. True where that is news. */
  mend(row: number, lines: number): boolean {
    const page = pageOf(row);
    if (this.lineCount(row) === lines) return false;
    this.set(page, [lines], row % PAGE_ROWS);
    return true;
  }

  /** These spans, sorted and apart from each other, are folded away. */
  fold(spans: Span[]): void {
    const touched = [...this.#folded, ...spans];
    this.#folded = spans;
    const pages = new Set<number>();
    for (const { from, to } of touched) {
      for (let page = pageOf(from); page <= pageOf(Math.max(from, to - 1)); page++) pages.add(page);
    }
    for (const page of pages) this.#sum(page);
  }

  lineCount(row: number): number {
    return this.#spanAt(row) ? 0 : (this.#rows.get(pageOf(row))?.[row % PAGE_ROWS] ?? 1);
  }

  /** The lines above `row`. */
  top(row: number): number {
    const at = Math.max(0, Math.min(row, this.#total));
    if (at === this.#total) return this.lines;
    const page = pageOf(at);
    let top = this.#topOf(page);
    for (let r = page * PAGE_ROWS; r < at; r = this.#after(r)) top += this.lineCount(r);
    return top;
  }

  /** The row on `line`; the last one beyond the end, -1 in an empty log. */
  rowAt(line: number): number {
    if (this.#total === 0) return -1;
    const page = this.#pageAt(line);
    const end = Math.min(this.#total, (page + 1) * PAGE_ROWS);
    let top = this.#topOf(page);
    let last = page * PAGE_ROWS;
    for (let row = last; row < end; row = this.#after(row)) {
      const lines = this.lineCount(row);
      if (lines && top + lines > line) return row;
      if (lines) last = row;
      top += lines;
    }
    return last;
  }

  /** The nearest row after (or before, with -1) `row` that is not hidden; null where none is. */
  neighbour(row: number, step: 1 | -1): number | null {
    for (let at = row + step; at >= 0 && at < this.#total; at += step) {
      const span = this.#spanAt(at);
      if (span) at = step > 0 ? span.to - 1 : span.from;
      else if (this.lineCount(at)) return at;
    }
    return null;
  }

  /** The span that hides `row`. */
  #spanAt(row: number): Span | undefined {
    let low = 0;
    let high = this.#folded.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.#folded[middle]?.to ?? 0) > row) high = middle;
      else low = middle + 1;
    }
    const span = this.#folded[low];
    return span && span.from <= row ? span : undefined;
  }

  /** The row after `row`, over what is folded, but not beyond its page. */
  #after(row: number): number {
    if (!this.#folded.length) return row + 1;
    const to = this.#spanAt(row)?.to ?? row + 1;
    return Math.min(to, (pageOf(row) + 1) * PAGE_ROWS);
  }

  #sum(page: number): void {
    const start = page * PAGE_ROWS;
    const end = Math.min(this.#total, start + PAGE_ROWS);
    const rows = this.#rows.get(page);
    let sum = 0;
    if (!rows && !this.#folded.length) sum = Math.max(0, end - start);
    else for (let row = start; row < end; row = this.#after(row)) sum += this.lineCount(row);
    if (this.#sums[page] === sum) return;
    this.#sums[page] = sum;
    this.#dirty = Math.min(this.#dirty, page);
  }

  #topOf(page: number): number {
    for (; this.#dirty < page; this.#dirty++) {
      this.#tops[this.#dirty + 1] = (this.#tops[this.#dirty] ?? 0) + (this.#sums[this.#dirty] ?? 0);
    }
    return this.#tops[page] ?? 0;
  }

  #pageAt(line: number): number {
    let low = 0;
    let high = this.#sums.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.#topOf(middle) <= line) low = middle;
      else high = middle - 1;
    }
    return low;
  }
}

export function pageOf(row: number): number {
  return Math.floor(row / PAGE_ROWS);
}

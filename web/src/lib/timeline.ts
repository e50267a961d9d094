/**
 * How much was said when: bins of equal length in time, as the outline gives them, that go on
 * with the live entries. When there are too many, each two become one.
 */

import type { Bin, Entry } from './api';

export const BINS = 240;
const BIN_MS_MIN = 100;

export interface TimeBin {
  /** ms since 1970. */
  start: number;
  count: number;
  errors: number;
  warnings: number;
  first_seq: number;
}

export class Timeline {
  bins: TimeBin[] = [];
  bin_ms = BIN_MS_MIN;

  get start(): number {
    return this.bins[0]?.start ?? 0;
  }

  get end(): number {
    return this.start + this.bins.length * this.bin_ms;
  }

  /** What the server has counted up to now. */
  load(bins: readonly Bin[]): void {
    this.bins = [];
    const [first] = bins;
    if (!first) return;
    this.bin_ms = Math.max(0.001, Date.parse(first.end) - Date.parse(first.start));
    this.bins = bins.map((bin, i) => ({
      start: Date.parse(first.start) + i * this.bin_ms,
      count: bin.count,
      errors: bin.errors,
      warnings: 0,
      first_seq: bin.first_seq,
    }));
    while (this.bin_ms < BIN_MS_MIN) this.#widen();
  }

  add(entry: Entry): void {
    const at = Date.parse(entry.timestamp);
    if (!this.bins.length) this.bins = [emptyBin(at)];
    // A clock that was set back does not move what is drawn: its entries count in the first bin.
    let index = Math.max(0, Math.floor((at - this.start) / this.bin_ms));
    while (index >= BINS) {
      this.#widen();
      index = Math.floor((at - this.start) / this.bin_ms);
    }
    while (this.bins.length <= index) this.bins.push(emptyBin(this.start + this.bins.length * this.bin_ms));
    const bin = this.bins[index];
    if (!bin) return;
    bin.count++;
    bin.first_seq ||= entry.seq;
    if (entry.level === 'ERROR') bin.errors++;
    else if (entry.level === 'WARNING') bin.warnings++;
  }

  #widen(): void {
    const merged: TimeBin[] = [];
    for (let i = 0; i < this.bins.length; i += 2) {
      const [one, other] = [this.bins[i], this.bins[i + 1]];
      if (!one) break;
      merged.push({
        start: one.start,
        count: one.count + (other?.count ?? 0),
        errors: one.errors + (other?.errors ?? 0),
        warnings: one.warnings + (other?.warnings ?? 0),
        first_seq: one.first_seq || (other?.first_seq ?? 0),
      });
    }
    this.bins = merged;
    this.bin_ms *= 2;
  }
}

function emptyBin(start: number): TimeBin {
  return { start, count: 0, errors: 0, warnings: 0, first_seq: 0 };
}

/** The running progresses of a task, with how fast they are and how long they still take. */

import type { Progress } from './api';
import { showNumber } from './numbers';

const SPAN_MS = 30_000;
const AT_ONCE_MS = 40;

export interface Running {
  progress: Progress;
  source: string;
  /** A second; null while it is not known. */
  rate: number | null;
  left_ms: number | null;
}

interface Sample {
  at: number;
  current: number;
}

export class ProgressBoard {
  #newest = new Map<string | number, Running>();
  #samples = new Map<string | number, Sample[]>();

  get running(): Running[] {
    return [...this.#newest.values()].filter((each) => !each.progress.done);
  }

  newest(id: string | number): Progress | null {
    return this.#newest.get(id)?.progress ?? null;
  }

  /** `progress` came at `at` (ms). */
  update(source: string, progress: Progress, at: number): void {
    const known = this.#newest.get(progress.id);
    const samples = this.#samples.get(progress.id) ?? [];
    const last = samples.at(-1);
    if (known?.progress.done) return;
    // Numbers that come all at once are the past, of which one does not know how long it took.
    if (last && at - last.at < AT_ONCE_MS) last.current = progress.current;
    else if (!last || at - last.at >= 500 || samples.length < 2)
      samples.push({ at, current: progress.current });
    while (samples.length > 2 && at - (samples[0]?.at ?? at) > SPAN_MS) samples.shift();
    this.#samples.set(progress.id, samples);
    this.#newest.set(progress.id, { progress, source, ...paceOf(samples, progress, at) });
    if (progress.done) this.#samples.delete(progress.id);
  }

  /** The task has ended: nothing runs any more. */
  end(): void {
    for (const each of this.#newest.values()) each.progress = { ...each.progress, done: true };
    this.#samples.clear();
  }
}

function paceOf(samples: Sample[], progress: Progress, at: number): Pick<Running, 'rate' | 'left_ms'> {
  const [first] = samples;
  if (!first || at - first.at < 300 || progress.current <= first.current)
    return { rate: null, left_ms: null };
  const rate = ((progress.current - first.current) / (at - first.at)) * 1_000;
  const left = progress.total === null ? null : Math.max(0, progress.total - progress.current);
  return { rate, left_ms: left === null ? null : (left / rate) * 1_000 };
}

const BYTES = ['B', 'kB', 'MB', 'GB', 'TB'];

/** An amount with its unit: bytes get prefixes, everything else thousands. */
export function showAmount(amount: number, unit: string): string {
  if (/^(b|bytes?)$/i.test(unit)) {
    let power = 0;
    let value = amount;
    for (; value >= 1_000 && power < BYTES.length - 1; power++) value /= 1_000;
    return `${power ? value.toFixed(value < 99.95 ? 1 : 0) : value} ${BYTES[power] ?? ''}`;
  }
  const shown =
    Number.isInteger(amount) || amount >= 100 ? showNumber(Math.round(amount)) : amount.toFixed(1);
  return unit ? `${shown} ${unit}` : shown;
}

/** `1,204 of 9,000 files`, or what there is of it. */
export function showProgress(progress: Progress): string {
  const { current, total, unit } = progress;
  if (total === null) return showAmount(current, unit);
  const bytes = /^(b|bytes?)$/i.test(unit);
  return `${showAmount(current, bytes ? unit : '')} of ${showAmount(total, unit)}`;
}

/** Between 0 and 1; null where the end is not known. */
export function shareOf(progress: Progress): number | null {
  if (progress.total === null) return progress.done ? 1 : null;
  if (progress.total <= 0) return 1;
  return Math.max(0, Math.min(1, progress.current / progress.total));
}

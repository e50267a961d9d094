import { afterEach, beforeEach, expect, test, vi } from 'vitest';

import { Problem, type Outline } from '../../src/lib/api';
import { Epoch } from '../../src/lib/epoch';
import { NO_FILTER } from '../../src/lib/filter';
import { ProgressBoard } from '../../src/lib/progress';
import { Tally } from '../../src/lib/tally.svelte';
import { stubAnswers } from './answers';
import { entries, entry } from './entries';

let tally: Tally;

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'Date'] });
  tally = new Tally();
});

afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

function epochOf(filter = {}): Epoch {
  const loading = { arrived: () => undefined, failed: () => undefined };
  const measure = { columns: 0, sourceInline: false };
  return new Epoch('ID', { ...NO_FILTER, ...filter }, new ProgressBoard(), measure, loading);
}

function outlineOf(last_seq: number): Outline {
  const counted = { by_level: { INFO: last_seq }, by_source: { test: last_seq } };
  return { total: last_seq, last_seq, anchors: [], bins: [], ...counted };
}

const pass = (ms: number) => vi.advanceTimersByTimeAsync(ms);

test('what the server has counted already is not counted again, what is newer is', () => {
  const epoch = epochOf();
  epoch.take(entries(1, 10));
  epoch.append();
  tally.set(epoch, outlineOf(8));
  expect(tally.counts.INFO).toBe(10);
  for (const each of entries(8, 12)) tally.add(each, true);
  tally.show();
  expect([tally.counts.INFO, tally.all, tally.sources]).toEqual([14, 14, [['test', 14]]]);
});

test('what a filter leaves is not counted as the whole', () => {
  tally.guess({ DEBUG: 1, INFO: 2, WARNING: 3, ERROR: 4 });
  tally.set(epochOf({ levels: ['ERROR'] }), outlineOf(9));
  tally.add(entry(10), false);
  tally.show();
  expect(tally.counts).toEqual({ DEBUG: 1, INFO: 2, WARNING: 3, ERROR: 4 });
  expect(tally.timeline.bins).toHaveLength(1);
});

test('what comes is shown at most twice a second', async () => {
  for (let n = 0; n < 10; n++) {
    tally.add(entry(n + 1), true);
    tally.showSoon();
    await pass(90);
  }
  expect(tally.version).toBe(1);
  await pass(500);
  expect([tally.version, tally.counts.INFO]).toEqual([2, 10]);
});

test('counts that cannot be had are asked for again, less and less often', async () => {
  const asked = stubAnswers(() => (asked.length < 4 ? 503 : outlineOf(5)));
  const epoch = epochOf();
  const loaded = tally.load(epoch);
  const times: number[] = [];
  for (let ms = 0; ms < 20_000; ms += 500) {
    if (asked.length > times.length) times.push(ms);
    await pass(500);
  }
  await loaded;
  expect(times.map((ms, i) => ms - (times[i - 1] ?? 0))).toEqual([0, 2_000, 4_000, 8_000]);
  expect(tally.counts.INFO).toBe(5);
});

test('a log that is gone is no reason to ask again', async () => {
  const asked = stubAnswers(() => null);
  const epoch = epochOf();
  await expect(tally.load(epoch)).rejects.toBeInstanceOf(Problem);
  expect(asked).toHaveLength(1);
});

test('of an epoch that was left nothing is counted, nor asked again', async () => {
  const asked = stubAnswers(() => 503);
  const epoch = epochOf();
  const loaded = tally.load(epoch);
  await pass(100);
  epoch.close();
  await pass(10_000);
  await loaded;
  expect(asked).toHaveLength(1);
  expect(tally.version).toBe(0);
});

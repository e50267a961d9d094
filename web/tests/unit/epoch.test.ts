import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';

import type { Entry } from '../../src/lib/api';
import { Epoch } from '../../src/lib/epoch';
import { NO_FILTER } from '../../src/lib/filter';
import { ProgressBoard } from '../../src/lib/progress';
import { stubAnswers } from './answers';
import { entries, entry } from './entries';

let epoch: Epoch;
let board: ProgressBoard;
const loading = { arrived: vi.fn(), failed: vi.fn() };

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'Date'] });
  board = new ProgressBoard();
  epoch = opened();
});

afterEach(() => {
  epoch.close();
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

function opened(filter = {}): Epoch {
  loading.arrived.mockClear();
  return new Epoch('ID', { ...NO_FILTER, ...filter }, board, { columns: 0, sourceInline: false }, loading);
}

/** Open at the end of a log of `last_seq` entries, of which the last ones are `entries`. */
function beginAt(last_seq: number, held: Entry[]): void {
  epoch.beginAt({ entries: held, total: last_seq, last_seq, more: false, ended: false });
  epoch.layout.grow(epoch.total);
}

const seqs = (rows: readonly Entry[]) => rows.map(({ seq }) => seq);
const pass = (ms: number) => vi.advanceTimersByTimeAsync(ms);

describe('taking', () => {
  test('what was taken is no row before it is appended', () => {
    beginAt(10, entries(9, 10));
    expect(epoch.take(entries(11, 12))).toBe(0);
    expect([epoch.total, epoch.last_seq, epoch.waiting]).toEqual([10, 12, 2]);
    expect(seqs(epoch.append())).toEqual([11, 12]);
    expect([epoch.total, epoch.entry(11)?.seq, epoch.waiting]).toEqual([12, 12, 0]);
  });

  test('what is not newer than the last one is not taken', () => {
    beginAt(10, entries(9, 10));
    expect(epoch.take(entries(8, 12))).toBe(3);
    expect(seqs(epoch.append())).toEqual([11, 12]);
  });

  test('beyond the end of the filter in time nothing becomes a row, and it goes on after it', () => {
    epoch = opened({ until: entry(12).timestamp });
    epoch.beginAfter({ total: 2, last_seq: 10, anchors: [1], bins: [], by_level: {}, by_source: {} });
    epoch.take(entries(11, 20));
    expect(seqs(epoch.append())).toEqual([11]);
    expect([epoch.total, epoch.last_seq]).toEqual([3, 20]);
  });

  test('a hole is rows that are not here', () => {
    beginAt(2, entries(1, 2));
    epoch.take([entry(3), entry(6)]);
    epoch.append();
    expect([epoch.total, epoch.entry(4), epoch.entry(5)?.seq]).toEqual([6, undefined, 6]);
    expect(seqs([...epoch.after(1)])).toEqual([2, 3, 6]);
  });
});

describe('loading', () => {
  test('with a filter a page begins at its anchor, also at one that came live', async () => {
    const asked = stubAnswers(() => ({ entries: [], more: false }));
    epoch = opened({ levels: ['ERROR'] });
    const anchors = [5, 5_000];
    epoch.beginAfter({ total: 2_048, last_seq: 9_000, anchors, bins: [], by_level: {}, by_source: {} });
    epoch.take([entry(9_007), entry(9_100)]);
    epoch.append();
    for (const row of [0, 1_030, 2_049]) {
      epoch.look(row, row + 10);
      await pass(100);
    }
    expect(asked.map((url) => url.searchParams.get('after'))).toEqual(['4', '4999', '9006']);
    expect(epoch.entry(2_048)?.seq).toBe(9_007);
  });

  test('of an epoch that was left nothing arrives', async () => {
    stubAnswers((url) => ({ entries: entries(Number(url.searchParams.get('after')) + 1, 100), more: false }));
    beginAt(100, []);
    epoch.look(0, 20);
    epoch.close();
    await pass(1_000);
    expect([epoch.closed, loading.arrived.mock.calls.length]).toEqual([true, 0]);
  });

  test('a text of which all is shown takes its lines, and stays so where it is laid out anew', () => {
    const long = entry(2, { message: Array.from({ length: 40 }, (_, i) => `line ${i}`).join('\n') });
    beginAt(2, [entry(1), long]);
    const lines = () => epoch.layout.lineCount(1);
    expect(lines()).toBe(17);
    expect(epoch.expand(1)).toBe(true);
    expect(lines()).toBe(40);
    epoch.measure({ columns: 80, sourceInline: false });
    expect(lines()).toBe(40);
    epoch.expand(1, true);
    expect(epoch.isExpanded(2)).toBe(true);
    expect(epoch.expand(7)).toBe(false);
  });

  test('a progress shows the newest of its numbers where it is the last, and its page’s where it is not', () => {
    const of = (current: number) => ({ id: 'p', label: 'p', current, total: 9, unit: '', done: false });
    beginAt(2_000, [entry(2_000, { metadata: { progress: of(3) } })]);
    board.update('test', of(5), Date.now());
    expect(epoch.progress(1_999, of(3)).current).toBe(5);
    expect(epoch.progress(10, of(1)).current).toBe(1);
  });
});

describe('where an entry is', () => {
  test('in a whole log by its seq, and beyond its end at the last', async () => {
    beginAt(10, entries(9, 10));
    expect(await epoch.locate(4)).toEqual({ row: 3, seq: 4 });
    expect(await epoch.locate(99)).toEqual({ row: 9, seq: 10 });
  });

  test('in an empty log nowhere', async () => {
    expect(await epoch.locate(1)).toBeNull();
  });
});

describe('folding', () => {
  const mark = (id: string, event: string) => ({ metadata: { group: { id, event, title: 'copy files' } } });
  const group = [entry(1, mark('g', 'start')), entry(2), entry(3, mark('g', 'end')), entry(4)];

  test('a group that was over is folded, one that one watches is not', () => {
    beginAt(4, group);
    expect(epoch.layout.neighbour(0, 1)).toBe(3);
    epoch.take(
      group.map((each) => ({
        ...each,
        seq: each.seq + 4,
        ...(each.metadata && mark('h', each.seq === 1 ? 'start' : 'end')),
      })),
    );
    epoch.append();
    epoch.layout.grow(epoch.total);
    expect(epoch.layout.neighbour(4, 1)).toBe(5);
  });

  test('what is hidden is opened, once', () => {
    beginAt(4, group);
    expect([epoch.folding.openAround(1), epoch.folding.openAround(1)]).toEqual([true, false]);
    expect(epoch.layout.neighbour(0, 1)).toBe(1);
  });

  test('under a filter nothing is folded', () => {
    epoch = opened({ sources: ['test'] });
    epoch.folding.load(0, group);
    expect(epoch.folding.at(0)).toBeUndefined();
  });

  test('an end that was never loaded is looked for among those that are said alike, not for ever', async () => {
    let seq = 10;
    const asked = stubAnswers((url) =>
      url.pathname.endsWith('/next')
        ? { entry: entry((seq += 10), mark('another', 'end')), ordinal: 1, total: 99 }
        : { total: 0 },
    );
    beginAt(900, []);
    epoch.folding.load(9, [entry(10, mark('g', 'start'))]);
    const begun = epoch.folding.at(9);
    const changed = vi.fn();
    if (begun) await epoch.folding.toggle(begun, changed);
    expect(asked.map((url) => url.searchParams.get('from'))).toEqual(['10', '20', '30', '40', '50']);
    expect([begun?.folded, changed.mock.calls.length]).toEqual([false, 0]);
  });
});

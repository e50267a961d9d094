import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';

import type { Entry } from '../../src/lib/api';
import { PAGE_ROWS } from '../../src/lib/layout';
import { Pace, type Clock } from '../../src/lib/pace';
import { PAGES_MAX, PageCache } from '../../src/lib/pages';
import { ProgressBoard, shareOf, showProgress } from '../../src/lib/progress';
import { showShort } from '../../src/lib/numbers';
import { showMoment } from '../../src/lib/moments';
import { showAge, showDuration, showTime } from '../../src/lib/times';
import { BINS, Timeline } from '../../src/lib/timeline';
import { colourOf, fitSource } from '../../src/lib/sources';
import { textBetween } from '../../src/lib/copying';
import { entries, entry } from './entries';

describe('page cache', () => {
  beforeEach(() => vi.useFakeTimers());
  afterEach(() => vi.useRealTimers());

  /** A cache over a log of a million rows, whose pages come when they are let. */
  function cacheOf() {
    const asked: number[] = [];
    const waiting = new Map<
      number,
      { give: () => void; fail: (error: unknown) => void; signal: AbortSignal }
    >();
    const arrived: number[] = [];
    const failed: unknown[] = [];
    const read = (page: number, signal: AbortSignal) =>
      new Promise<Entry[]>((resolve, reject) => {
        asked.push(page);
        const first = page * PAGE_ROWS + 1;
        waiting.set(page, {
          give: () => resolve(entries(first, first + PAGE_ROWS - 1)),
          fail: reject,
          signal,
        });
      });
    const cache = new PageCache(
      read,
      (page) => arrived.push(page),
      (error) => failed.push(error),
    );
    const give = async (page: number) => {
      waiting.get(page)?.give();
      await vi.advanceTimersByTimeAsync(100);
    };
    return { cache, asked, waiting, arrived, failed, give };
  }

  test('what is looked at and not here is asked for, once', async () => {
    const { cache, asked, arrived, give } = cacheOf();
    cache.look(1_000, 1_050);
    cache.look(1_001, 1_051);
    await vi.advanceTimersByTimeAsync(100);
    expect(asked.sort()).toEqual([0, 1]);
    await give(0);
    await give(1);
    expect(arrived).toEqual([0, 1]);
    expect(cache.peek(1_030)?.seq).toBe(1_031);
    cache.look(1_000, 1_050);
    await vi.advanceTimersByTimeAsync(100);
    expect(asked).toHaveLength(2);
  });

  test('what is no longer looked at is withdrawn', async () => {
    const { cache, waiting } = cacheOf();
    cache.look(0, 40);
    await vi.advanceTimersByTimeAsync(10);
    cache.look(500_000, 500_040);
    await vi.advanceTimersByTimeAsync(100);
    expect(waiting.get(0)?.signal.aborted).toBe(true);
    expect(cache.withdrawn).toBe(1);
  });

  test('dragging over a million rows asks for few pages', async () => {
    const { cache, asked } = cacheOf();
    for (let row = 0; row < 1_000_000; row += 2_000) {
      cache.look(row, row + 40);
      await vi.advanceTimersByTimeAsync(1);
    }
    expect(asked.length).toBeLessThan(60);
  });

  test('the least recently seen is given up, the end never', async () => {
    const { cache } = cacheOf();
    cache.put(900 * PAGE_ROWS, entries(900 * PAGE_ROWS + 1, 900 * PAGE_ROWS + 50));
    for (let page = 0; page < PAGES_MAX + 10; page++) cache.put(page * PAGE_ROWS, entries(1, PAGE_ROWS));
    await vi.advanceTimersByTimeAsync(0);
    expect(cache.pages).toBe(PAGES_MAX);
    expect(cache.peek(0)).toBeUndefined();
    expect(cache.peek(900 * PAGE_ROWS)).toBeDefined();
  });

  test('what failed is told, and asked for again', async () => {
    const { cache, asked, failed, waiting } = cacheOf();
    cache.look(0, 40);
    await vi.advanceTimersByTimeAsync(10);
    waiting.get(0)?.fail(new Error('no'));
    await vi.advanceTimersByTimeAsync(2_100);
    expect(failed).toHaveLength(1);
    expect(asked).toEqual([0, 0]);
  });

  test('an entry that is here is not replaced by one that comes late', () => {
    const { cache } = cacheOf();
    const [first] = entries(1, 1);
    if (first) cache.put(0, [first]);
    cache.put(0, entries(1, 5));
    expect(cache.peek(0)).toBe(first);
    expect(cache.peek(4)?.seq).toBe(5);
  });
});

describe('pace', () => {
  /** A clock that is moved by hand; a frame takes `cost_ms`. */
  function clockOf() {
    const state = { now: 0, hidden: false, cost_ms: 1, due: [] as { at: number; run: () => void }[] };
    const clock: Clock = {
      now: () => state.now,
      frame: (run) => state.due.push({ at: state.now + 16, run }),
      wait: (run, ms) => state.due.push({ at: state.now + ms, run }),
      after: (run) => {
        const now = state.now;
        state.now += state.cost_ms;
        run();
        state.now = now;
      },
      hidden: () => state.hidden,
    };
    const pass = (ms: number, every: () => void = () => undefined) => {
      for (const end = state.now + ms; state.now < end; state.now++) {
        every();
        const due = state.due.filter(({ at }) => at <= state.now);
        state.due = state.due.filter(({ at }) => at > state.now);
        due.forEach(({ run }) => run());
      }
    };
    return { state, clock, pass };
  }

  test.for([
    { name: 'with each frame while little comes', rows: 0.1, cost: 1, hidden: false, low: 50, high: 63 },
    { name: 'at most 20 times a second in a flood', rows: 10, cost: 1, hidden: false, low: 13, high: 20 },
    {
      name: 'at most 10 times where frames are expensive',
      rows: 10,
      cost: 30,
      hidden: false,
      low: 7,
      high: 10,
    },
    { name: 'once a second where nobody looks', rows: 10, cost: 1, hidden: true, low: 1, high: 1 },
  ])('shows $name', ({ rows, cost, hidden, low, high }) => {
    const { state, clock, pass } = clockOf();
    state.cost_ms = cost;
    state.hidden = hidden;
    let shown = 0;
    const pace = new Pace(() => shown++, clock);
    pass(3_000, () => pace.ask(rows));
    shown = 0;
    pass(1_000, () => pace.ask(rows));
    expect(shown).toBeGreaterThanOrEqual(low);
    expect(shown).toBeLessThanOrEqual(high);
  });

  test('what is asked for is shown, also the last', () => {
    const { clock, pass } = clockOf();
    let shown = 0;
    const pace = new Pace(() => shown++, clock);
    pace.ask();
    pass(100);
    expect(shown).toBe(1);
  });
});

describe('timeline', () => {
  test('goes on from what the server has counted', () => {
    const timeline = new Timeline();
    const start = '2026-01-01T00:00:00.000000Z';
    timeline.load([
      { start, end: '2026-01-01T00:00:01.000000Z', count: 5, errors: 1, first_seq: 1 },
      {
        start: '2026-01-01T00:00:01.000000Z',
        end: '2026-01-01T00:00:02.000000Z',
        count: 3,
        errors: 0,
        first_seq: 6,
      },
    ]);
    timeline.add(entry(25, { level: 'ERROR' }));
    expect(timeline.bins.map(({ count, errors, first_seq }) => [count, errors, first_seq])).toEqual([
      [5, 1, 1],
      [3, 0, 6],
      [1, 1, 25],
    ]);
  });

  test('never has too many bins, and forgets no line', () => {
    const timeline = new Timeline();
    for (let n = 1; n <= 20_000; n++) timeline.add(entry(n * 7));
    expect(timeline.bins.length).toBeLessThanOrEqual(BINS);
    expect(timeline.bins.reduce((sum, { count }) => sum + count, 0)).toBe(20_000);
    expect(timeline.bins[0]?.first_seq).toBe(7);
  });
});

describe('progress', () => {
  const at = (current: number, more = {}) => ({
    ...{ id: 'a', label: 'copy', current, total: 100, unit: 'files', done: false },
    ...more,
  });

  test('knows how fast it is and how long it takes', () => {
    const board = new ProgressBoard();
    for (let s = 0; s <= 10; s++) board.update('x', at(s * 5), s * 1_000);
    expect(board.running[0]).toMatchObject({ rate: 5, left_ms: 10_000 });
  });

  test('what came all at once, when the page was opened, says nothing of its pace', () => {
    const board = new ProgressBoard();
    for (let n = 0; n <= 50; n++) board.update('x', at(n), 1_000);
    board.update('x', at(52), 2_000);
    expect(board.running[0]?.rate).toBe(2);
  });

  test('is gone when it is done, and does not come back', () => {
    const board = new ProgressBoard();
    board.update('x', at(100, { done: true }), 1);
    board.update('x', at(40), 2);
    expect(board.running).toEqual([]);
  });

  test('nothing runs when the task has ended', () => {
    const board = new ProgressBoard();
    board.update('x', at(40), 1);
    board.end();
    expect(board.running).toEqual([]);
    expect(board.newest('a')?.current).toBe(40);
  });

  test.for([
    [at(1_204, { total: 9_000 }), '1,204 of 9,000 files'],
    [at(7, { total: null }), '7 files'],
    [at(1_500_000, { total: 3_000_000, unit: 'bytes' }), '1.5 MB of 3.0 MB'],
    [at(2, { total: 4, unit: '' }), '2 of 4'],
  ] as const)('%j is told as %s', ([progress, told]) => {
    expect(showProgress(progress)).toBe(told);
  });

  test('a share is between nothing and all, and not known without an end', () => {
    expect([
      shareOf(at(150)),
      shareOf(at(-1)),
      shareOf(at(1, { total: null })),
      shareOf(at(0, { total: 0 })),
    ]).toEqual([1, 0, null, 1]);
  });
});

describe('times', () => {
  const moment = '2026-11-23T20:50:07.123456Z';
  const ms = Date.parse(moment);

  test('of the day, since the start, since the line before', () => {
    expect(showTime(moment, 'utc', 0, null)).toBe('20:50:07.123');
    expect(showTime(moment, 'local', 0, null)).toBe(`${new Date(ms).toTimeString().slice(0, 8)}.123`);
    expect(showTime(moment, 'start', ms - 65_250, null).trim()).toBe('+01:05.250');
    expect(showTime(moment, 'delta', 0, ms - 1_500).trim()).toBe('+1.500');
    expect(showTime(moment, 'delta', 0, null).trim()).toBe('');
    expect(showMoment(moment, true)).toBe('2026-11-23 20:50:07.123456 UTC');
  });

  test.for([
    [400, '0.4 s'],
    [12_000, '12 s'],
    [200_000, '3 min 20 s'],
    [7_500_000, '2 h 5 min'],
    [273_600_000, '3 d 4 h'],
    [-5, '0.0 s'],
  ] as const)('%i ms last %s', ([duration, told]) => {
    expect(showDuration(duration)).toBe(told);
  });

  test('ages and numbers fit narrow places', () => {
    expect([showAge(5_000), showAge(300_000), showAge(7_200_000), showAge(9e8)]).toEqual([
      'now',
      '5 min',
      '2 h',
      '10 d',
    ]);
    expect([980, 12_400, 999_600, 1_250_000].map(showShort)).toEqual(['980', '12.4k', '1.0M', '1.3M']);
  });
});

test('a source has one colour, and fits its column with its end', () => {
  expect(['git', 'db', 'stdout'].map(colourOf)).toEqual([4, 6, 0]);
  expect(fitSource('db', 6)).toBe('db    ');
  expect(fitSource('very.long.name', 6)).toBe('….name');
});

test('a selection over many rows is each row’s own text', () => {
  const at = (row: number) => entry(row + 1, { message: `\x1b[1mrow\x1b[0m ${row}` });
  const text = textBetween({ row: 2, at: 4 }, { row: 5, at: 3 }, at, (row) => `row ${row}`);
  expect(text).toBe('2\nrow 3\nrow 4\nrow');
});

import { describe, expect, test } from 'vitest';

import { LogLayout, PAGE_ROWS } from '../../src/lib/layout';
import { Slots } from '../../src/lib/slots';
import { LINE_PX, Viewport } from '../../src/lib/viewport.svelte';
import { Groups } from '../../src/lib/groups';
import { PageRows } from '../../src/lib/rows';
import { entry } from './entries';

/** A layout in which row `n` of the first page has `lines[n]` lines. */
function layoutOf(total: number, lines: number[] = []): LogLayout {
  const layout = new LogLayout();
  layout.grow(total);
  if (lines.length) layout.set(0, lines);
  return layout;
}

/** The same by adding up, row by row. */
function topsOf(layout: LogLayout): number[] {
  const tops = [0];
  for (let row = 0; row < layout.total; row++) tops.push((tops[row] ?? 0) + layout.lineCount(row));
  return tops;
}

describe('layout', () => {
  test('rows that were not looked at are one line each', () => {
    const layout = layoutOf(5_000_000);
    expect(layout.lines).toBe(5_000_000);
    expect(layout.top(4_999_999)).toBe(4_999_999);
    expect(layout.rowAt(4_999_999)).toBe(4_999_999);
  });

  test('places are sums of lines, and rows are found by them', () => {
    const layout = layoutOf(PAGE_ROWS * 3, [3, 1, 0, 2]);
    const tops = topsOf(layout);
    for (const row of [0, 1, 2, 3, 4, 1_023, 1_024, 2_500]) expect(layout.top(row)).toBe(tops[row]);
    expect([0, 2, 3, 4, 5, 6].map((line) => layout.rowAt(line))).toEqual([0, 0, 1, 3, 3, 4]);
    expect(layout.rowAt(1e9)).toBe(PAGE_ROWS * 3 - 1);
  });

  test('a fold takes its rows away, over pages that were never seen', () => {
    const layout = layoutOf(PAGE_ROWS * 10);
    layout.fold([{ from: 10, to: PAGE_ROWS * 5 + 3 }]);
    expect(layout.lines).toBe(PAGE_ROWS * 5 + 7);
    expect(layout.neighbour(9, 1)).toBe(PAGE_ROWS * 5 + 3);
    expect(layout.neighbour(PAGE_ROWS * 5 + 3, -1)).toBe(9);
    expect(layout.rowAt(10)).toBe(PAGE_ROWS * 5 + 3);
    expect(layout.top(PAGE_ROWS * 5 + 3)).toBe(10);
    layout.fold([]);
    expect(layout.lines).toBe(PAGE_ROWS * 10);
  });

  test('the same by adding up, for many shapes', () => {
    let seed = 1;
    const random = (max: number) => (seed = (seed * 48_271) % 2_147_483_647) % max;
    for (let round = 0; round < 20; round++) {
      const layout = layoutOf(1 + random(3_000));
      layout.set(
        0,
        Array.from({ length: 1 + random(900) }, () => random(4)),
      );
      const from = random(layout.total);
      layout.fold([{ from, to: Math.min(layout.total, from + random(1_500)) }]);
      layout.grow(layout.total + random(2_000));
      const tops = topsOf(layout);
      expect(layout.lines).toBe(tops.at(-1));
      for (let look = 0; look < 20; look++) {
        const row = random(layout.total);
        expect(layout.top(row)).toBe(tops[row]);
        if (layout.lineCount(row)) expect(layout.rowAt(tops[row] ?? 0)).toBe(row);
      }
    }
  });

  test('a row that was measured moves what is below it', () => {
    const layout = layoutOf(100);
    expect(layout.mend(5, 4)).toBe(true);
    expect(layout.mend(5, 4)).toBe(false);
    expect(layout.top(6)).toBe(9);
  });
});

describe('viewport', () => {
  function viewOf(total: number, height = 600): { view: Viewport; layout: LogLayout } {
    const layout = layoutOf(total);
    const view = new Viewport(layout);
    view.resize(height);
    return { view, layout };
  }

  test('follows what grows', () => {
    const { view, layout } = viewOf(100);
    layout.grow(10_000);
    view.changed();
    expect(view.top).toBe(10_000 * LINE_PX - 600);
    expect(view.physical).toBe(view.top);
  });

  test('paused, it does not move by a pixel, whatever comes', () => {
    const { view, layout } = viewOf(100_000);
    view.pause();
    const { top, physical } = view;
    layout.grow(2_000_000);
    expect(view.changed()).toBe(false);
    expect([view.top, view.physical]).toEqual([top, physical]);
    expect(view.pausedTotal).toBe(100_000);
  });

  test('rows above that turn out taller do not move the text', () => {
    const { view, layout } = viewOf(5_000);
    view.show(2_000, 100);
    expect(view.pixelOf(2_000)).toBe(100);
    layout.set(
      0,
      Array.from({ length: 1_000 }, () => 3),
    );
    view.changed();
    expect(view.pixelOf(2_000)).toBe(100);
  });

  test.for([1_000, 400_000, 10_000_000])('of %i rows the last and the first are reached exactly', (total) => {
    const { view } = viewOf(total);
    view.pause();
    view.scrolled(0);
    expect(view.top).toBe(0);
    view.scrolled(view.physicalHeight - 600);
    expect(view.top).toBe(total * LINE_PX - 600);
    expect(view.following).toBe(true);
  });

  test('of ten million rows each can be scrolled to, a pixel at a time', () => {
    const { view } = viewOf(10_000_000);
    view.show(5_000_000, 0);
    const before = view.top;
    for (let n = 0; n < 50; n++) view.scrolled(view.physical + 7);
    expect(view.top).toBe(before + 350);
  });

  test('at the end of the scrollbar, but not of the log, there is room again', () => {
    const { view } = viewOf(10_000_000);
    view.show(5_000_000, 0);
    const { top } = view;
    for (let px = view.physical; px > 0; px -= 1_500) view.scrolled(px);
    view.scrolled(0);
    expect(view.top).toBeGreaterThan(0);
    expect(view.top).toBeLessThan(top);
    expect(view.physical).toBeGreaterThan(0);
  });

  test('the last line stays in view when there is less room for it', () => {
    const { view } = viewOf(1_000);
    view.pause();
    view.resize(400);
    expect(view.pixelOf(999)).toBe(400 - LINE_PX);
    expect(view.following).toBe(false);
  });

  test('scrolling down to the end follows again', () => {
    const { view } = viewOf(1_000);
    view.pause();
    view.scrolled(view.physical - 300);
    expect(view.following).toBe(false);
    view.scrolled(view.physical + 300);
    expect(view.following).toBe(true);
  });

  test('while the scrollbar is held nothing that comes moves it, and its way stays as long', () => {
    const { view, layout } = viewOf(1_000);
    view.changed();
    view.grip();
    const { physicalHeight } = view;
    layout.grow(9_000);
    expect([view.changed(), view.physicalHeight, view.following]).toEqual([false, physicalHeight, false]);
    view.scrolled(view.physical - 5_000);
    expect(view.top).toBe(1_000 * LINE_PX - 600 - 5_000);
    layout.grow(90_000);
    expect([view.changed(), view.top]).toEqual([false, 1_000 * LINE_PX - 600 - 5_000]);
    view.release();
    expect([view.physicalHeight, view.physical]).toEqual([90_000 * LINE_PX, view.top]);
  });

  test('dragged to its end it follows, dragged back it does not', () => {
    const { view, layout } = viewOf(1_000);
    view.grip();
    view.scrolled(4_000);
    layout.grow(2_000);
    view.changed();
    view.scrolled(view.physicalHeight - 600);
    expect([view.following, view.top]).toEqual([true, 2_000 * LINE_PX - 600]);
    layout.grow(3_000);
    view.changed();
    view.scrolled(view.physical - 100);
    layout.grow(4_000);
    view.changed();
    expect([view.following, view.top]).toEqual([false, 3_000 * LINE_PX - 700]);
    view.release();
    expect(view.physical).toBe(view.top);
  });

  test('a row is revealed with the least movement', () => {
    const { view } = viewOf(1_000);
    view.show(500, 0);
    view.reveal(510);
    expect(view.pixelOf(500)).toBe(0);
    view.reveal(499);
    expect(view.pixelOf(499)).toBe(LINE_PX);
  });
});

describe('slots', () => {
  test('a row keeps its slot, and what is free is used again', () => {
    const slots = new Slots();
    expect(slots.assign([10, 11, 12])).toEqual([0, 1, 2]);
    expect(slots.assign([11, 12, 13])).toEqual([1, 2, 0]);
    expect(slots.assign([50, 51, 52])).toEqual([0, 1, 2]);
    expect(new Set(slots.assign([51, 60, 61, 62])).size).toBe(4);
  });
});

describe('rows of a page', () => {
  const progress = (seq: number, current: number, id = 'a') =>
    entry(seq, { metadata: { progress: { id, label: 'x', current, total: 9, unit: '', done: false } } });
  const measure = { columns: 0, sourceInline: false };
  const never = () => false;

  test('of a progress the first row stays and the later ones are hidden', () => {
    const rows = new PageRows();
    const lines = rows.lines(
      [progress(1, 0), entry(2), progress(3, 4), progress(4, 1, 'b')],
      0,
      measure,
      never,
    );
    expect([...lines]).toEqual([1, 1, 0, 1]);
    expect(rows.progress.get('a')?.current).toBe(4);
    expect([...rows.lines([progress(5, 8)], 4, measure, never)]).toEqual([0]);
    expect(rows.progress.get('a')?.current).toBe(8);
  });

  test('a row that is in view is not hidden when an earlier one loads, one that is not is', () => {
    const rows = new PageRows();
    expect([...rows.lines([progress(3, 4)], 2, measure, never)]).toEqual([1]);
    const all = [progress(1, 0), entry(2), progress(3, 4)];
    rows.keepOnly(2, 40);
    expect([...rows.lines(all, 0, measure, never)]).toEqual([1, 1, 1]);
    rows.keepOnly(10, 40);
    expect([...rows.lines(all, 0, measure, never)]).toEqual([1, 1, 0]);
  });

  test('lines of a message count, and wrap where they must', () => {
    const rows = new PageRows();
    const all = [entry(1, { message: 'a\nb' }), entry(2, { message: 'x'.repeat(25) })];
    expect([...rows.lines(all, 0, measure, never)]).toEqual([2, 1]);
    expect(rows.widest).toBe(25);
    expect([...rows.lines(all, 0, { columns: 10, sourceInline: false }, never)]).toEqual([2, 3]);
  });
});

describe('groups', () => {
  const mark = (seq: number, id: string, event: string) =>
    entry(seq, { metadata: { group: { id, event, title: id } } });

  test('what went well is folded, what had an error is open', () => {
    const groups = new Groups();
    const all = [
      ...[mark(1, 'good', 'start'), entry(2), mark(3, 'good', 'end')],
      ...[mark(4, 'bad', 'start'), entry(5, { level: 'ERROR' }), mark(6, 'bad', 'end')],
    ];
    all.forEach((each, row) => groups.see(row, each));
    expect(groups.foldQuiet(0, all)).toBe(true);
    expect(groups.spans).toEqual([{ from: 1, to: 3 }]);
    expect(groups.at(3)?.errors).toBe(1);
    expect(groups.openAround(2)).toBe(true);
    expect(groups.spans).toEqual([]);
  });

  test('groups that cross stay open, groups inside of others do not matter', () => {
    const crossing = new Groups();
    const all = [mark(1, 'a', 'start'), mark(2, 'b', 'start'), mark(3, 'a', 'end'), mark(4, 'b', 'end')];
    all.forEach((each, row) => crossing.see(row, each));
    expect(crossing.foldQuiet(0, all)).toBe(false);

    const nested = new Groups();
    const inside = [mark(1, 'a', 'start'), mark(2, 'b', 'start'), mark(3, 'b', 'end'), mark(4, 'a', 'end')];
    inside.forEach((each, row) => nested.see(row, each));
    nested.foldQuiet(0, inside);
    expect(nested.spans).toEqual([{ from: 1, to: 4 }]);
  });

  test('a group that has not ended cannot be folded', () => {
    const groups = new Groups();
    groups.see(0, mark(1, 'a', 'start'));
    expect(groups.foldQuiet(0, [mark(1, 'a', 'start'), entry(2)])).toBe(false);
  });
});

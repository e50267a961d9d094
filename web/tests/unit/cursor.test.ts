import { afterEach, beforeEach, expect, test, vi } from 'vitest';

import { Address } from '../../src/lib/address.svelte';
import { Cursor } from '../../src/lib/cursor.svelte';
import { NO_FILTER } from '../../src/lib/filter';
import { LogSession } from '../../src/lib/session.svelte';
import { stubAnswers } from './answers';
import { entries, task } from './entries';

/** An ended log of 100 entries, every tenth of which is an error. */
const log = entries(1, 100).map((each) => (each.seq % 10 ? each : { ...each, level: 'ERROR' as const }));
const errors = { ...NO_FILTER, levels: ['ERROR' as const] };

let address: Address;
let session: LogSession;
let cursor: Cursor;

beforeEach(async () => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
  stubAnswers(({ pathname, searchParams }) => {
    if (/\/tasks\/[^/]+$/.test(pathname)) return task({ status: 'succeeded' });
    const rows = log.filter(({ level }) => !searchParams.has('level') || level === 'ERROR');
    const page = { entries: rows, last_seq: 100, total: rows.length, more: false, ended: true };
    return { ...page, anchors: [10], bins: [], by_level: {}, by_source: {} };
  });
  history.replaceState(null, '', '/tasks/ID');
  address = new Address();
  session = new LogSession();
  cursor = new Cursor(address, session);
  await open();
});

afterEach(() => {
  address.close();
  session.close();
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

async function open(filter = NO_FILTER): Promise<void> {
  await session.open('ID', filter, { at: 'end' });
  session.look(0, session.total);
  await vi.advanceTimersByTimeAsync(100);
  session.view.resize(400);
  cursor.forgetRow();
}

const lines = () => [cursor.lines?.from, cursor.lines?.to];

test('a first step down begins at the top of the view, one up at its end', () => {
  session.view.show(40, 0);
  cursor.move(1, false);
  expect(lines()).toEqual([41, 41]);
  cursor.unselect();
  cursor.move(-1, false);
  expect(lines()).toEqual([59, 59]);
});

test('a step at the end of a log that is followed begins at its last lines', () => {
  cursor.move(1, false);
  expect(lines()).toEqual([99, 99]);
  expect(session.view.following).toBe(false);
});

test('a selection grows and shrinks at its head', () => {
  cursor.select(50);
  cursor.select(53, true);
  cursor.move(-1, true);
  expect([...lines(), cursor.head]).toEqual([50, 52, 52]);
  cursor.select(47, true);
  expect([...lines(), cursor.head]).toEqual([47, 50, 47]);
  cursor.move(1, false);
  expect(lines()).toEqual([48, 48]);
});

test('under a filter a step goes to the next line that it leaves', async () => {
  await open(errors);
  cursor.select(30);
  expect(cursor.entry?.seq).toBe(30);
  cursor.move(1, false);
  expect([lines(), cursor.row]).toEqual([[40, 40], 3]);
});

test('a line that the filter leaves out has no row', async () => {
  await open(errors);
  cursor.select(35);
  expect([cursor.row, cursor.entry]).toEqual([null, undefined]);
});

test('what is found is searched on from while it is in view, and else from the view’s edge', () => {
  expect([cursor.from('next'), cursor.from('previous')]).toEqual([0, 101]);
  cursor.goTo({ row: 49, seq: 50 });
  expect([cursor.from('next'), cursor.from('previous')]).toEqual([50, 50]);
  session.view.show(10, 0);
  expect([cursor.from('next'), cursor.from('previous')]).toEqual([10, 12]);
});

test('a line that is well in view is gone to without moving the view', () => {
  session.view.show(40, 0);
  const { top } = session.view;
  cursor.goTo({ row: 50, seq: 51 });
  expect(session.view.top).toBe(top);
  cursor.goTo({ row: 10, seq: 11 });
  expect(session.view.top).toBeLessThan(top);
});

test('to show a line selects nothing', async () => {
  cursor.select(3);
  await cursor.show(60);
  expect([...lines(), session.view.following]).toEqual([3, 3, false]);
  expect(session.view.pixelOf(59)).toBeGreaterThan(0);
});

test('screens down end in following', () => {
  cursor.toFirst();
  expect([session.view.top, ...lines()]).toEqual([0, 1, 1]);
  for (let n = 0; n < 10; n++) cursor.turn(1);
  expect(session.view.following).toBe(true);
  cursor.turn(-1);
  expect(session.view.following).toBe(false);
});

test('another address has other lines', () => {
  cursor.select(3);
  history.replaceState(null, '', '/tasks/ID#L7-L9');
  dispatchEvent(new PopStateEvent('popstate'));
  cursor.reread();
  expect([...lines(), cursor.head]).toEqual([7, 9, 9]);
});

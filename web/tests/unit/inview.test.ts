import { expect, test } from 'vitest';

import type { Entry } from '../../src/lib/api';
import { Epoch } from '../../src/lib/epoch';
import { NO_FILTER } from '../../src/lib/filter';
import { RowsInView } from '../../src/lib/inview';
import { ProgressBoard } from '../../src/lib/progress';
import { entries, entry } from './entries';

const board = new ProgressBoard();

function epochOf(held: Entry[]): Epoch {
  const loading = { arrived: () => undefined, failed: () => undefined };
  const epoch = new Epoch('ID', NO_FILTER, board, { columns: 0, sourceInline: false }, loading);
  const last_seq = held.at(-1)?.seq ?? 0;
  epoch.beginAt({ entries: held, total: last_seq, last_seq, more: false, ended: false });
  return epoch;
}

const rows = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => from + i);

test('a row that stays in view is the very object that it was, in its node', () => {
  const epoch = epochOf(entries(1, 100));
  const inView = new RowsInView();
  const before = inView.of(epoch, rows(10, 20));
  const after = inView.of(epoch, rows(13, 23));
  expect(after.slice(0, 7).every((each, i) => each === before[i + 3])).toBe(true);
  expect(after.map(({ entry: each }) => each?.seq)).toEqual(rows(14, 24));
  expect(new Set(after.map(({ slot }) => slot))).toEqual(new Set(before.map(({ slot }) => slot)));
});

test('a row that comes to be here, or the one before it, is another', () => {
  const epoch = epochOf([entry(3)]);
  const inView = new RowsInView();
  const [first, second, third] = inView.of(epoch, [1, 2, 3]);
  epoch.take([entry(4)]);
  epoch.append();
  const [same, alike, other] = inView.of(epoch, [1, 2, 3]);
  expect([same === first, alike === second, other === third]).toEqual([true, true, false]);
  expect([third?.entry, third?.before]).toEqual([undefined, entry(3).timestamp]);
  expect(other?.entry?.seq).toBe(4);
});

test('a row of which all is shown now, and a progress that goes on, are others', () => {
  const of = (current: number) => ({ id: 'p', label: 'p', current, total: 9, unit: '', done: false });
  const epoch = epochOf([entry(1), entry(2, { metadata: { progress: of(1) } })]);
  const inView = new RowsInView();
  const [text, bar] = inView.of(epoch, [0, 1]);
  expect(inView.of(epoch, [0, 1])).toEqual([text, bar]);
  epoch.expand(0);
  board.update('test', of(5), Date.now());
  const [whole, further] = inView.of(epoch, [0, 1]);
  expect([text?.expanded, whole?.expanded]).toEqual([false, true]);
  expect([bar?.progress?.current, further?.progress?.current]).toEqual([1, 5]);
});

test('a group that is folded elsewhere is told, although it is one object', () => {
  const mark = (event: string) => ({ metadata: { group: { id: 'g', event, title: 'copy' } } });
  const epoch = epochOf([entry(1, mark('start')), entry(2), entry(3, mark('end')), entry(4)]);
  const inView = new RowsInView();
  const [folded] = inView.of(epoch, [0, 3]);
  epoch.folding.openAround(1);
  const [open] = inView.of(epoch, [0, 1, 2, 3]);
  expect([folded?.group?.folded, open?.group?.folded]).toEqual([true, false]);
});

import { afterEach, expect, test, vi } from 'vitest';

import { NO_FILTER } from '../../src/lib/filter';
import { LogQueries } from '../../src/lib/queries';
import { stubAnswers } from './answers';
import { entries, entry } from './entries';

afterEach(() => vi.unstubAllGlobals());

const open = new AbortController().signal;
const queriesOf = (filter = {}) => new LogQueries('ID', { ...NO_FILTER, ...filter }, open);
const after = (url: URL) => Number(url.searchParams.get('after'));
const limit = (url: URL) => Number(url.searchParams.get('limit'));

test('a page that stops early is asked for its rest', async () => {
  const asked = stubAnswers((url) => ({ entries: entries(after(url) + 1, after(url) + 40), more: true }));
  const rows = await queriesOf().rows(100, 100, open);
  expect(rows.slice(0, 100).map(({ seq }) => seq)).toEqual(entries(101, 200).map(({ seq }) => seq));
  expect(asked.map((url) => [after(url), limit(url)])).toEqual([
    [100, 100],
    [140, 60],
    [180, 20],
  ]);
});

test('a log that has fewer rows than was thought is not asked for ever', async () => {
  const asked = stubAnswers(() => ({ entries: [], more: true }));
  expect(await queriesOf().rows(0, 100, open)).toEqual([]);
  expect(asked).toHaveLength(1);
});

test('a range is read in pages, up to its last entry and no further', async () => {
  const asked = stubAnswers((url) => {
    const to = Math.min(after(url) + limit(url), Number(url.searchParams.get('before')) - 1);
    return { entries: entries(after(url) + 1, to), more: to < 12_000 };
  });
  const range = await queriesOf({ sources: ['git'] }).range(11, 12_000);
  expect([range.length, range[0]?.seq, range.at(-1)?.seq]).toEqual([11_990, 11, 12_000]);
  expect(asked).toHaveLength(3);
  expect(asked.map((url) => url.searchParams.get('source'))).toEqual(['git', 'git', 'git']);
});

test('the nearest entry is the next one, or the one before where none is', async () => {
  const hit = { entry: entry(7), ordinal: 1, total: 1 };
  const asked = stubAnswers((url) => (url.searchParams.get('direction') === 'previous' ? hit : null));
  expect(await queriesOf({ levels: ['ERROR'] }).nearest(9)).toEqual(hit);
  expect(asked.map((url) => url.searchParams.get('from'))).toEqual(['8', '9']);
});

test('a live view is never asked to end, for the server refuses that', () => {
  const live = new URL(queriesOf({ sources: ['git'], until: '2026-01-01T00:00:00Z' }).live(41));
  expect([...live.searchParams]).toEqual([
    ['source', 'git'],
    ['after', '41'],
  ]);
  expect(live.pathname).toBe('/api/tasks/ID/logs/live');
});

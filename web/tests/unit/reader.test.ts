import { afterEach, beforeEach, expect, test, vi } from 'vitest';

import { Address } from '../../src/lib/address.svelte';
import { Problem } from '../../src/lib/api';
import { LogReader } from '../../src/lib/reader.svelte';

let address: Address;

beforeEach(() => {
  vi.stubGlobal('fetch', () => new Promise(() => undefined));
  history.replaceState(null, '', '/tasks/ONE');
  address = new Address();
});

afterEach(() => {
  address.close();
  vi.unstubAllGlobals();
});

const readerOf = () => new LogReader(address, false, () => undefined);

test('a reader that is left does not take Back from the one that came after it', () => {
  const left = readerOf();
  address.go('TWO');
  const reader = readerOf();
  left.close();
  history.replaceState(null, '', '/tasks/TWO?level=ERROR');
  dispatchEvent(new PopStateEvent('popstate'));
  expect(reader.session.filter.levels).toEqual(['ERROR']);
  reader.close();
});

test('an expression may be chosen before its text', () => {
  const reader = readerOf();
  void reader.setText('', true);
  expect([reader.regex, address.path]).toEqual([true, '/tasks/ONE']);
  void reader.setText('', false);
  expect(reader.regex).toBe(false);
  reader.close();
});

test('what cannot be had is told in words', async () => {
  const reader = readerOf();
  await reader.attempt(() => Promise.reject(new Problem(0, 'No answer', 'The service cannot be reached.')));
  expect(reader.notice).toBe('The service cannot be reached.');
  reader.close();
});

test('a reader that is closed opens nothing any more', () => {
  const reader = readerOf();
  reader.close();
  history.replaceState(null, '', '/tasks/ONE?level=ERROR');
  dispatchEvent(new PopStateEvent('popstate'));
  expect(reader.session.filter.levels).toEqual([]);
});

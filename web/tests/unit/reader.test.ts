import { afterEach, beforeEach, expect, test, vi } from 'vitest';

import { Address } from '../../src/lib/address.svelte';
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

test('a reader that is closed opens nothing any more', () => {
  const reader = readerOf();
  reader.close();
  history.replaceState(null, '', '/tasks/ONE?level=ERROR');
  dispatchEvent(new PopStateEvent('popstate'));
  expect(reader.session.filter.levels).toEqual([]);
});

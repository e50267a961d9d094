import { cleanup, fireEvent, render, screen } from '@testing-library/svelte';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';

import { Address } from '../../src/lib/address.svelte';
import { LogReader } from '../../src/lib/reader.svelte';
import SearchBox from '../../src/parts/SearchBox.svelte';

let address: Address;
let reader: LogReader;

beforeEach(async () => {
  vi.stubGlobal('fetch', () => new Promise(() => undefined));
  history.replaceState(null, '', '/tasks/ONE');
  address = new Address();
  reader = new LogReader(address, false, () => undefined);
  render(SearchBox, { reader });
  await fireEvent.input(screen.getByRole('textbox'), { target: { value: '(a' } });
});

afterEach(() => {
  cleanup();
  reader.close();
  address.close();
  vi.unstubAllGlobals();
});

test('what was typed just now is looked for as an expression', async () => {
  await fireEvent.click(screen.getByRole('button', { name: 'Regular expression' }));
  expect([reader.text, reader.regex]).toEqual(['(a', true]);
});

test('of what was typed just now only the lines are left', async () => {
  await fireEvent.click(screen.getByRole('button', { name: 'Only matching lines' }));
  await vi.waitFor(() => expect(address.filter.search).toEqual(['(a']));
});

import { cleanup, fireEvent, render, within } from '@testing-library/svelte';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';

import { Address } from '../../src/lib/address.svelte';
import { LogReader } from '../../src/lib/reader.svelte';
import SearchBox from '../../src/parts/SearchBox.svelte';

let address: Address;
let reader: LogReader;
// Other tests leave their parts in the document.
let box: ReturnType<typeof within>;

beforeEach(async () => {
  vi.stubGlobal('fetch', () => new Promise(() => undefined));
  history.replaceState(null, '', '/tasks/ONE');
  address = new Address();
  reader = new LogReader(address, false, () => undefined);
  box = within(render(SearchBox, { reader }).container);
  await fireEvent.input(box.getByRole('textbox'), { target: { value: '(a' } });
});

afterEach(() => {
  cleanup();
  reader.close();
  address.close();
  vi.unstubAllGlobals();
});

test('what was typed just now is looked for as an expression', async () => {
  await fireEvent.click(box.getByRole('button', { name: 'Regular expression' }));
  expect([reader.text, reader.regex]).toEqual(['(a', true]);
});

test('of what was typed just now only the lines are left', async () => {
  await fireEvent.click(box.getByRole('button', { name: 'Only matching lines' }));
  await vi.waitFor(() => expect(address.filter.search).toEqual(['(a']));
});

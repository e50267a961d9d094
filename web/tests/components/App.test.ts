import { render, screen } from '@testing-library/svelte';
import { expect, test, vi } from 'vitest';

import App from '../../src/App.svelte';

test('the page names itself', () => {
  vi.stubGlobal('fetch', () => new Promise(() => undefined));
  render(App);
  expect(screen.getByRole('link', { name: 'taskd' }).getAttribute('href')).toBe('/');
});

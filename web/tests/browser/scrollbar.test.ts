/** The scrollbar, taken by the mouse: the one way of scrolling that says where to, not how far. */
import type { Browser, Page } from 'playwright-core';

import { launchChromium } from './chromium.mjs';
import { expect, test as base } from './harness.ts';
import { log, seen, seqs, settled, shows } from './look.ts';

const HUGE = 10_000_000;

/** Without a window Chromium shows no scrollbars, unless it is told to. */
const test = base.extend<{ browser: Browser }>({
  browser: [
    // eslint-disable-next-line no-empty-pattern -- vitest reads from it that nothing is needed
    async ({}, use) => {
      const browser = await launchChromium([], ['--hide-scrollbars']);
      await use(browser);
      await browser.close();
    },
    { scope: 'file' },
  ],
});

interface Bar {
  x: number;
  /** Where the bar's lower end is, and how long all of its way is. */
  bottom: number;
  length: number;
}

async function barOf(page: Page): Promise<Bar> {
  return log(page).evaluate((element) => {
    const { right, bottom, height } = element.getBoundingClientRect();
    const width = element.getBoundingClientRect().width - element.clientWidth;
    return { x: right - width / 2, bottom, length: height };
  });
}

/** A log of ten million lines, as the server would tell of it. */
async function pretend(page: Page): Promise<void> {
  const entry = (seq: number) => ({
    ...{ seq, timestamp: '2026-01-01T00:00:00.000000Z', level: 'INFO', source: 'huge' },
    ...{ message: `line ${seq}`, metadata: null },
  });
  await page.route(/\/api\/tasks\/[^/]+\/logs(\/outline)?\?/, async (route) => {
    const query = new URL(route.request().url()).searchParams;
    const tail = Number(query.get('tail') ?? 0);
    const after = tail ? HUGE - tail : Number(query.get('after') ?? 0);
    const count = Math.min(tail || Number(query.get('limit') ?? 0), HUGE - after);
    const entries = Array.from({ length: count }, (_, i) => entry(after + 1 + i));
    const rest = { total: HUGE, last_seq: HUGE, more: after + count < HUGE, ended: true };
    const counted = { by_level: { INFO: HUGE }, by_source: { huge: HUGE }, bins: [], anchors: [] };
    await route.fulfill({ json: { entries, ...rest, ...counted } });
  });
}

/** Drag half the way up, in steps, each of which moves the view; the first row in it at last. */
async function drag(page: Page, { x, bottom, length }: Bar, steps: number): Promise<number> {
  let [first = 0] = await seqs(page);
  for (let n = 1; n <= steps; n++) {
    const before = first;
    let moves = 0;
    // A hand is never quite still. Chromium drops a single move, or applies it twice, if a frame is late.
    const tremble = async (): Promise<number> => {
      await page.mouse.move(x + (moves++ % 2), bottom - 20 - (n * length) / (2 * steps));
      [first = before] = (await settled(page)).map(({ seq }) => seq);
      return first;
    };
    await expect.poll(tremble).toBeLessThan(before);
    if (n === steps) await tremble();
  }
  return first;
}

test('taking the scrollbar pauses, and nothing drifts while it is held and lines arrive', async ({
  open,
  server,
}) => {
  // It floods until it is cancelled, however long the rest takes.
  const id = await server.submit('rate', { count: 9_000_000, rate: 3_000 });
  await server.reached(id, 3_000);
  const page = await open(`/tasks/${id}`);
  await page.getByText('following', { exact: true }).waitFor();
  await page.getByRole('search').waitFor();
  const bar = await barOf(page);
  await page.mouse.move(bar.x, bar.bottom - 20);
  await page.mouse.down();
  await page.getByText('paused', { exact: true }).waitFor();
  const held = await settled(page);
  await server.reached(id, (held.at(-1)?.seq ?? 0) + 6_000);
  expect(await seen(page)).toEqual(held);
  await drag(page, bar, 8);
  const there = await settled(page);
  await server.reached(id, (await server.task(id)).last_seq + 6_000);
  expect(await seen(page)).toEqual(there);
  await page.mouse.up();
  expect(await settled(page)).toEqual(there);
  await page.getByRole('button', { name: /new lines/ }).click();
  await page.getByText('following', { exact: true }).waitFor();
  await server.fetch(`/api/tasks/${id}/cancel`, { method: 'POST' });
  const { last_seq } = await server.ended(id);
  await shows(page, last_seq);
});

test('in a log that no browser could hold it goes where it is dragged to, and stays there', async ({
  open,
  server,
}) => {
  const id = await server.run('say', { entries: [{ message: 'hello' }] });
  const page = await open('/');
  await pretend(page);
  await page.goto(`/tasks/${id}`);
  await shows(page, HUGE);
  await page.getByRole('search').waitFor();
  const bar = await barOf(page);
  await page.mouse.move(bar.x, bar.bottom - 20);
  await page.mouse.down();
  const first = await drag(page, bar, 8);
  // The hand is half the way up, and so is the view.
  expect(first).toBeGreaterThan(0.4 * HUGE);
  expect(first).toBeLessThan(0.6 * HUGE);
  const there = await settled(page);
  await page.mouse.up();
  expect(await settled(page)).toEqual(there);
  await page.mouse.move(bar.x, bar.bottom - 20 - bar.length / 2);
  await page.mouse.down();
  await page.mouse.move(bar.x, bar.bottom + 100, { steps: 5 });
  await page.mouse.up();
  await shows(page, HUGE);
});

/**
 * What the browser tests stand on: a real server, a real browser, and a page whose every fault is told.
 *
 *     import { expect, test } from './harness.ts';
 *
 *     test('a reader finds the end', async ({ server, open }) => {
 *       const id = await server.run('say', { entries: [{ message: 'hello' }] });
 *       const page = await open(`/tasks/${id}`);
 *       ...
 *     });
 *
 * `server` and `browser` live as long as the file; each `open` is a fresh browser context. When a
 * test ends, anything that its pages wrote to the console as a warning or error, or threw, fails it,
 * unless `faults.allow(/pattern/)` said before that it may happen.
 */
import { mkdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';

import type { AxeResults } from 'axe-core';
import type { Browser, BrowserContext, BrowserContextOptions, Page } from 'playwright-core';
import { test as base, expect } from 'vitest';

import { launchChromium } from './chromium.mjs';
import { Served } from './served.mjs';

export { expect, Served };

/** Sizes at which the page is looked at. */
export const DESK = { width: 1400, height: 900 };
export const PHONE = { width: 390, height: 844 };
export const TABLET = { width: 900, height: 900 };

/** What `open` may be told beside the address; the rest as playwright has it. */
export type Look = Omit<BrowserContextOptions, 'baseURL'>;
export type Open = (path: string, look?: Look) => Promise<Page>;

/** What pages wrote to the console as a warning or error, or threw. */
export class Faults {
  readonly told: string[] = [];
  readonly #allowed: RegExp[] = [];

  /** What matches may happen in this test: a lost connection, say, which Chromium tells of by itself. */
  allow(pattern: RegExp): void {
    this.#allowed.push(pattern);
  }

  watch(page: Page): void {
    page.on('pageerror', (error) => this.told.push(`thrown: ${error.stack ?? error.message}`));
    page.on('console', (message) => {
      if (['error', 'warning'].includes(message.type()))
        this.told.push(`${message.type()}: ${message.text()}`);
    });
  }

  get unexpected(): string[] {
    return this.told.filter((told) => !this.#allowed.some((pattern) => pattern.test(told)));
  }
}

interface Fixtures {
  browser: Browser;
  server: Served;
  faults: Faults;
  open: Open;
}

export const test = base.extend<Fixtures>({
  browser: [
    // eslint-disable-next-line no-empty-pattern -- vitest reads from it that nothing is needed
    async ({}, use) => {
      const browser = await launchChromium();
      await use(browser);
      await browser.close();
    },
    { scope: 'file' },
  ],
  server: [
    // eslint-disable-next-line no-empty-pattern
    async ({}, use) => {
      const server = new Served();
      try {
        await use(await server.start());
      } finally {
        await server.remove();
      }
    },
    { scope: 'file' },
  ],
  // eslint-disable-next-line no-empty-pattern
  faults: async ({}, use) => {
    const faults = new Faults();
    await use(faults);
    expect(faults.unexpected, 'what the page told the console').toEqual([]);
  },
  open: async ({ browser, server, faults, task, onTestFailed }, use) => {
    const contexts: BrowserContext[] = [];
    onTestFailed(() => picture(contexts, task.name));
    await use(async (path, look = {}) => {
      const context = await browser.newContext({
        viewport: DESK,
        colorScheme: 'dark',
        reducedMotion: 'reduce',
        locale: 'en-GB',
        timezoneId: 'UTC',
        ...look,
        baseURL: server.url,
      });
      contexts.push(context);
      const page = await context.newPage();
      page.setDefaultTimeout(15_000);
      faults.watch(page);
      await page.goto(path);
      return page;
    });
    await Promise.all(contexts.map((context) => context.close()));
  },
});

/** What the pages of a failed test look like, into `.failed/`. */
async function picture(contexts: BrowserContext[], name: string): Promise<void> {
  const folder = fileURLToPath(new URL('.failed', import.meta.url));
  mkdirSync(folder, { recursive: true });
  const pages = contexts.flatMap((context) => context.pages());
  const file = name.replaceAll(/[^a-z0-9]+/gi, '-');
  await Promise.all(pages.map((page, n) => page.screenshot({ path: `${folder}/${file}-${n}.png` })));
}

const axeSource = readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

/** What axe finds wrong with the page as it is now: the rule, and where. Expect it to be `[]`. */
export async function axe(page: Page): Promise<string[]> {
  // Evaluated by the debugger, so the page's own policy, which forbids it, stays as it is.
  await page.evaluate(await axeSource);
  const results = await page.evaluate<AxeResults>('axe.run(document, { resultTypes: ["violations"] })');
  return results.violations.flatMap(({ id, help, nodes }) =>
    nodes.map((node) => `${id} (${help}): ${node.target.join(' ')}: ${node.failureSummary ?? ''}`),
  );
}

/** What a person has chosen for all pages: less motion, or a few colours of their own. */
import type { Page } from 'playwright-core';

import { expect, PHONE, test } from './harness.ts';
import { drawn, focused, ground, log, message, row, shows } from './look.ts';

const lines = (count: number) =>
  Array.from({ length: count }, (_, i) => ({ message: `line number ${i + 1}` }));

declare global {
  interface Window {
    moved: string[];
  }
}

/** From the next navigation on, every animation and transition that begins is written down. */
async function watchMotion(page: Page): Promise<void> {
  await page.addInitScript(() => {
    window.moved = [];
    const told = (event: Event) =>
      window.moved.push(`${event.type} of ${(event.target as Element).className}`);
    for (const type of ['animationstart', 'transitionrun']) addEventListener(type, told, true);
  });
}

/** Look at a task that runs, from its first moment on, and open and close what slides. */
async function lookAround(page: Page, address: string): Promise<void> {
  // It takes a moment to come, so that the wait for it is seen.
  let held: (() => void) | undefined;
  await page.route(/\/logs\?tail=/, (route) => {
    held = () => void route.continue();
  });
  await page.goto(address);
  await page.getByRole('status').getByText('Loading the log').waitFor();
  await expect
    .poll(() =>
      page.getByText('Loading the log').evaluate((element) => {
        const [wait] = element.parentElement?.getAnimations() ?? [];
        return wait?.playState ?? 'none';
      }),
    )
    .toMatch(/finished|none/);
  held?.();
  await shows(page, 4);
  await page.getByRole('button', { name: 'Tasks' }).click();
  await focused(page.getByRole('link', { name: 'taskd', exact: true }));
  await page.keyboard.press('Escape');
  await log(page).press('k');
  await page.getByRole('button', { name: 'Follow' }).click();
  await drawn(page);
}

test.for(['reduce', 'no-preference'] as const)(
  'who wants less motion sees none: %s',
  async (reducedMotion, { open, server }) => {
    const gate = server.gate(reducedMotion);
    const id = await server.submit('say', { entries: lines(3), gate });
    const page = await open('/', { reducedMotion, viewport: PHONE, hasTouch: true });
    await watchMotion(page);
    await lookAround(page, `/tasks/${id}`);
    const moved = await page.evaluate(() => window.moved);
    if (reducedMotion === 'reduce') {
      expect(moved).toEqual([]);
      expect(await page.evaluate(() => document.getAnimations().length)).toBe(0);
      const { behavior } = await page.evaluate(() => {
        const all = [document.documentElement, ...document.querySelectorAll('*')];
        return { behavior: [...new Set(all.map((each) => getComputedStyle(each).scrollBehavior))] };
      });
      expect(behavior).toEqual(['auto']);
    } else {
      // There is something to be seen by who wants it: the wait, a task that runs, the drawer.
      expect(moved.join('\n')).toMatch(/animationstart of loading/);
      expect(moved.join('\n')).toMatch(/transitionrun of rail/);
    }
    server.open(reducedMotion);
    await server.ended(id);
  },
);

test.for(['dark', 'light'] as const)(
  'with forced colours a mark and what is pressed are told apart, %s',
  async (colorScheme, { open, server }) => {
    const id = await server.run('say', { entries: lines(20) });
    const page = await open(`/tasks/${id}?find=number`, { forcedColors: 'active', colorScheme });
    await shows(page, 22);
    const row = message(page, 12);
    await expect.poll(() => row.locator('mark').count()).toBe(1);
    expect(await ground(row.locator('mark'))).not.toBe(await ground(log(page)));
    const wrap = page.getByRole('button', { name: 'Wrap lines' });
    const free = await ground(wrap);
    await wrap.click();
    await expect.poll(() => wrap.getAttribute('aria-pressed')).toBe('true');
    await log(page).hover();
    expect(await ground(wrap)).not.toBe(free);
  },
);

test.for(['dark', 'light'] as const)(
  'with forced colours a progress, the levels chosen and the line selected are told apart, %s',
  async (colorScheme, { open, server }) => {
    const gate = server.gate(colorScheme);
    const id = await server.submit('steps', { total: 10, gate });
    const page = await open(`/tasks/${id}`, { forcedColors: 'active', colorScheme });
    for (const place of [page.getByLabel('Running progress'), log(page), page.getByRole('navigation')]) {
      const bar = place.getByRole('progressbar').first();
      await expect.poll(() => bar.evaluate((each) => (each as HTMLProgressElement).value)).toBe(0.5);
      expect(await ground(bar, [0.1, 0.4])).not.toBe(await ground(bar, [0.6, 0.9]));
    }
    await page.getByRole('button', { name: /^Info/ }).click();
    await expect.poll(() => new URL(page.url()).search).toContain('level=INFO');
    await log(page).hover();
    const chip = (name: RegExp) => ground(page.getByRole('button', { name }));
    expect(await chip(/^Info/)).not.toBe(await chip(/^Debug/));
    await message(page, 1).click();
    const edge = (seq: number) => ground(row(page, seq), [0.9999, 1]);
    await expect.poll(async () => (await edge(1)) === (await edge(2))).toBe(false);
    server.open(colorScheme);
    await server.ended(id);
  },
);

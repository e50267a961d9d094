/** What tests of the log look at: rows in view, where they are, and where one is. */
import type { Locator, Page } from 'playwright-core';
import { expect } from 'vitest';

export interface Seen {
  seq: number;
  /** Pixels below the top of the log. */
  y: number;
}

export function log(page: Page): Locator {
  return page.getByRole('log');
}

export function row(page: Page, seq: number): Locator {
  return page.locator(`[data-seq="${seq}"]`);
}

export function message(page: Page, seq: number): Locator {
  return row(page, seq).locator('.message');
}

/** The rows that are whole in view, from the top. */
export function seen(page: Page): Promise<Seen[]> {
  return log(page).evaluate((element) => {
    const { top, bottom } = element.getBoundingClientRect();
    return [...element.querySelectorAll<HTMLElement>('[data-seq]')]
      .map((node) => ({ node, box: node.getBoundingClientRect() }))
      .filter(({ box }) => box.top >= top - 1 && box.bottom <= bottom + 1)
      .map(({ node, box }) => ({ seq: Number(node.dataset.seq), y: Math.round((box.top - top) * 10) / 10 }))
      .sort((a, b) => a.seq - b.seq);
  });
}

export async function seqs(page: Page): Promise<number[]> {
  return (await seen(page)).map(({ seq }) => seq);
}

/** The rows of which anything is in view, from the top. */
export function touched(page: Page): Promise<number[]> {
  return log(page).evaluate((element) => {
    const { top, bottom } = element.getBoundingClientRect();
    return [...element.querySelectorAll<HTMLElement>('[data-seq]')]
      .filter((node) => node.getBoundingClientRect().bottom > top + 1)
      .filter((node) => node.getBoundingClientRect().top < bottom - 1)
      .map((node) => Number(node.dataset.seq));
  });
}

/** Wait until the log shows line `seq`, whole. */
export async function shows(page: Page, seq: number): Promise<void> {
  await expect.poll(() => seqs(page)).toContain(seq);
}

/** Wait until nothing has moved for several looks, as after a smooth scroll; the rows in view. */
export async function settled(page: Page): Promise<Seen[]> {
  let [before, same] = [await seen(page), 0];
  await expect
    .poll(async () => {
      const now = await seen(page);
      same = JSON.stringify(now) === JSON.stringify(before) ? same + 1 : 0;
      before = now;
      return same;
    })
    .toBeGreaterThan(5);
  return before;
}

/** Wait until `locator` has the focus, and so what is typed. */
export async function focused(locator: Locator): Promise<void> {
  await expect.poll(() => locator.evaluate((element) => element === document.activeElement)).toBe(true);
}

/** Turn the wheel over the log. */
export async function wheel(page: Page, px: number): Promise<void> {
  const box = await log(page).boundingBox();
  if (!box) throw new Error('the log is not shown');
  await page.mouse.move(box.x + box.width / 2, box.y + box.height / 2);
  await page.mouse.wheel(0, px);
}

/** Two frames: what was asked for is drawn. */
export function drawn(page: Page): Promise<void> {
  return page.evaluate(
    () => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(() => resolve()))),
  );
}

/** The colour that most of `locator` has on the screen, from `from` to `to` of its width. */
export async function ground(locator: Locator, [from, to] = [0, 1]): Promise<string> {
  const picture = await locator.screenshot();
  // Read on a page without a policy: ours may not take a picture from text.
  const reader = await locator.page().context().newPage();
  const colour = await reader.evaluate(
    async ({ base64, left, right }) => {
      const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
      const bitmap = await createImageBitmap(new Blob([bytes]));
      const x = Math.floor(bitmap.width * left);
      const width = Math.max(1, Math.floor(bitmap.width * (right - left)));
      const canvas = new OffscreenCanvas(width, bitmap.height);
      const drawing = canvas.getContext('2d');
      drawing?.drawImage(bitmap, -x, 0);
      const { data } = drawing?.getImageData(0, 0, width, bitmap.height) ?? { data: [] };
      const counts = new Map<string, number>();
      for (let at = 0; at < data.length; at += 4) {
        const seen = `${data[at]} ${data[at + 1]} ${data[at + 2]}`;
        counts.set(seen, (counts.get(seen) ?? 0) + 1);
      }
      return [...counts].sort((a, b) => b[1] - a[1])[0]?.[0] ?? '';
    },
    { base64: picture.toString('base64'), left: from ?? 0, right: to ?? 1 },
  );
  await reader.close();
  return colour;
}

import { fileURLToPath } from 'node:url';

import type { Page } from 'playwright-core';

import { expect, PHONE, Served, test } from './harness.ts';
import { log, shows } from './look.ts';

const HOSTILE = fileURLToPath(new URL('hostile', import.meta.url));

/** What is in the document that should not be: elements of markup, addresses that run, characters that act. */
function harm(page: Page): Promise<string[]> {
  return page.evaluate(() => {
    const acting = /[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]/; // eslint-disable-line no-control-regex
    const found = [...document.querySelectorAll('img, iframe, object, embed, base, script:not([src])')].map(
      (element) => element.outerHTML,
    );
    for (const link of document.querySelectorAll('a'))
      if (!/^https?:$/.test(link.protocol)) found.push(link.outerHTML);
    for (const element of document.querySelectorAll('[title], [aria-label], [placeholder]'))
      for (const name of ['title', 'aria-label', 'placeholder'])
        if (acting.test(element.getAttribute(name) ?? '')) found.push(`${name} of ${element.outerHTML}`);
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
      const text = texts.currentNode;
      // Where it is named it is alone, isolated and has no size.
      if (acting.test(text.textContent ?? '') && !text.parentElement?.matches('.code'))
        found.push(`${text.parentElement?.outerHTML}`);
    }
    for (const code of document.querySelectorAll('.code')) {
      const { unicodeBidi, fontSize } = getComputedStyle(code);
      if (unicodeBidi !== 'isolate' || fontSize !== '0px') found.push(`${code.outerHTML} acts`);
    }
    if ('owned' in window) found.push('a script ran');
    return found;
  });
}

test('whatever a plugin says, wherever it says it, is text', async ({ browser, faults }) => {
  faults.allow(/status of (404|422)/); // no match beyond the last; params that are not valid
  const server = await new Served('--plugins', HOSTILE).start();
  const context = await browser.newContext({ baseURL: server.url, viewport: { width: 1400, height: 1600 } });
  try {
    const id = await server.run('hostile', { words: '<b>\u202e' });
    const entries = await server.entries(id);
    const page = await context.newPage();
    faults.watch(page);
    const dialogs: string[] = [];
    page.on('dialog', (dialog) => {
      dialogs.push(dialog.message());
      void dialog.dismiss();
    });
    await page.goto(`/tasks/${id}#L1`);
    await shows(page, 1);
    await shows(page, entries.length);
    expect(await page.getByText('<img src=x onerror=alert(1)>').count()).toBeGreaterThan(3);
    // What is copied is what was said; an escape is not, and leads nowhere.
    const texts = await log(page).locator('.message').allTextContents();
    expect(texts).toContain('<script>window.owned=1</script>');
    expect(texts).toContain('click');
    expect(texts.some((text) => text.startsWith('\u202aa\u202bb\u202cc\u202dd\u202etxt.exe'))).toBe(true);
    // The detail of what has fields of its own: the exception with its frames, a progress, a group.
    await log(page).focus();
    await page.keyboard.press('x');
    for (const { seq } of entries.filter(({ metadata }) => metadata)) {
      await page.evaluate((line) => (location.hash = `#L${line}`), seq);
      await page.getByRole('heading', { name: `Line ${seq}`, exact: true }).waitFor();
      await page
        .locator('aside details')
        .evaluateAll((all) => all.forEach((each) => ((each as HTMLDetailsElement).open = true)));
      expect(await harm(page), `line ${seq}`).toEqual([]);
    }
    await page.getByRole('button', { name: 'Detail', exact: true }).click();
    await page.getByLabel('Detail of the task').getByText('Params').waitFor();
    await page.getByText('Sources', { exact: true }).click();
    await page.getByRole('checkbox').first().waitFor();
    expect(await harm(page), 'the task and its sources').toEqual([]);
    await page.setViewportSize(PHONE);
    await page.reload();
    await log(page).locator('[data-seq]').nth(3).waitFor();
    expect(await harm(page), 'on a phone').toEqual([]);
    const bad = encodeURIComponent('<b>\u202e');
    await page.goto(`/tasks/${id}?source=${bad}&exclude=${bad}&meta.${bad}=1&find=${bad}`);
    await page.getByRole('heading', { name: 'No line matches' }).waitFor();
    expect(await harm(page), 'filters').toEqual([]);
    await page.goto('/');
    await page.getByRole('button', { name: /^hostile/ }).click();
    await page.locator('form input').first().fill('0');
    await page.getByRole('button', { name: 'Start hostile' }).click();
    await page.locator('[aria-invalid="true"]').first().waitFor();
    expect(await harm(page), 'the form').toEqual([]);
    expect(dialogs).toEqual([]);
  } finally {
    await context.close();
    await server.remove();
  }
});

import { expect, test } from './harness.ts';
import { focused, log, message, row, seen, seqs, settled, shows, wheel } from './look.ts';

const lines = (count: number, from = 1) =>
  Array.from({ length: count }, (_, i) => ({ message: `line number ${from + i}` }));

test('a running task opens at its end and follows', async ({ open, server }) => {
  const gate = server.gate('follow');
  const id = await server.submit('say', { entries: lines(300), gate, then: lines(50, 301) });
  await server.reached(id, 301);
  const page = await open(`/tasks/${id}`);
  await shows(page, 301);
  await page.getByText('following', { exact: true }).waitFor();
  server.open('follow');
  const { last_seq } = await server.ended(id);
  await shows(page, last_seq);
});

test('the wheel pauses, nothing moves while lines arrive, and the pill returns to the end', async ({
  open,
  server,
}) => {
  // It floods until it is cancelled, however long the rest takes.
  const id = await server.submit('rate', { count: 9_000_000, rate: 3_000 });
  const page = await open(`/tasks/${id}`);
  await expect.poll(async () => (await seqs(page)).at(-1)).toBeGreaterThan(1_000);
  await wheel(page, -400);
  await page.getByText('paused', { exact: true }).waitFor();
  const before = await settled(page);
  await server.reached(id, (before.at(-1)?.seq ?? 0) + 9_000);
  expect(await seen(page)).toEqual(before);
  await page.getByRole('button', { name: /new lines/ }).click();
  await page.getByText('following', { exact: true }).waitFor();
  await server.fetch(`/api/tasks/${id}/cancel`, { method: 'POST' });
  const { last_seq } = await server.ended(id);
  await shows(page, last_seq);
});

test('a scroll that the page has not heard of yet is not undone by lines that arrive', async ({
  open,
  server,
}) => {
  const id = await server.submit('rate', { count: 9_000_000, rate: 3_000 });
  await server.reached(id, 9_000);
  const page = await open(`/tasks/${id}`);
  await page.getByText('following', { exact: true }).waitFor();
  await page.keyboard.press('g');
  await shows(page, 1);
  // As a script or a tool of the browser scrolls: the page hears of it a frame later.
  const top = await log(page).evaluate(
    (element) =>
      new Promise<number>((resolve) => {
        let frames = 0;
        const frame = () => {
          if (frames++ === 60) return resolve(element.scrollTop);
          element.scrollTop += 100;
          requestAnimationFrame(frame);
        };
        requestAnimationFrame(frame);
      }),
  );
  expect(top).toBe(6_000);
  await shows(page, 302);
  await server.fetch(`/api/tasks/${id}/cancel`, { method: 'POST' });
  await server.ended(id);
});

test('the columns stay apart when line numbers get longer', async ({ open, server }) => {
  const gate = server.gate('longer');
  const id = await server.submit('say', { entries: lines(20), gate, then: lines(1_200, 21) });
  const page = await open(`/tasks/${id}`);
  await shows(page, 21);
  const start = async (seq: number) => (await message(page, seq).boundingBox())?.x;
  server.open('longer');
  const { last_seq } = await server.ended(id);
  await shows(page, last_seq);
  await expect.poll(() => row(page, last_seq).locator('.seq').textContent()).toBe(`${last_seq} `);
  const long = await start(last_seq);
  await page.keyboard.press('g');
  await shows(page, 1);
  await expect.poll(() => start(1)).toBe(long);
});

test('each way of looking back pauses, and G follows again', async ({ open, server }) => {
  const gate = server.gate('ways');
  const id = await server.submit('say', { entries: lines(300), gate });
  const page = await open(`/tasks/${id}`, { hasTouch: true });
  await shows(page, 301);
  const told = () => page.locator('footer').textContent();
  const ways: Record<string, () => Promise<unknown>> = {
    k: () => page.keyboard.press('k'),
    PageUp: () => page.keyboard.press('PageUp'),
    ArrowUp: () => log(page).press('ArrowUp'),
    'a selection': () => message(page, 300).selectText(),
    'a jump': () => page.keyboard.press('g'),
    touch: () =>
      log(page).evaluate((element) => {
        for (const [type, clientY] of [
          ['touchstart', 300],
          ['touchmove', 340],
        ] as const) {
          const touches = [new Touch({ identifier: 1, target: element, clientY })];
          element.dispatchEvent(new TouchEvent(type, { touches, bubbles: true }));
        }
      }),
  };
  for (const [way, look] of Object.entries(ways)) {
    await look();
    await expect.poll(told, { message: way }).toContain('paused');
    await page.evaluate(() => getSelection()?.removeAllRanges());
    await page.keyboard.press('G');
    await expect.poll(told, { message: way }).toContain('following');
    await shows(page, 301);
  }
  server.open('ways');
  await server.ended(id);
});

test('Control+F in the search field is the browser’s own', async ({ open, server }) => {
  const id = await server.run('say', { entries: lines(3) });
  const page = await open(`/tasks/${id}`);
  await shows(page, 4);
  // Told after the page has dealt with it.
  await page.evaluate(() => {
    const ours: boolean[] = [];
    Object.assign(window, { ours });
    addEventListener('keydown', (event) => event.key === 'f' && ours.push(event.defaultPrevented));
  });
  await page.keyboard.press('Control+f');
  await focused(page.getByLabel('Search the whole log'));
  await page.keyboard.press('Control+f');
  await expect
    .poll(() => page.evaluate(() => (window as unknown as { ours: boolean[] }).ours))
    .toEqual([true, false]);
});

test('following a flood ends by what a person does, not by how far the end is', async ({ open, server }) => {
  const id = await server.submit('rate', { count: 30_000, rate: 10_000 });
  const page = await open(`/tasks/${id}`);
  await log(page).waitFor();
  const { last_seq } = await server.ended(id);
  await shows(page, last_seq);
  expect(await page.getByRole('button', { name: /new line/ }).count()).toBe(0);
});

test('a failed task opens at its first error', async ({ open, server }) => {
  const entries = [...lines(200), { message: 'disk is full', level: 'ERROR' }, ...lines(400, 201)];
  const id = await server.run('say', { entries, fail: 'nothing can be written' });
  const page = await open(`/tasks/${id}`);
  await shows(page, 202);
  await expect.poll(() => message(page, 202).textContent()).toBe('disk is full');
});

test('search finds lines that were never loaded, counts them and goes round', async ({
  open,
  server,
  faults,
}) => {
  faults.allow(/status of 404/); // there is no match beyond the last
  const entries = lines(3_000).map((entry, i) =>
    i === 99 || i === 1_499 || i === 2_899 ? { message: `the Straße is ${i + 1}` } : entry,
  );
  const id = await server.run('say', { entries });
  const page = await open(`/tasks/${id}`);
  await shows(page, 3_002);
  await log(page).press('Control+f');
  await focused(page.getByLabel('Search the whole log'));
  await page.keyboard.type('STRASSE');
  const told = page.locator('output');
  await expect.poll(() => told.textContent()).toBe('3 / 3');
  await shows(page, 2_901);
  await expect.poll(() => message(page, 2_901).locator('mark').textContent()).toBe('Straße');
  await page.keyboard.press('Enter');
  await expect.poll(() => told.textContent()).toBe('1 / 3');
  await shows(page, 101);
  await log(page).focus();
  await page.keyboard.press('n');
  await expect.poll(() => told.textContent()).toBe('2 / 3');
  await shows(page, 1_501);
  await page.keyboard.press('N');
  await expect.poll(() => told.textContent()).toBe('1 / 3');
  await page.keyboard.press('o');
  await page.getByText('3 of 3,002 lines').waitFor();
  expect(new URL(page.url()).searchParams.get('search')).toBe('STRASSE');
});

test('a bad expression is told, and does no harm', async ({ open, server, faults }) => {
  faults.allow(/status of 400/);
  const id = await server.run('say', { entries: lines(5) });
  const page = await open(`/tasks/${id}?find=(&find_regex=true`);
  await page.getByRole('search').getByRole('alert').waitFor();
  await shows(page, 3);
});

test('only matching lines, and back to their context at the same pixel', async ({ open, server }) => {
  const entries = lines(2_500).map((entry, i) => (i % 50 === 0 ? { message: `needle ${i}` } : entry));
  const id = await server.run('say', { entries });
  const page = await open(`/tasks/${id}?search=needle`);
  await shows(page, 2_452);
  expect(await seqs(page)).not.toContain(2_451);
  await message(page, 2_002).click();
  const before = (await settled(page)).find(({ seq }) => seq === 2_002);
  await page.keyboard.press('c');
  await shows(page, 2_003);
  expect((await settled(page)).find(({ seq }) => seq === 2_002)).toEqual(before);
  expect(new URL(page.url()).searchParams.get('search')).toBeNull();
  // What was searched for is still marked, but leaves the other lines.
  await expect.poll(() => message(page, 2_002).locator('mark').textContent()).toBe('needle');
});

test('filters live in the address, and come back with reload and Back', async ({ open, server }) => {
  const entries = [
    ...lines(40).map((entry) => ({ ...entry, source: 'git' })),
    ...lines(10).map((entry) => ({ ...entry, source: 'db', level: 'WARNING' })),
  ];
  const id = await server.run('say', { entries });
  const page = await open(`/tasks/${id}`);
  await shows(page, 52);
  await page.getByRole('button', { name: /^Warning/ }).click();
  await expect.poll(() => page.url()).toContain('level=WARNING');
  await page.getByText('10 of 52 lines').waitFor();
  await page.getByText('Sources').click();
  await page.getByRole('checkbox', { name: 'db 10' }).check();
  await expect.poll(() => page.url()).toContain('source=db');
  await page.reload();
  await page.getByText('10 of 52 lines').waitFor();
  await page.goBack();
  await expect.poll(() => page.url()).not.toContain('source=db');
  await page.goBack();
  await page.getByText('52 lines', { exact: true }).waitFor();
});

test('Back takes a filter back also in a task that was come to from another', async ({ open, server }) => {
  const [one, other] = [
    await server.run('say', { entries: lines(3) }),
    await server.run('rate', { count: 9 }),
  ];
  const page = await open(`/tasks/${one}`);
  await shows(page, 4);
  await page.getByRole('navigation').locator(`a[href="/tasks/${other}"]`).click();
  await page.getByRole('heading', { name: 'rate' }).waitFor();
  await page.getByRole('button', { name: /^Warning/ }).click();
  await page.getByText('1 of 11 lines').waitFor();
  await page.goBack();
  await page.getByText('11 lines', { exact: true }).waitFor();
});

test('a permalink opens at its lines, and selecting lines makes one', async ({ open, server }) => {
  const id = await server.run('say', { entries: lines(5_000) });
  const page = await open(`/tasks/${id}#L1200-L1203`);
  await shows(page, 1_200);
  await expect.poll(() => page.locator('.row.selected').count()).toBe(4);
  await row(page, 1_210).locator('.seq').click();
  await row(page, 1_214)
    .locator('.seq')
    .click({ modifiers: ['Shift'] });
  await expect.poll(() => new URL(page.url()).hash).toBe('#L1210-L1214');
  await page.getByText('5 selected').waitFor();
});

test('errors are stepped through, also where they are not loaded', async ({ open, server }) => {
  const entries = lines(6_000).map((entry, i) =>
    i % 2_000 === 1_000 ? { ...entry, level: 'ERROR', message: `bad ${i}` } : entry,
  );
  const id = await server.run('say', { entries });
  const page = await open(`/tasks/${id}`);
  await shows(page, 6_002);
  await log(page).focus();
  await page.keyboard.press('E');
  await shows(page, 5_002);
  await page.getByRole('button', { name: /Error 3 \/ 3/ }).waitFor();
  await page.keyboard.press('E');
  await page.getByRole('button', { name: /Error 2 \/ 3/ }).waitFor();
  await page.getByRole('button', { name: 'Previous error' }).click();
  await shows(page, 1_002);
  await page.getByRole('button', { name: /Error 1 \/ 3/ }).waitFor();
});

test('progress is one row and one bar, which go on in place', async ({ open, server }) => {
  const gate = server.gate('steps');
  const id = await server.submit('steps', { total: 10, gate });
  const page = await open(`/tasks/${id}`);
  const strip = page.getByLabel('Running progress');
  await strip.getByText('copying').waitFor();
  await strip.getByText('5 of 10 files').waitFor();
  const bars = log(page).getByLabel('copying');
  await expect.poll(() => bars.count()).toBe(1);
  server.open('steps');
  await server.ended(id);
  await strip.waitFor({ state: 'detached' });
  await log(page).getByText('10 of 10 files').waitFor();
  expect(await bars.count()).toBe(1);
});

test('groups that went well are folded, one with an error is open', async ({ open, server }) => {
  const group = (name: string, event: string) => ({
    message: name,
    metadata: { group: { id: name, event, title: name } },
  });
  const entries = [
    ...[group('fine', 'start'), ...lines(30), group('fine', 'end')],
    ...[group('bad', 'start'), { message: 'broken', level: 'ERROR' }, group('bad', 'end')],
  ];
  const id = await server.run('say', { entries });
  const page = await open(`/tasks/${id}`);
  await log(page).getByText('broken').waitFor();
  await page.getByRole('button', { name: 'Open the group fine' }).waitFor();
  expect(await log(page).getByText('line number 7').count()).toBe(0);
  await log(page).getByText('1 error', { exact: true }).waitFor();
  await page.getByRole('button', { name: 'Open the group fine' }).click();
  await log(page).getByText('line number 7').waitFor();
  await page.getByRole('button', { name: 'Fold the group bad' }).click();
  await log(page).getByText('broken').waitFor({ state: 'detached' });
});

test('the detail shows fields, which filter, and the exception', async ({ open, server }) => {
  const entries = [...lines(3), { message: 'indexed', metadata: { index: 'documents', n: 7 } }];
  const id = await server.run('say', { entries, fail: 'out of paper' });
  const page = await open(`/tasks/${id}`, { permissions: ['clipboard-read', 'clipboard-write'] });
  await page.getByRole('search').waitFor();
  await settled(page);
  await log(page).getByText('indexed').click();
  await page.keyboard.press('x');
  const detail = page.getByLabel('Detail of the line');
  await detail.getByText('documents').waitFor();
  await detail.getByRole('button', { name: 'Copy the line' }).click();
  await page.getByText('Copied the line').waitFor();
  expect(await page.evaluate(() => navigator.clipboard.readText())).toMatch(/ INFO {4}say {2}indexed$/);
  await log(page).getByText('RuntimeError: out of paper').first().click();
  await detail.getByText('spoken.py').first().waitFor();
  await log(page).getByText('indexed').click();
  await detail.getByRole('button', { name: 'documents' }).click();
  await expect.poll(() => page.url()).toContain('meta.index=documents');
  await page.getByText('1 of 6 lines').waitFor();
});

test('copying gives what was said, also of rows that are not mounted', async ({ open, server }) => {
  const id = await server.run('say', { entries: lines(600) });
  const page = await open(`/tasks/${id}`, { permissions: ['clipboard-read', 'clipboard-write'] });
  await shows(page, 602);
  await page.goto(`/tasks/${id}#L2-L601`);
  await shows(page, 2);
  await log(page).focus();
  await page.keyboard.press('y');
  await page.getByText('Copied 600 lines').waitFor();
  const copied = (await page.evaluate(() => navigator.clipboard.readText())).split('\n');
  expect(copied).toHaveLength(600);
  expect(copied[0]).toMatch(/ INFO {4}say {2}line number 1$/);
  expect(copied[599]).toMatch(/line number 600$/);
});

test('a selection with the mouse copies messages and nothing else', async ({ open, server }) => {
  const id = await server.run('say', { entries: lines(20) });
  const page = await open(`/tasks/${id}`, { permissions: ['clipboard-read', 'clipboard-write'] });
  // What stands above the log has its place, so the rows keep theirs.
  await page.getByRole('search').waitFor();
  await shows(page, 22);
  await settled(page);
  const from = await message(page, 3).boundingBox();
  const to = await message(page, 6).boundingBox();
  if (!from || !to) throw new Error('the rows are not shown');
  await page.mouse.move(from.x + 1, from.y + 8);
  await page.mouse.down();
  await page.mouse.move(to.x + to.width - 1, to.y + 8, { steps: 4 });
  await page.mouse.up();
  await page.keyboard.press('Control+c');
  const copied = await page.evaluate(() => navigator.clipboard.readText());
  expect(copied.split('\n')).toEqual([2, 3, 4, 5].map((n) => `line number ${n}`));
});

test('a download is just what the filter shows', async ({ open, server }) => {
  const entries = [...lines(10), { message: 'only this', level: 'ERROR' }];
  const id = await server.run('say', { entries });
  const page = await open(`/tasks/${id}?level=ERROR`);
  await log(page).getByText('only this').waitFor();
  await page.getByText('Download').click();
  const [download] = await Promise.all([
    page.waitForEvent('download'),
    page.getByRole('link', { name: 'NDJSON' }).click(),
  ]);
  const stream = await download.createReadStream();
  const chunks: Buffer[] = [];
  for await (const chunk of stream) chunks.push(chunk as Buffer);
  const text = Buffer.concat(chunks).toString();
  expect(text.match(/"message"/g)).toHaveLength(1);
  expect(text).toContain('only this');
});

test('the minimap goes to a time, and a drag chooses a range', async ({ open, server }) => {
  const gate = server.gate('later');
  const id = await server.submit('say', { entries: lines(500), gate, then: lines(500, 501) });
  await server.reached(id, 501);
  // The log must span some time for its bins to lie apart.
  const [last] = await server.entries(id, 'tail=1');
  await expect.poll(() => Date.now()).toBeGreaterThan(Date.parse(last?.timestamp ?? '') + 800);
  server.open('later');
  await server.ended(id);
  const page = await open(`/tasks/${id}`);
  await shows(page, 1_002);
  const map = page.getByLabel('Lines and errors over time');
  await expect.poll(() => map.locator('.all').getAttribute('d')).toMatch(/M.*M/);
  const box = await map.boundingBox();
  if (!box) throw new Error('the minimap is not shown');
  await page.mouse.click(box.x + 2, box.y + 20);
  await shows(page, 1);
  await page.mouse.move(box.x + 1, box.y + 20);
  await page.mouse.down();
  await page.mouse.move(box.x + box.width / 2, box.y + 20, { steps: 3 });
  await page.mouse.up();
  await expect.poll(() => page.url()).toContain('since=');
  await page.getByText('501 of 1,002 lines').waitFor();
});

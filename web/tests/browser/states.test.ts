import { axe, expect, PHONE, Served, TABLET, test } from './harness.ts';
import { log, message, row, seqs, shows } from './look.ts';

const lines = (count: number) =>
  Array.from({ length: count }, (_, i) => ({ message: `line number ${i + 1}` }));

const HOSTILE = [
  '<img src=x onerror=alert(1)>',
  '<script>window.hacked = 1</script>{@html x}${y}',
  'plain \u202egnp.exe\u202c and \u2066isolated\u2069 \u200fmark',
  '\x1b]8;;javascript:alert(1)\x07link\x1b]8;;\x07 \x1b[2J\x1b[H\x1b]0;title\x07',
  '\x1b]0;never ended <b>bold</b>',
  'javascript:alert(1) https://example.com/"onmouseover=alert(1)',
];

test('without tasks the page says so, and how to start one', async ({ open }) => {
  const page = await open('/');
  await page.getByText('No tasks yet').waitFor();
  await page.getByRole('heading', { name: 'Start a task' }).waitFor();
  await page.getByRole('button', { name: /checksum/ }).waitFor();
  expect(await axe(page)).toEqual([]);
});

test('a task is started from its form, whose faults are told at their fields', async ({
  open,
  server,
  faults,
}) => {
  faults.allow(/status of 422/);
  const page = await open('/');
  await page.getByRole('button', { name: /^steps/ }).click();
  const total = page.getByLabel('total');
  await total.fill('0');
  await page.getByRole('button', { name: 'Start steps' }).click();
  await expect.poll(() => total.getAttribute('aria-invalid')).toBe('true');
  const about = (await total.getAttribute('aria-describedby')) ?? '';
  expect(await page.locator(`[id="${about.split(' ').at(-1)}"]`).textContent()).toMatch(/greater than/);
  await expect.poll(() => total.evaluate((field) => field === document.activeElement)).toBe(true);
  expect(await axe(page)).toEqual([]);
  await total.fill('3');
  await page.getByRole('button', { name: 'Start steps' }).click();
  await expect.poll(() => page.url()).toContain('/tasks/');
  const id = page.url().split('/').at(-1) ?? '';
  expect((await server.ended(id)).status).toBe('succeeded');
  await page.getByRole('heading', { name: 'steps' }).waitFor();
});

test('a task that is not there is said not to be, with a way on', async ({ open, faults }) => {
  faults.allow(/status of 404/);
  const page = await open('/tasks/01a20a50-704d-7526-9b00-501d5b94287e');
  await page.getByRole('heading', { name: 'There is no such task' }).waitFor();
  expect(await axe(page)).toEqual([]);
  await page.getByRole('link', { name: 'All tasks' }).click();
  await page.getByRole('heading', { name: 'Start a task' }).waitFor();
});

test('a service that cannot be reached is said to be so, and tried again', async ({
  open,
  server,
  faults,
}) => {
  faults.allow(/Failed to load|net::|WebSocket/);
  const id = await server.run('say', { entries: lines(3) });
  const page = await open('/');
  await page.getByRole('navigation').getByText('say').first().waitFor();
  await server.stop();
  await page.getByRole('navigation').locator(`a[href="/tasks/${id}"]`).click();
  await page.getByRole('heading', { name: 'No answer' }).waitFor();
  await server.start();
  await page.getByRole('button', { name: 'Try again' }).click();
  await shows(page, 4);
});

test('a filter that nothing passes says so, and can be cleared', async ({ open, server, faults }) => {
  faults.allow(/status of 404/);
  const id = await server.run('say', { entries: lines(3) });
  const page = await open(`/tasks/${id}?source=nobody`);
  await page.getByRole('heading', { name: 'No line matches' }).waitFor();
  expect(await axe(page)).toEqual([]);
  await page.getByRole('button', { name: 'Clear filters' }).first().click();
  await shows(page, 4);
});

test('a running task is cancelled, retried and deleted', async ({ open, server }) => {
  const id = await server.submit('say', { entries: lines(3), gate: server.gate('never') });
  const page = await open(`/tasks/${id}`);
  await shows(page, 4);
  await page.getByRole('button', { name: 'Cancel' }).click();
  await page.getByRole('button', { name: 'Retry' }).waitFor();
  expect((await server.ended(id)).status).toBe('cancelled');
  await page.getByRole('button', { name: 'Retry' }).click();
  await expect.poll(() => page.url()).not.toContain(id);
  const again = page.url().split('/').at(-1) ?? '';
  await page.getByRole('button', { name: 'Cancel' }).click();
  await server.ended(again);
  await page.getByText('Download').click();
  await page.getByRole('button', { name: /Delete task/ }).click();
  const dialog = page.getByRole('dialog', { name: 'Delete this task?' });
  await dialog.waitFor();
  expect(await axe(page)).toEqual([]);
  await dialog.getByRole('button', { name: 'Delete' }).click();
  await expect.poll(() => new URL(page.url()).pathname).toBe('/');
  await expect(server.task(again)).rejects.toThrow(/404/);
});

test('a service with a token asks for it, once', async ({ browser }) => {
  const locked = await new Served('--token', 'open-sesame-1234').start();
  const context = await browser.newContext({ baseURL: locked.url });
  try {
    const page = await context.newPage();
    await page.goto('/');
    await page.getByLabel('Token').fill('wrong');
    await page.getByRole('button', { name: 'Open' }).click();
    await page.getByText('That is not the token').waitFor();
    await page.getByLabel('Token').fill('open-sesame-1234');
    await page.getByRole('button', { name: 'Open' }).click();
    await page.getByText('No tasks yet').waitFor();
    await page.reload();
    await page.getByText('No tasks yet').waitFor();
  } finally {
    await context.close();
    await locked.remove();
  }
});

test('whatever a task says is shown as text', async ({ open, server }) => {
  const entries = HOSTILE.map((text) => ({
    message: text,
    source: text.slice(0, 40),
    metadata: { [text]: text },
  }));
  const id = await server.run('say', { entries, fail: HOSTILE[0] });
  const page = await open(`/tasks/${id}#L2`);
  await shows(page, 2);
  expect(await message(page, 2).textContent()).toBe(HOSTILE[0]);
  expect(await message(page, 3).textContent()).toBe(HOSTILE[1]);
  // The override is in the text, named, and ends where it stands.
  expect(await message(page, 4).locator('.code').first().getAttribute('data-code')).toBe('U+202E');
  expect(await message(page, 4).textContent()).toBe(HOSTILE[2]);
  expect(await message(page, 5).textContent()).toBe('link ');
  expect(await message(page, 6).textContent()).toContain('never ended <b>bold</b>');
  const links = await log(page)
    .locator('.message a')
    .evaluateAll((all) => all.map((link) => link.getAttribute('href')));
  expect(links).toEqual(['https://example.com/']);
  for (const seq of [2, 3, 4, 5, 6, 7]) {
    await row(page, seq)
      .locator('.message')
      .click({ position: { x: 2, y: 8 } });
    await page.keyboard.press('x');
    await page.getByLabel('Detail of the line').getByText('Fields').waitFor();
    await page.keyboard.press('x');
  }
  await page.getByText('Sources').click();
  await page.getByRole('checkbox').first().waitFor();
  expect(await page.locator('img, script:not([src])').count()).toBe(0);
  expect(await page.evaluate(() => 'hacked' in window)).toBe(false);
  expect(await page.title()).toMatch(/^say failed/);
});

test('all of it can be done with the keyboard', async ({ open, server, faults }) => {
  faults.allow(/status of 404/); // the search goes round
  const entries = lines(500).map((each, i) => (i === 249 ? { ...each, level: 'ERROR' } : each));
  const id = await server.run('say', { entries });
  const page = await open('/');
  // To the task by Tab alone.
  const link = page.locator(`a[href="/tasks/${id}"]`);
  await link.waitFor();
  for (let n = 0; n < 30; n++) {
    await page.keyboard.press('Tab');
    if (await link.evaluate((element) => element === document.activeElement)) break;
  }
  await page.keyboard.press('Enter');
  await shows(page, 502);
  await page.keyboard.press('g');
  await shows(page, 1);
  await page.keyboard.press('j');
  await page.keyboard.press('j');
  await expect.poll(() => row(page, 3).getAttribute('class')).toMatch(/cursor/);
  await page.keyboard.press('J');
  await expect.poll(() => new URL(page.url()).hash).toBe('#L3-L4');
  await page.keyboard.press('e');
  await shows(page, 251);
  await page.keyboard.press('PageDown');
  await expect.poll(async () => (await seqs(page))[0]).toBeGreaterThan(251);
  await page.keyboard.press('PageUp');
  await shows(page, 251);
  await page.keyboard.press('x');
  await page.getByLabel('Detail of the line').getByText('Line 251').waitFor();
  await page.keyboard.press('Escape');
  await page.getByLabel('Detail of the line').waitFor({ state: 'detached' });
  await page.keyboard.press('t');
  await expect.poll(() => row(page, 251).locator('time').textContent()).toMatch(/^\d\d:\d\d:\d\d/);
  await page.keyboard.press('t');
  await expect.poll(() => row(page, 251).locator('time').textContent()).toMatch(/^ *\+/);
  await page.keyboard.press('/');
  await page.keyboard.type('number 77');
  await page.keyboard.press('Enter');
  await shows(page, 78);
  await page.keyboard.press('Escape');
  await expect.poll(() => log(page).evaluate((element) => element === document.activeElement)).toBe(true);
  await page.keyboard.press('?');
  const help = page.getByRole('dialog', { name: 'Keys' });
  await help.getByText('Next error').waitFor();
  await page.keyboard.press('Escape');
  await help.waitFor({ state: 'detached' });
  await page.keyboard.press('G');
  await shows(page, 502);
});

test('long lines wrap, and every height is right', async ({ open, server }) => {
  const words = 'several words of which there are many, path/to/a-file.txt and 日本語のテキスト; ';
  const entries = Array.from({ length: 120 }, (_, i) => ({ message: `${i} ${words.repeat(1 + (i % 5))}` }));
  const id = await server.run('say', { entries });
  const page = await open(`/tasks/${id}`, { viewport: TABLET });
  await shows(page, 122);
  await page.keyboard.press('l');
  await page.keyboard.press('g');
  await shows(page, 1);
  for (let n = 0; n < 12; n++) {
    const boxes = await log(page).evaluate((element) =>
      [...element.querySelectorAll('[data-seq]')]
        .map((node) => node.getBoundingClientRect())
        .map(({ top, bottom }) => ({ top, bottom })),
    );
    const gaps = boxes.slice(1).map(({ top }, i) => Math.round(top - (boxes[i]?.bottom ?? 0)));
    expect(new Set(gaps)).toEqual(new Set([0]));
    await page.keyboard.press('PageDown');
  }
  await page.keyboard.press('G');
  await shows(page, 122);
});

test('on a phone the tasks are a drawer, and nothing is wider than the screen', async ({ open, server }) => {
  const id = await server.run('steps', { total: 4 });
  const page = await open(`/tasks/${id}`, { viewport: PHONE, hasTouch: true });
  await page.getByRole('button', { name: 'Open the group copy' }).click();
  await log(page).getByText('one file was newer').waitFor();
  const width = () => page.evaluate(() => document.documentElement.scrollWidth);
  expect(await width()).toBeLessThanOrEqual(PHONE.width);
  await page.getByRole('button', { name: 'Tasks' }).click();
  await page.getByRole('navigation').getByText('steps').first().waitFor();
  expect(await axe(page)).toEqual([]);
  await page.getByRole('link', { name: 'Start' }).click();
  await page.getByRole('heading', { name: 'Start a task' }).waitFor();
  expect(await width()).toBeLessThanOrEqual(PHONE.width);
  await page.goBack();
  await log(page).getByText('succeeded after').click();
  await page.locator('summary[aria-label="More"]').click();
  await page.getByText('Params and result').click();
  await page.getByLabel('Detail of the task').getByText('Params').waitFor();
  expect(await axe(page)).toEqual([]);
});

test.for(['dark', 'light'] as const)(
  'axe finds nothing in what opens over the log, %s',
  async (colorScheme, { open, server, faults }) => {
    faults.allow(/status of 404/); // there is no match below the error that it opens at
    const entries = [
      ...lines(40),
      { message: 'odd', level: 'WARNING', metadata: { index: 'a', deep: { b: [1, 2] } } },
    ];
    const id = await server.run('say', { entries, fail: 'broken' });
    const page = await open(`/tasks/${id}?find=number`, { colorScheme, viewport: TABLET });
    await shows(page, 43);
    expect(await axe(page)).toEqual([]);
    await log(page).getByText('odd').click();
    await page.keyboard.press('x');
    await page.getByLabel('Detail of the line').getByText('deep').waitFor();
    await page.getByText('Sources').click();
    expect(await axe(page)).toEqual([]);
    await log(page).getByText('RuntimeError: broken').first().click();
    await page.getByText('Download').click();
    expect(await axe(page)).toEqual([]);
    await page.keyboard.press('?');
    await page.getByRole('dialog', { name: 'Keys' }).waitFor();
    expect(await axe(page)).toEqual([]);
  },
);

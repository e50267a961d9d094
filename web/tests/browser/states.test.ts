import { axe, expect, PHONE, Served, TABLET, test } from './harness.ts';
import { drawn, focused, log, row, seqs, shows, touched } from './look.ts';

const lines = (count: number) =>
  Array.from({ length: count }, (_, i) => ({ message: `line number ${i + 1}` }));

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
  await focused(total);
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

test('a part of the page that cannot be fetched is said to be missing, and fetched when asked again', async ({
  open,
  server,
  faults,
}) => {
  faults.allow(/Failed to load|net::/);
  const id = await server.run('say', { entries: lines(3) });
  const page = await open('/');
  await page.getByRole('heading', { name: 'Start a task' }).waitFor();
  // Of the page's scripts the first look names some; the one that comes later it does not.
  const first = await (await page.request.get('/')).text();
  let there = false;
  await page.route('**/assets/*.js', (route) => {
    const { pathname } = new URL(route.request().url());
    return there || first.includes(pathname) ? route.continue() : route.abort();
  });
  for (const path of [`/tasks/${id}`, '/']) {
    there = false;
    await page.goto(path);
    const told = page.getByRole('alert').filter({ hasText: 'A part of the page is missing' });
    await told.waitFor();
    // The log does without it.
    if (path !== '/') await shows(page, 4);
    await page.getByRole('navigation').getByText('say').first().waitFor();
    expect(await axe(page)).toEqual([]);
    there = true;
    await told.getByRole('button').click();
    const whole =
      path === '/' ? page.getByRole('heading', { name: 'Start a task' }) : page.getByRole('search');
    await whole.waitFor();
    await expect.poll(() => told.count()).toBe(0);
  }
});

test('a filter in the address that cannot be is told, and not tried again but cleared', async ({
  open,
  server,
  faults,
}) => {
  faults.allow(/status of 400/);
  const id = await server.run('say', { entries: lines(3) });
  const page = await open(`/tasks/${id}?search=(&regex=true`);
  await page.getByText(/regular expression/).waitFor();
  expect(await axe(page)).toEqual([]);
  expect(await page.getByRole('button', { name: 'Try again' }).count()).toBe(0);
  await page.getByRole('button', { name: 'Clear filters' }).click();
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
  await page.getByRole('button', { name: 'Delete task and log' }).click();
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

test('a service that is not well is shown to be so in its own words, until it is', async ({
  open,
  server,
  faults,
}) => {
  faults.allow(/status of 503/);
  const id = await server.run('say', { entries: lines(3) });
  const page = await open(`/tasks/${id}`);
  await shows(page, 4);
  const words = 'The database is locked by <b>another</b> program.';
  let answer = { status: 503, body: { title: 'Service Unavailable', status: 503, detail: words } as object };
  await page.route('**/api/health', (route) =>
    route.fulfill({ status: answer.status, contentType: 'application/json', json: answer.body }),
  );
  // A request that is refused for the service's own fault is why it is asked.
  await page.route('**/retry', (route) => route.fulfill({ status: 503, json: answer.body }), { times: 1 });
  await page.getByRole('button', { name: 'Retry' }).click();
  await page.getByRole('alert').getByText(words).waitFor();
  await shows(page, 4);
  expect(await axe(page)).toEqual([]);
  answer = { status: 200, body: { status: 'degraded', problems: ['A new database was begun.'] } };
  await page.getByRole('alert').waitFor({ state: 'detached' });
  await page.getByText('A new database was begun.').waitFor();
  expect(await axe(page)).toEqual([]);
  await page.getByRole('button', { name: 'Dismiss' }).click();
  const told = page.waitForResponse('**/api/health');
  await page.reload();
  await told;
  await shows(page, 4);
  await drawn(page);
  expect(await page.getByText('A new database was begun.').count()).toBe(0);
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
  await focused(page.getByLabel('Search the whole log'));
  await page.keyboard.type('number 77');
  await page.keyboard.press('Enter');
  await shows(page, 78);
  await page.keyboard.press('Escape');
  await focused(log(page));
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
  // A screen down goes on where the one before ended: no line is passed over.
  for (let last = 0; last < 122;) {
    const rows = await touched(page);
    expect(rows[0]).toBeLessThanOrEqual(last + 1);
    expect(rows.at(-1)).toBeGreaterThan(last);
    last = rows.at(-1) ?? 122;
    await page.keyboard.press('PageDown');
    await drawn(page);
  }
  await page.keyboard.press('G');
  await shows(page, 122);
  // The last line ends where the log does: all heights together are what the browser makes of them.
  const below = () =>
    row(page, 122).evaluate((last) => {
      const space = last.closest('.space')?.getBoundingClientRect().bottom ?? 0;
      return Math.round(space - last.getBoundingClientRect().bottom);
    });
  await expect.poll(below).toBe(0);
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
  await focused(page.getByRole('link', { name: 'taskd', exact: true }));
  expect(await axe(page)).toEqual([]);
  await page.keyboard.press('Escape');
  await focused(page.getByRole('button', { name: 'Tasks' }));
  await page.getByRole('button', { name: 'Tasks' }).click();
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

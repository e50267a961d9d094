import { axe, DESK, expect, PHONE, test } from './harness.ts';

test('the page opens, says what it is, and tells the console nothing', async ({ open, faults }) => {
  const page = await open('/');
  await page.getByRole('heading', { name: 'Start a task' }).waitFor();
  await page.getByRole('button', { name: /checksum/ }).waitFor();
  expect(await page.title()).toMatch(/taskd/);
  expect(faults.told).toEqual([]);
});

test('a task has an address of its own, which works on reload', async ({ open, server }) => {
  const id = await server.run('say', { entries: [{ message: 'hello' }] });
  const page = await open(`/tasks/${id}`);
  await page.getByText('hello').waitFor();
  const answer = await page.reload();
  expect(answer?.status()).toBe(200);
  await page.getByText('hello').waitFor();
  expect(new URL(page.url()).pathname).toBe(`/tasks/${id}`);
});

test('the policy refuses markup made of text, and code that is not a file of the page', async ({
  open,
  faults,
}) => {
  faults.allow(/Content Security Policy|requires 'Trusted|TrustedHTML/);
  const page = await open('/');
  const markup = page.evaluate(() => {
    document.body.insertAdjacentHTML('beforeend', '<img src=x onerror="window.ran = true">');
  });
  await expect(markup).rejects.toThrow(/TypeError/);
  await page.evaluate(() => {
    const script = document.createElement('script');
    script.append('window.ran = true');
    document.body.append(script);
  });
  expect(await page.evaluate(() => 'ran' in window)).toBe(false);
});

test('the page may connect to its own server, and to no other', async ({ open, server, faults }) => {
  faults.allow(/Content Security Policy/);
  const id = await server.run('say', { entries: [{ message: 'hello' }] });
  const page = await open('/');
  const first = await page.evaluate((path) => {
    const socket = new WebSocket(`ws://${location.host}${path}`);
    return new Promise((resolve) =>
      socket.addEventListener('message', ({ data }) => resolve(JSON.parse(data))),
    );
  }, `/api/tasks/${id}/logs/live`);
  expect(first).toMatchObject({ type: 'hello', task: { id } });
  const elsewhere = page.evaluate(() => fetch('http://127.0.0.1:9/', { mode: 'no-cors' }));
  await expect(elsewhere).rejects.toThrow(/Failed to fetch/);
  expect(faults.told.join()).toContain("connect-src 'self'");
});

test.for([
  { name: 'dark', colorScheme: 'dark', viewport: DESK },
  { name: 'light', colorScheme: 'light', viewport: DESK },
  { name: 'dark at 390 px', colorScheme: 'dark', viewport: PHONE },
  { name: 'light at 390 px', colorScheme: 'light', viewport: PHONE },
] as const)('axe finds nothing wrong in $name', async ({ colorScheme, viewport }, { open, server }) => {
  const id = await server.run('steps');
  const start = await open('/', { colorScheme, viewport });
  await start.getByRole('button', { name: /checksum/ }).waitFor();
  expect(await axe(start)).toEqual([]);
  const page = await open(`/tasks/${id}`, { colorScheme, viewport });
  await page.getByRole('heading', { name: 'steps' }).waitFor();
  await page.getByRole('log').getByText('succeeded after').waitFor();
  expect(await axe(page)).toEqual([]);
});

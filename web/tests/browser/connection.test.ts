import { expect, test } from './harness.ts';
import { log, seqs, shows } from './look.ts';

const lines = (count: number, from = 1) =>
  Array.from({ length: count }, (_, i) => ({ message: `line number ${from + i}` }));

test(
  'across twenty dropped connections and a restart the page holds each entry once, in order',
  {
    timeout: 300_000,
  },
  async ({ open, server, faults }) => {
    faults.allow(/WebSocket|ERR_CONNECTION|ERR_EMPTY|Failed to load|net::/);
    const id = await server.submit('rate', { count: 9_000_000, rate: 9_000 });
    // Every entry that a socket brings is written down where the page takes it from.
    const page = await open('/');
    await page.evaluate(() => {
      const Real = WebSocket;
      const taken: { sockets: WebSocket[]; seqs: number[]; runs: { after: number; seqs: number[] }[] } = {
        sockets: [],
        seqs: [],
        runs: [],
      };
      Object.assign(window, { taken });
      window.WebSocket = class extends Real {
        constructor(url: string | URL) {
          super(url);
          taken.sockets.push(this);
          const run = { after: Number(new URL(url).searchParams.get('after')), seqs: [] as number[] };
          taken.runs.push(run);
          this.addEventListener('message', ({ data }) => {
            const frame = JSON.parse(data) as { type: string; entries: { seq: number }[] };
            if (frame.type !== 'entries') return;
            run.seqs.push(...frame.entries.map(({ seq }) => seq));
            taken.seqs.push(...frame.entries.map(({ seq }) => seq));
          });
        }
      };
    });
    await page.getByRole('navigation').getByText('rate').click();
    await log(page).waitFor();
    for (let drop = 1; drop <= 20; drop++) {
      // Each drop is of a connection of its own, which has brought something: one alone may bring much.
      const due = () =>
        page.evaluate((n) => {
          const { seqs, runs } = window.taken;
          return seqs.length > n * 5_000 && runs.length >= n && (runs.at(-1)?.seqs.length ?? 0) > 0;
        }, drop);
      await expect.poll(due, { timeout: 60_000 }).toBe(true);
      await page.evaluate(() => window.taken.sockets.at(-1)?.close());
    }
    await server.restart();
    const { last_seq } = await server.ended(id);
    expect(last_seq).toBeGreaterThan(100_000);
    await shows(page, last_seq);
    await page.getByText('interrupted').first().waitFor();
    // Each connection goes on where the page was, without a hole and without a repetition. Only where a
    // slow machine was far behind it goes on later, and what it left out is looked at below.
    const runs = await page.evaluate(() => window.taken.runs);
    const left: number[] = [];
    let last = runs[0]?.after ?? 0;
    for (const { after, seqs: brought } of runs) {
      expect(brought).toEqual(brought.map((_, i) => after + 1 + i));
      expect(after).toBeGreaterThanOrEqual(last);
      if (after > last) left.push(last + 1, after);
      last = brought.at(-1) ?? after;
    }
    expect(last).toBe(last_seq);
    // And what is shown is what is stored, without a hole, wherever one looks.
    for (const place of [1, 5_000, 31_337, 64_000, 99_990, ...left, last_seq - 5]) {
      await page.evaluate((seq) => (location.hash = `#L${seq}`), place);
      await shows(page, place);
      const shown = await log(page)
        .locator('[data-seq]')
        .evaluateAll((rows) =>
          rows.map((each) => [
            Number(each.getAttribute('data-seq')),
            each.querySelector('.message')?.textContent,
          ]),
        );
      const first = Number(shown[0]?.[0]);
      const stored = await server.entries(id, `after=${first - 1}&limit=${shown.length}`);
      expect(shown).toEqual(stored.map(({ seq, message }) => [seq, message]));
    }
    expect(runs.length).toBeGreaterThan(20);
  },
);

test('a server that is killed is told of, and the page comes back by itself', async ({
  open,
  server,
  faults,
}) => {
  faults.allow(/WebSocket|ERR_CONNECTION|Failed to load|net::/);
  const gate = server.gate('killed');
  const id = await server.submit('say', { entries: lines(50), gate });
  const page = await open(`/tasks/${id}`);
  await shows(page, 51);
  // The page is whole: what stands around the lines comes behind them.
  await page.getByRole('search').waitFor();
  await server.kill();
  await page.getByText(/The connection is lost/).waitFor();
  await server.start();
  // The last of its waits may be ten seconds long.
  await page.getByText(/The connection is lost/).waitFor({ state: 'detached', timeout: 30_000 });
  const { last_seq } = await server.ended(id);
  await shows(page, last_seq);
  const all = await seqs(page);
  expect(all).toEqual([...new Set(all)].sort((a, b) => a - b));
});

declare global {
  interface Window {
    taken: { sockets: WebSocket[]; seqs: number[]; runs: { after: number; seqs: number[] }[] };
  }
}

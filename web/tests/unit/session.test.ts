import { flushSync } from 'svelte';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';

import type { Entry, Frame, Task } from '../../src/lib/api';
import { NO_FILTER } from '../../src/lib/filter';
import { LogSession } from '../../src/lib/session.svelte';
import { entries, entry, task } from './entries';

/** A socket that the test speaks through. */
class FakeSocket {
  static all: FakeSocket[] = [];
  onmessage: ((event: { data: string }) => void) | null = null;
  onclose: ((event: { code: number }) => void) | null = null;
  closed = false;
  url: string;

  constructor(url: string) {
    this.url = url;
    FakeSocket.all.push(this);
  }

  static get last(): FakeSocket {
    const last = FakeSocket.all.at(-1);
    if (!last) throw new Error('there is no socket');
    return last;
  }

  get after(): number {
    return Number(new URL(this.url).searchParams.get('after'));
  }

  close(): void {
    this.closed = true;
  }

  say(...frames: Frame[]): void {
    for (const frame of frames) this.onmessage?.({ data: JSON.stringify(frame) });
  }

  lose(code = 1006): void {
    this.onclose?.({ code });
  }
}

/** A log on a server: what is asked for is answered from `log`. */
const server = {
  ...{ log: [] as Entry[], task: task(), asked: [] as string[], down: false, busy: false },
  /** How many more entries there were already when it counted them. */
  ahead: 0,
};

function answer(path: string): unknown {
  const url = new URL(path, 'http://x');
  const query = url.searchParams;
  const { log } = server;
  const last_seq = log.length;
  if (/\/tasks\/[^/]+$/.test(url.pathname)) return { ...server.task, last_seq };
  const levels = query.get('level')?.split(',');
  const matches = log.filter(({ level }) => !levels || levels.includes(level));
  const by_level = { DEBUG: 0, INFO: log.length, WARNING: 0, ERROR: 0 };
  const ended = server.task.status !== 'running';
  if (url.pathname.endsWith('/outline')) {
    const counted = last_seq + server.ahead;
    by_level.INFO += server.ahead;
    const anchors = matches.filter((_, i) => i % 1_024 === 0).map(({ seq }) => seq);
    const by_source = { test: counted };
    return { total: matches.length, by_level, by_source, bins: [], anchors, last_seq: counted };
  }
  if (url.pathname.endsWith('/stats')) return { total: last_seq, by_level, by_source: { test: last_seq } };
  const tail = Number(query.get('tail') ?? 0);
  const from = matches.filter(({ seq }) => seq > Number(query.get('after') ?? 0));
  const part = tail ? matches.slice(-tail) : from.slice(0, Number(query.get('limit')));
  return { entries: part, total: matches.length, last_seq, more: part.length < from.length, ended };
}

const timers = { toFake: ['setTimeout', 'setInterval', 'clearTimeout', 'clearInterval', 'Date'] as const };

beforeEach(() => {
  vi.useFakeTimers({ toFake: [...timers.toFake] });
  FakeSocket.all = [];
  Object.assign(server, {
    log: entries(1, 100),
    task: task(),
    asked: [],
    down: false,
    busy: false,
    ahead: 0,
  });
  vi.stubGlobal('WebSocket', FakeSocket);
  vi.stubGlobal('requestAnimationFrame', (run: () => void) => setTimeout(run, 16));
  vi.stubGlobal('fetch', (path: string) => {
    server.asked.push(path);
    if (server.down) return Promise.reject(new TypeError('refused'));
    if (server.busy && path.includes('/outline')) return Promise.resolve(new Response('{}', { status: 503 }));
    return Promise.resolve(new Response(JSON.stringify(answer(path)), { status: 200 }));
  });
});

afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

const pass = (ms: number) => vi.advanceTimersByTimeAsync(ms);

async function opened(filter = NO_FILTER, id = task().id): Promise<LogSession> {
  const session = new LogSession();
  await session.open(id, filter, { at: 'end' });
  await pass(50);
  flushSync();
  return session;
}

/** The seqs of the rows that are here, from the first to the last. */
function held(session: LogSession): (number | undefined)[] {
  return Array.from({ length: session.total }, (_, row) => session.epoch.entry(row)?.seq);
}

const hello = (last_seq: number): Frame => ({ type: 'hello', task: task(), last_seq });
const say = (from: number, to: number): Frame => ({ type: 'entries', entries: entries(from, to) });
const numbers = (to: number) => Array.from({ length: to }, (_, i) => i + 1);

test('where the counts cannot be had now the rows stay, and the counts come later', async () => {
  server.busy = true;
  const session = await opened();
  expect(session.phase).toBe('ready');
  expect(held(session)).toEqual(numbers(100));
  expect(session.tally.counts.INFO).toBe(0);
  await pass(2_000);
  server.busy = false;
  await pass(3_000);
  expect(session.phase).toBe('ready');
  expect(session.tally.counts.INFO).toBe(0);
  await pass(2_000);
  expect(session.tally.counts.INFO).toBe(100);
  session.close();
});

test('what the server has counted before it came is counted once', async () => {
  server.ahead = 10;
  const session = await opened();
  FakeSocket.last.say(hello(120), say(101, 120));
  await pass(700);
  expect(session.tally.counts.INFO).toBe(120);
  expect(session.tally.sources).toEqual([['test', 120]]);
  session.close();
});

describe('each entry once, in order', () => {
  test('the socket goes on after the last seq of the page', async () => {
    const session = await opened();
    expect(FakeSocket.last.after).toBe(100);
    FakeSocket.last.say(hello(100), say(101, 140), { type: 'caught_up', last_seq: 140 });
    await pass(700);
    expect(held(session)).toEqual(numbers(140));
    expect(session.tally.counts.INFO).toBe(140);
    session.close();
  });

  test('a line that breaks again and again loses and repeats nothing', async () => {
    const session = await opened();
    for (let n = 0; n < 20; n++) {
      const from = 101 + n * 10;
      expect(FakeSocket.last.after).toBe(from - 1);
      FakeSocket.last.say(hello(from), say(from, from + 9));
      server.log = entries(1, from + 9);
      FakeSocket.last.lose();
      await pass(1_000);
    }
    expect(FakeSocket.all).toHaveLength(21);
    expect(held(session)).toEqual(numbers(300));
    session.close();
  });

  test('what comes twice is taken once', async () => {
    const session = await opened();
    FakeSocket.last.say(hello(110), say(101, 110), say(105, 112));
    await pass(50);
    expect(held(session)).toEqual(numbers(112));
    expect(session.repeated).toBe(6);
    session.close();
  });

  test('frames of an old epoch are ignored', async () => {
    const session = await opened();
    const old = FakeSocket.last;
    const other = '01a20a50-704d-7526-9b00-000000000000';
    server.log = entries(1, 5);
    await session.open(other, NO_FILTER, { at: 'end' });
    old.say(say(101, 105));
    await pass(50);
    expect(held(session)).toEqual(numbers(5));
    expect(old.closed).toBe(true);
    session.close();
  });

  test('a mark of the server moves the place to go on at, where the filter lets nothing through', async () => {
    const session = await opened({ ...NO_FILTER, levels: ['ERROR'] });
    expect(session.total).toBe(0);
    FakeSocket.last.say(hello(100), { type: 'caught_up', last_seq: 100 }, { type: 'ping', last_seq: 180 });
    server.log = entries(1, 180);
    FakeSocket.last.lose();
    await pass(1_000);
    expect(FakeSocket.last.after).toBe(180);
    session.close();
  });

  test('with a filter, live matches go on where the outline ended', async () => {
    server.log = entries(1, 100).map((each) => (each.seq % 10 ? each : { ...each, level: 'ERROR' as const }));
    const session = await opened({ ...NO_FILTER, levels: ['ERROR'] });
    session.look(0, 10);
    FakeSocket.last.say({ type: 'entries', entries: [entry(107, { level: 'ERROR' })] });
    await pass(100);
    expect(held(session)).toEqual([10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 107]);
    session.close();
  });
});

describe('the connection', () => {
  test('an ended task has none', async () => {
    server.task = task({ status: 'succeeded' });
    const session = await opened();
    expect(FakeSocket.all).toEqual([]);
    expect(session.socket).toBeNull();
  });

  test('the end is the end', async () => {
    const session = await opened();
    FakeSocket.last.say(hello(100), say(101, 103), {
      type: 'end',
      task: task({ status: 'failed' }) satisfies Task,
      last_seq: 103,
    });
    server.log = entries(1, 103);
    await pass(20_000);
    expect(session.task?.status).toBe('failed');
    expect(session.socket?.state).toBe('ended');
    expect(FakeSocket.all).toHaveLength(1);
    expect(held(session)).toEqual(numbers(103));
  });

  test('is tried again after longer and longer waits, at most 8 s apart', async () => {
    const session = await opened();
    server.down = true;
    // Without an answer over HTTP there is still hope.
    const times: number[] = [];
    for (let n = 0; n < 9; n++) {
      const before = FakeSocket.all.length;
      const start = Date.now();
      FakeSocket.last.lose();
      while (FakeSocket.all.length === before) await pass(10);
      times.push(Date.now() - start);
    }
    expect(times[0]).toBeLessThan(400);
    expect(times[4]).toBeGreaterThan(2_000);
    expect(Math.max(...times)).toBeLessThanOrEqual(10_100);
    session.close();
  });

  test('is tried again at once where this machine is back on the network', async () => {
    const session = await opened();
    vi.spyOn(navigator, 'onLine', 'get').mockReturnValue(false);
    FakeSocket.last.lose();
    expect(session.socket?.state).toBe('offline');
    dispatchEvent(new Event('online'));
    expect(session.socket?.state).toBe('connecting');
    session.close();
  });

  test('silence of 35 s is a dead line', async () => {
    const session = await opened();
    FakeSocket.last.say(hello(100));
    await pass(30_000);
    expect(session.socket?.state).toBe('live');
    await pass(11_000);
    expect(FakeSocket.all.length).toBeGreaterThan(1);
    session.close();
  });

  test('far behind, it goes on at the end, and the rest loads where it is looked at', async () => {
    const session = await opened();
    server.log = entries(1, 50_000);
    FakeSocket.last.say(hello(50_000));
    await pass(100);
    expect(FakeSocket.last.after).toBe(50_000);
    expect(session.total).toBe(50_000);
    session.look(30_000, 30_040);
    await pass(200);
    expect(session.epoch.entry(30_020)?.seq).toBe(30_021);
    session.close();
  });

  test('a task that is gone is said to be', async () => {
    const session = await opened();
    vi.stubGlobal('fetch', () =>
      Promise.resolve(
        new Response(JSON.stringify({ title: 'Task not found', detail: 'no' }), { status: 404 }),
      ),
    );
    FakeSocket.last.lose();
    await pass(1_000);
    expect(session.phase).toBe('missing');
    session.close();
  });

  test('a log that begins anew under the same name is opened anew', async () => {
    const session = await opened();
    server.log = entries(1, 7);
    FakeSocket.last.lose();
    await pass(1_000);
    expect(held(session)).toEqual(numbers(7));
    expect(FakeSocket.last.after).toBe(7);
    session.close();
  });
});

test('lines that cannot be had say why, until they are here', async () => {
  server.log = entries(1, 5_000);
  server.task = task({ status: 'succeeded' });
  const session = await opened();
  server.down = true;
  session.look(1_000, 1_020);
  await pass(200);
  expect(session.trouble).toContain('cannot be reached');
  server.down = false;
  await pass(2_200);
  session.look(1_000, 1_020);
  expect([session.trouble, session.epoch.entry(1_010)?.seq]).toEqual(['', 1_011]);
  session.close();
});

test('a log that cannot be read says why', async () => {
  server.down = true;
  const session = await opened();
  expect(session.phase).toBe('failed');
  expect(session.problem?.status).toBe(0);
});

test('a group is folded although its end was never loaded', async () => {
  const group = (event: string) => ({ metadata: { group: { id: 'g', event, title: 'copy files' } } });
  server.log = entries(1, 5_000);
  server.log[1_200] = entry(1_201, group('start'));
  server.log[4_000] = entry(4_001, { ...group('end'), message: 'copy files: done after 1.0 s' });
  const session = await opened();
  session.look(1_190, 1_230);
  await pass(200);
  vi.stubGlobal('fetch', (path: string) => {
    const hit = path.includes('/next') ? { entry: server.log[4_000], ordinal: 2, total: 2 } : { total: 0 };
    return Promise.resolve(new Response(JSON.stringify(hit)));
  });
  await session.toggleGroup(1_200);
  expect(session.epoch.layout.neighbour(1_200, 1)).toBe(4_001);
  expect(session.epoch.folding.at(1_200)).toMatchObject({ folded: true, errors: 0 });
  session.close();
});

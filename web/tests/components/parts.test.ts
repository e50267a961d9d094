import { fireEvent, render, screen } from '@testing-library/svelte';
import { flushSync } from 'svelte';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';

import { Address } from '../../src/lib/address.svelte';
import { needleOf } from '../../src/lib/needle';
import { LogReader } from '../../src/lib/reader.svelte';
import type { LogSocket } from '../../src/lib/socket.svelte';
import Announcer from '../../src/parts/Announcer.svelte';
import ConnectionBanner from '../../src/parts/ConnectionBanner.svelte';
import EmptyLog from '../../src/parts/EmptyLog.svelte';
import Exception from '../../src/parts/Exception.svelte';
import JsonTree from '../../src/parts/JsonTree.svelte';
import KeyHelp from '../../src/parts/KeyHelp.svelte';
import LogEntryRow, { type RowLook } from '../../src/parts/LogEntryRow.svelte';
import Login from '../../src/parts/Login.svelte';
import PanelFoot from '../../src/parts/PanelFoot.svelte';
import ProgressStrip from '../../src/parts/ProgressStrip.svelte';
import RetryDialog from '../../src/parts/RetryDialog.svelte';
import StartForm from '../../src/parts/StartForm.svelte';
import type { Status } from '../../src/lib/api';
import type { RowShown } from '../../src/lib/inview';
import { KEYS } from '../../src/lib/keys';
import { entry, task } from '../unit/entries';

const look: RowLook = {
  times: 'utc',
  start: 0,
  gutterCells: 4,
  sourceCells: 8,
  narrow: false,
  needle: null,
};

const none: RowShown = {
  slot: 0,
  row: 6,
  entry: undefined,
  before: undefined,
  expanded: false,
  group: undefined,
  progress: null,
};

function answers(...all: [number, unknown][]) {
  const asked: { path: string; body: unknown }[] = [];
  vi.stubGlobal('fetch', (path: string, init?: RequestInit) => {
    asked.push({ path, body: init?.body ? JSON.parse(init.body as string) : null });
    const [status, body] = all.shift() ?? [500, {}];
    return Promise.resolve(new Response(body === null ? null : JSON.stringify(body), { status }));
  });
  return asked;
}

afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

describe('a row', () => {
  const shown = (row: Partial<RowShown>, more: { look?: RowLook; hit?: boolean } = {}) => {
    const props = { shown: { ...none, ...row }, look, selected: false, cursor: false, hit: false, ...more };
    return render(LogEntryRow, props).container.firstElementChild;
  };

  test('is one text, its columns apart', () => {
    expect(shown({ entry: entry(7, { source: 'git', level: 'WARNING' }) })?.textContent).toBe(
      '   7 00:00:00.700 WARN  git       line 7',
    );
  });

  test('marks what is searched for, and the match that was found', () => {
    const found = shown(
      { entry: entry(7) },
      { hit: true, look: { ...look, needle: needleOf('LINE', false) } },
    );
    expect(found?.querySelector('mark')?.textContent).toBe('line');
    expect(found?.className).toContain('hit');
  });

  test('has links for the pointer, at which Tab does not stop', () => {
    const link = shown({ entry: entry(7, { message: 'see http://x.example' }) })?.querySelector('.message a');
    expect([link?.getAttribute('href'), link?.getAttribute('tabindex')]).toEqual(['http://x.example', '-1']);
  });

  test('that is not here yet keeps its place', () => {
    expect(shown({ entry: undefined })?.textContent).toContain('   7 ');
  });

  test('of a progress is a bar with its newest numbers', () => {
    const progress = { id: 'a', label: 'copy', current: 3, total: 4, unit: 'files', done: false };
    const bar = shown({ entry: entry(7, { metadata: { progress } }), progress });
    expect(bar?.querySelector('progress')?.value).toBe(0.75);
    expect(bar?.querySelector('.message')?.textContent).toBe(' copy 3 of 4 files  75 %');
  });

  test('that begins a group says how long it took, and what is folded', () => {
    const mark = { group: { id: 'g', event: 'start', title: 'copy' } };
    const group = {
      ...{ id: 'g', title: 'copy', source: 'x', from: 6, to: 26, start_seq: 7 },
      started_at: entry(7).timestamp,
      ...{ ended_at: entry(27).timestamp, errors: 1, folded: true },
    };
    const begin = shown({ entry: entry(7, { message: 'copy', metadata: mark }), group });
    expect(begin?.querySelector('.about')?.textContent).toBe('  2.0 s  20 lines  1 error');
    expect(screen.getByRole('button', { name: 'Open the group copy' }).getAttribute('aria-expanded')).toBe(
      'false',
    );
  });

  test('of dropped entries stands out', () => {
    const metadata = { dropped: 1_204 };
    expect(shown({ entry: entry(7, { metadata, message: '1,204 entries dropped' }) })?.className).toContain(
      'loss',
    );
  });

  test('of a continued message has no time of its own', () => {
    const metadata = { continued: true };
    expect(
      shown({ entry: entry(7, { metadata }) })
        ?.querySelector('time')
        ?.textContent.trim(),
    ).toBe('');
  });

  test('a long pause stands out between lines', () => {
    const delta = { ...look, times: 'delta' as const };
    const late = shown({ entry: entry(40), before: entry(10).timestamp }, { look: delta });
    expect(late?.querySelector('time')?.className).toContain('gap');
    expect(late?.querySelector('time')?.textContent.trim()).toBe('+3.000');
  });
});

let reader: LogReader | undefined;

/** One who reads a task whose server says nothing, at an address with `query`. */
function readerOf(status: Status, query = ''): LogReader {
  vi.stubGlobal('fetch', () => new Promise(() => undefined));
  history.replaceState(null, '', `/tasks/ID${query}`);
  reader = new LogReader(new Address(), false, () => undefined);
  reader.session.task = task({ status });
  return reader;
}

afterEach(() => {
  reader?.close();
  reader?.address.close();
  reader = undefined;
});

test.for([
  ['queued', '', 'The task waits for others to end. Its lines will appear here.'],
  ['running', '', 'What the task says will appear here.'],
  ['succeeded', '', 'The task ended without a word.'],
  ['running', '?level=ERROR', 'The filter leaves none of 5 lines. New ones that match will appear here.'],
] as const)('a log without lines, %s%s: %s', ([status, query, told]) => {
  const reader = readerOf(status, query);
  reader.session.tally.counts = { ...reader.session.tally.counts, INFO: 5 };
  render(EmptyLog, { reader });
  expect(screen.getByText(told)).toBeTruthy();
});

test('what is selected is counted, but where a filter leaves lines out it is named', () => {
  const { container } = render(PanelFoot, { reader: readerOf('running', '#L3-L7'), narrow: false });
  expect(container.textContent).toContain('5 selected');
  reader?.close();
  reader?.address.close();
  const filtered = render(PanelFoot, { reader: readerOf('running', '?level=ERROR#L3-L7'), narrow: false });
  expect(filtered.container.textContent).toContain('3 to 7 selected');
});

describe('read out is', () => {
  let reader: LogReader;

  beforeEach(() => {
    vi.useFakeTimers();
    reader = readerOf('running');
    render(Announcer, { reader });
  });

  const told = () => {
    flushSync();
    return screen.getAllByRole('status')[0]?.textContent;
  };
  const errors = (ERROR: number) => (reader.session.tally.counts = { ...reader.session.tally.counts, ERROR });

  test('nothing of what was so before', () => {
    expect(told()).toBe('');
  });

  test('that following ended, and that it goes on', () => {
    expect(told()).toBe('');
    reader.session.view.following = false;
    expect(told()).toBe('Paused');
    reader.session.view.following = true;
    expect(told()).toBe('Following');
  });

  test('errors, at most once in five seconds, and none is forgotten', () => {
    expect(told()).toBe('');
    errors(1);
    expect(told()).toBe('1 new error');
    errors(3);
    errors(4);
    expect(told()).toBe('1 new error');
    vi.advanceTimersByTime(5_000);
    expect(told()).toBe('3 new errors');
  });

  test('the end', () => {
    expect(told()).toBe('');
    reader.session.task = task({ status: 'failed' });
    expect(told()).toBe('The task has ended: failed');
  });
});

test('a connection that is lost is told of after two seconds, with when it is tried again', () => {
  vi.useFakeTimers();
  const now = Date.now();
  const socket = { state: 'reconnecting', lost_at: now, retry_at: now + 5_000, reconnect: vi.fn() };
  const { container } = render(ConnectionBanner, { socket: socket as unknown as LogSocket });
  const told = () => {
    flushSync();
    return container.textContent;
  };
  expect(told()).toBe('');
  vi.advanceTimersByTime(1_900);
  expect(told()).toBe('');
  vi.advanceTimersByTime(100);
  expect(told()).toContain('trying again in 3 s');
});

test('an exception marks own frames and folds those of libraries', () => {
  const frame = (file: string) => ({ file, line: 1, function: 'f', code: 'x()' });
  const libraries = ['a', 'b', 'c'].map((name) => frame(`/x/site-packages/${name}.py`));
  const cause = { type: 'KeyError', message: "'id'", frames: [], cause: null };
  const raised = {
    type: 'RuntimeError',
    message: 'no',
    frames: [frame('/app/mine.py'), ...libraries],
    cause,
  };
  const { container } = render(Exception, { raised });
  expect(container.querySelectorAll('.own')).toHaveLength(1);
  expect(screen.getByText('3 frames of libraries').closest('details')?.open).toBe(false);
  expect(screen.getByText('caused by').parentElement?.textContent).toContain("KeyError: 'id'");
});

test('a field of the first level filters, one below does not', async () => {
  const onfilter = vi.fn();
  render(JsonTree, { value: { index: 'documents', deep: { n: 1 }, none: null }, onfilter });
  await fireEvent.click(screen.getByRole('button', { name: 'documents' }));
  expect(onfilter).toHaveBeenCalledExactlyOnceWith('index', 'documents');
  expect(screen.queryByRole('button', { name: '1' })).toBeNull();
});

test('an address is a link with its filter beside it, for a button holds no link', async () => {
  const onfilter = vi.fn();
  const url = 'https://example.com/a';
  render(JsonTree, { value: { url, none: {} }, onfilter });
  const link = screen.getByRole('link', { name: url });
  expect([link.closest('button'), link.getAttribute('rel')]).toEqual([null, 'noopener noreferrer']);
  await fireEvent.click(screen.getByRole('button', { name: 'Show only entries with this url' }));
  expect(onfilter).toHaveBeenCalledExactlyOnceWith('url', url);
  expect(screen.getByText('{}')).toBeTruthy();
});

test('the keys that are shown are those that are bound', () => {
  HTMLDialogElement.prototype.showModal = vi.fn();
  render(KeyHelp, { onclose: () => undefined });
  for (const { label } of KEYS) expect(screen.getByText(label)).toBeTruthy();
});

test('running progress is named, with what is left', () => {
  const progress = { id: 'a', label: 'copy', current: 30, total: 60, unit: 'files', done: false };
  render(ProgressStrip, { running: [{ progress, source: 'x', rate: 3, left_ms: 10_000 }] });
  expect(screen.getByRole('listitem').textContent).toMatch(
    /copy.*50 %.*30 of 60 files.*3 files\/s, 10 s left/s,
  );
});

test('a wrong token is said to be wrong', async () => {
  answers([401, { title: 'Unauthorized', detail: 'no', status: 401 }]);
  render(Login, { onopened: () => undefined });
  await fireEvent.input(screen.getByLabelText('Token'), { target: { value: 'x' } });
  await fireEvent.click(screen.getByRole('button'));
  expect((await screen.findByRole('alert')).textContent).toContain('not the token');
});

test('secrets are asked for again, and only they are sent', async () => {
  HTMLDialogElement.prototype.showModal = vi.fn();
  const asked = answers([201, task()]);
  const old = task({ params: { remote: { url: 'u', password: '***' }, depth: 1 } });
  const onstarted = vi.fn();
  render(RetryDialog, {
    task: old,
    faults: [{ path: 'params.remote.password', message: 'secret' }],
    onstarted,
    onclose: () => undefined,
  });
  await fireEvent.input(screen.getByLabelText('remote.password'), { target: { value: 'hunter22' } });
  await fireEvent.submit(screen.getByLabelText('remote.password').closest('form') ?? document);
  await vi.waitFor(() => expect(onstarted).toHaveBeenCalled());
  expect(asked[0]?.body).toEqual({ params: { remote: { url: 'u', password: 'hunter22' } } });
});

describe('the form that starts a task', () => {
  const schema = {
    properties: { path: { type: 'string' }, depth: { type: 'integer' }, deep: { type: 'boolean' } },
    required: ['path'],
  };
  const plugin = { name: 'scan', title: 'Scan', description: 'Looks.', params_schema: schema, context: true };
  const plugins = { plugins: [plugin], broken: [{ name: 'bad', error: 'SyntaxError: line 3' }] };
  const onstarted = vi.fn();

  beforeEach(() => onstarted.mockClear());

  async function chosen(...more: [number, unknown][]) {
    const asked = answers([200, plugins], ...more);
    render(StartForm, { narrow: false, onstarted, ondrawer: () => undefined });
    await fireEvent.click(await screen.findByRole('button', { name: /^scan/ }));
    return asked;
  }

  test('sends what was typed, and goes to the task', async () => {
    const asked = await chosen([201, task()]);
    await fireEvent.input(screen.getByLabelText(/^path/), { target: { value: '/tmp' } });
    await fireEvent.input(screen.getByLabelText('depth'), { target: { value: '3' } });
    await fireEvent.click(screen.getByLabelText('deep'));
    await fireEvent.click(screen.getByRole('button', { name: 'Start scan' }));
    await vi.waitFor(() => expect(onstarted).toHaveBeenCalled());
    expect(asked[1]?.body).toEqual({ plugin: 'scan', params: { path: '/tmp', depth: 3, deep: true } });
  });

  test('tells faults at their fields, and those of no field above', async () => {
    const errors = [
      { path: 'params.path', message: 'Field required' },
      { path: 'params', message: 'odd' },
    ];
    await chosen([422, { title: 'Params invalid', detail: 'no', status: 422, errors }]);
    await fireEvent.click(screen.getByRole('button', { name: 'Start scan' }));
    expect((await screen.findByRole('alert')).textContent).toContain('params: odd');
    expect(screen.getByLabelText(/^path/).getAttribute('aria-invalid')).toBe('true');
    expect(screen.getByLabelText('depth').getAttribute('aria-invalid')).toBe('false');
  });

  test('takes JSON for a plugin that does not declare its params', async () => {
    const old = { ...plugin, params_schema: { type: 'object' } };
    const asked = answers([200, { plugins: [old], broken: [] }], [201, task()]);
    render(StartForm, { narrow: false, onstarted, ondrawer: () => undefined });
    await fireEvent.click(await screen.findByRole('button', { name: /^scan/ }));
    await fireEvent.input(screen.getByLabelText(/^Params, as JSON/), {
      target: { value: '{"path": "/tmp"}' },
    });
    await fireEvent.click(screen.getByRole('button', { name: 'Start scan' }));
    await vi.waitFor(() => expect(onstarted).toHaveBeenCalled());
    expect(asked[1]?.body).toEqual({ plugin: 'scan', params: { path: '/tmp' } });
  });

  test('shows what could not be loaded, and why', async () => {
    await chosen();
    expect(screen.getByText('SyntaxError: line 3')).toBeTruthy();
  });
});

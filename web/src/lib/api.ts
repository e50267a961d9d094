/**
 * The service's HTTP interface, as the page uses it: shapes, and one function for each route.
 *
 * Every refusal is a `Problem` (RFC 9457), also where no answer came (`status` 0), so whoever
 * calls needs to know one kind of error. Every call may be aborted.
 */
import { parse } from './json';

export const LEVELS = ['DEBUG', 'INFO', 'WARNING', 'ERROR'] as const;
export type Level = (typeof LEVELS)[number];

export type Status = 'queued' | 'running' | 'succeeded' | 'failed' | 'cancelled' | 'interrupted';

export interface Progress {
  id: string | number;
  label: string;
  current: number;
  total: number | null;
  unit: string;
  done: boolean;
}

export interface Task {
  id: string;
  plugin: string;
  params: Record<string, unknown>;
  status: Status;
  created_at: string;
  started_at: string | null;
  finished_at: string | null;
  result: unknown;
  error: string | null;
  retry_of: string | null;
  last_seq: number;
  progress: Progress | null;
  counts: Record<Level, number>;
}

export interface Entry {
  seq: number;
  timestamp: string;
  level: Level;
  source: string;
  message: string;
  metadata: Record<string, unknown> | null;
}

export interface Page {
  entries: Entry[];
  total: number | null;
  last_seq: number;
  more: boolean;
  ended: boolean;
}

export interface Bin {
  start: string;
  end: string;
  count: number;
  errors: number;
  first_seq: number;
}

export interface Outline {
  total: number;
  by_level: Record<string, number>;
  by_source: Record<string, number>;
  bins: Bin[];
  /** The seq of match 1, 1,025, 2,049 … */
  anchors: number[];
  last_seq: number;
}

export interface Stats {
  total: number;
  by_level: Record<string, number>;
  by_source: Record<string, number>;
}

export interface Hit {
  entry: Entry;
  /** From 1. */
  ordinal: number;
  total: number;
}

export interface PluginShown {
  name: string;
  title: string;
  description: string;
  params_schema: Record<string, unknown> | null;
  context: boolean;
}

export interface Fault {
  path: string;
  message: string;
}

export type Frame =
  | { type: 'hello'; task: Task; last_seq: number }
  | { type: 'entries'; entries: Entry[] }
  | { type: 'caught_up'; last_seq: number }
  | { type: 'progress'; source: string; progress: Progress }
  | { type: 'task'; task: Task }
  | { type: 'ping'; last_seq: number }
  | { type: 'end'; task: Task; last_seq: number };

/** A request that was refused, or got no answer (`status` 0). */
export class Problem extends Error {
  status: number;
  title: string;
  /** Which kind of problem taskd says it is: two kinds may share a status. */
  type: string;
  faults: Fault[];

  constructor(status: number, title: string, detail: string, faults: Fault[] = [], type = 'about:blank') {
    super(detail);
    this.status = status;
    this.title = title;
    this.type = type;
    this.faults = faults;
  }
}

export function isAbort(error: unknown): boolean {
  return error instanceof DOMException && error.name === 'AbortError';
}

/** `error` as a `Problem`: what no server said is a fault of the page itself. */
export function problemOf(error: unknown): Problem {
  return error instanceof Problem ? error : new Problem(-1, 'The page made a mistake', String(error));
}

export function hasEnded(task: Task): boolean {
  return task.status !== 'queued' && task.status !== 'running';
}

/** The event that the window gets when the service asks for its token. */
export const LOCKED = 'taskd-locked';
/** The event that the window gets when the service could not do what it was asked for. */
export const TROUBLED = 'taskd-troubled';

async function request(path: string, init: RequestInit = {}): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(path, init);
  } catch (error) {
    if (isAbort(error)) throw error;
    throw new Problem(
      0,
      'No answer',
      'The service cannot be reached. It may be stopped, or the network is down.',
    );
  }
  if (response.ok) return response;
  // Whoever shows the page asks for the token then, whatever was asked for.
  if (response.status === 401) dispatchEvent(new Event(LOCKED));
  if (response.status >= 500) dispatchEvent(new Event(TROUBLED));
  throw await refusal(response);
}

async function refusal(response: Response): Promise<Problem> {
  try {
    const said = (await response.json()) as {
      title?: string;
      detail?: string;
      type?: string;
      errors?: Fault[];
    };
    return new Problem(
      response.status,
      said.title ?? response.statusText,
      said.detail ?? response.statusText,
      said.errors,
      said.type,
    );
  } catch {
    return new Problem(
      response.status,
      response.statusText || String(response.status),
      `HTTP ${response.status}`,
    );
  }
}

async function get<T>(path: string, signal?: AbortSignal): Promise<T> {
  return parse(await (await request(path, signal ? { signal } : {})).text()) as T;
}

async function post<T>(path: string, body?: unknown): Promise<T> {
  const init: RequestInit = { method: 'POST' };
  if (body !== undefined) {
    init.body = JSON.stringify(body);
    init.headers = { 'Content-Type': 'application/json' };
  }
  const response = await request(path, init);
  return (response.status === 204 ? undefined : parse(await response.text())) as T;
}

function taskPath(task: string): string {
  return `/api/tasks/${encodeURIComponent(task)}`;
}

/** The address of a part of a task's log; `query` has the filter. */
export function logPath(task: string, part: string, query: URLSearchParams): string {
  const asked = query.toString();
  return `${taskPath(task)}/logs${part}${asked ? `?${asked}` : ''}`;
}

export const listTasks = (before: string | null, limit: number, signal?: AbortSignal) =>
  get<{ tasks: Task[]; next_before: string | null }>(
    `/api/tasks?limit=${limit}${before ? `&before=${before}` : ''}`,
    signal,
  );
export const showTask = (task: string, signal?: AbortSignal) => get<Task>(taskPath(task), signal);
export const readHealth = (signal: AbortSignal) => get<{ problems?: string[] }>('/api/health', signal);
export const listPlugins = () =>
  get<{ plugins: PluginShown[]; broken: { name: string; error: string }[] }>('/api/plugins');
export const createTask = (plugin: string, params: unknown) => post<Task>('/api/tasks', { plugin, params });
export const cancelTask = (task: string) => post<Task>(`${taskPath(task)}/cancel`);
export const retryTask = (task: string, params?: unknown) =>
  post<Task>(`${taskPath(task)}/retry`, params === undefined ? undefined : { params });
export const openSession = (token: string) => post<undefined>('/api/session', { token });

export async function deleteTask(task: string): Promise<void> {
  await request(taskPath(task), { method: 'DELETE' });
}

export const readPage = (task: string, query: URLSearchParams, signal?: AbortSignal) =>
  get<Page>(logPath(task, '', query), signal);
export const readStats = (task: string, query: URLSearchParams, signal?: AbortSignal) =>
  get<Stats>(logPath(task, '/stats', query), signal);
export const readOutline = (task: string, query: URLSearchParams, signal?: AbortSignal) =>
  get<Outline>(logPath(task, '/outline', query), signal);

/** The nearest match strictly beyond `from`, or null where there is none. */
export async function readNext(
  task: string,
  query: URLSearchParams,
  from: number,
  direction: 'next' | 'previous',
  signal?: AbortSignal,
): Promise<Hit | null> {
  const asked = new URLSearchParams(query);
  asked.set('from', String(from));
  asked.set('direction', direction);
  try {
    return await get<Hit>(logPath(task, '/next', asked), signal);
  } catch (error) {
    if (error instanceof Problem && error.status === 404 && !/task-not-found/.test(error.type)) return null;
    throw error;
  }
}

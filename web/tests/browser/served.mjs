/**
 * A real `taskd serve` on a data directory of its own, for tests, screenshots and the benchmark.
 *
 * It keeps its port from its first start on, so after `stop` or `kill` and `start` the same page
 * finds the same tasks at the same address. `PYTHON` names the interpreter that has taskd; the
 * repository's `.venv` is the default.
 */
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('../../..', import.meta.url));
const PLUGINS = fileURLToPath(new URL('plugins', import.meta.url));
const VENV_PYTHON = join(ROOT, '.venv', 'bin', 'python');
const START_MAX_MS = 30_000;
const STOP_MAX_MS = 20_000;
const ENDED = ['succeeded', 'failed', 'cancelled', 'interrupted'];

/**
 * @typedef {{ id: string, status: string, last_seq: number, error: string | null, result: unknown,
 *   progress: { current: number, total: number | null } | null }} Task
 * @typedef {{ seq: number, timestamp: string, level: string, source: string, message: string,
 *   metadata: Record<string, unknown> | null }} Entry
 */

export class Served {
  /** The address that the page has, without a slash at its end. */
  url = '';
  /** What it said on stderr, line by line. @type {string[]} */
  said = [];
  /** @type {import('node:child_process').ChildProcess | undefined} */
  #process;
  #port = 0;
  #folder = mkdtempSync(join(tmpdir(), 'taskd-browser-'));
  #options;

  /** `options` go to `taskd serve`. @param {string[]} options */
  constructor(...options) {
    this.#options = options;
  }

  /** Start it, and return when it accepts connections. @returns {Promise<this>} */
  async start() {
    const python = process.env.PYTHON ?? (existsSync(VENV_PYTHON) ? VENV_PYTHON : 'python3');
    const where = ['--port', String(this.#port), '--data-dir', join(this.#folder, 'data')];
    const started = spawn(
      python,
      ['-m', 'taskd', 'serve', ...where, '--plugins', PLUGINS, ...this.#options],
      {
        cwd: ROOT,
        env: withoutTaskd(process.env),
        stdio: ['ignore', 'ignore', 'pipe'],
      },
    );
    this.#process = started;
    this.url = await within(START_MAX_MS, 'taskd serve to be ready', this.#ready(started));
    this.#port = Number(new URL(this.url).port);
    return this;
  }

  /** @param {import('node:child_process').ChildProcess} started @returns {Promise<string>} */
  #ready(started) {
    return new Promise((resolve, reject) => {
      started.on('error', reject);
      started.on('exit', (code) =>
        reject(new Error(`taskd serve ended with ${code}: ${this.said.join('\n')}`)),
      );
      if (!started.stderr) throw new Error('stderr is a pipe');
      createInterface(started.stderr).on('line', (line) => {
        this.said.push(line);
        if (line.includes(' ready on ')) resolve(line.split(' ').at(-1) ?? '');
      });
    });
  }

  /** Ask it to stop, in order, and wait for its end. */
  stop() {
    return this.#end('SIGTERM');
  }

  /** `kill -9`. */
  kill() {
    return this.#end('SIGKILL');
  }

  /** Stop it and start it again: same port, same data. */
  async restart() {
    await this.stop();
    return this.start();
  }

  /** Kill it, and remove its data: the end of a test. */
  async remove() {
    await this.kill();
    rmSync(this.#folder, { recursive: true, force: true });
  }

  /** @param {NodeJS.Signals} signal */
  async #end(signal) {
    const running = this.#process;
    if (running?.exitCode !== null || running.signalCode !== null) return;
    const exited = new Promise((resolve) => running.once('exit', resolve));
    running.kill(signal);
    await within(STOP_MAX_MS, 'taskd serve to stop', exited);
  }

  /**
   * The JSON that a path answers with; an error for any status but 2xx.
   * @param {string} path @param {RequestInit} request
   */
  async fetch(path, request = {}) {
    const answer = await fetch(this.url + path, request);
    const text = await answer.text();
    if (!answer.ok) throw new Error(`${request.method ?? 'GET'} ${path}: ${answer.status} ${text}`);
    return text ? JSON.parse(text) : null;
  }

  /**
   * Start a task; its id.
   * @param {string} plugin @param {Record<string, unknown>} params @returns {Promise<string>}
   */
  async submit(plugin, params = {}) {
    const headers = { 'Content-Type': 'application/json' };
    const body = JSON.stringify({ plugin, params });
    return (await this.fetch('/api/tasks', { method: 'POST', headers, body })).id;
  }

  /** A task as it is now. @param {string} id @returns {Promise<Task>} */
  task(id) {
    return this.fetch(`/api/tasks/${id}`);
  }

  /** Entries of a task, filtered by a query string. @param {string} id @param {string} query @returns {Promise<Entry[]>} */
  async entries(id, query = 'limit=5000') {
    return (await this.fetch(`/api/tasks/${id}/logs?${query}`)).entries;
  }

  /** Wait until the task has ended; the task. @param {string} id @param {number} withinMs @returns {Promise<Task>} */
  async ended(id, withinMs = 30_000) {
    return this.until(id, (task) => ENDED.includes(task.status), withinMs);
  }

  /** Wait until its log has come to `seq`. @param {string} id @param {number} seq @param {number} withinMs */
  async reached(id, seq, withinMs = 30_000) {
    return this.until(id, (task) => task.last_seq >= seq, withinMs);
  }

  /** @param {string} id @param {(task: Task) => boolean} holds @param {number} withinMs @returns {Promise<Task>} */
  async until(id, holds, withinMs = 30_000) {
    const deadline = performance.now() + withinMs;
    for (;;) {
      const task = await this.task(id);
      if (holds(task)) return task;
      if (performance.now() > deadline) throw new Error(`it did not come to that: ${JSON.stringify(task)}`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  /** Run a task to its end; its id. @param {string} plugin @param {Record<string, unknown>} params */
  async run(plugin, params = {}) {
    const id = await this.submit(plugin, params);
    await this.ended(id);
    return id;
  }

  /** The file that a plugin's `gate` waits for. @param {string} name */
  gate(name) {
    return join(this.#folder, name);
  }

  /** Let what waits at `gate(name)` go on. @param {string} name */
  open(name) {
    writeFileSync(this.gate(name), '');
  }
}

/** @param {NodeJS.ProcessEnv} environment */
function withoutTaskd(environment) {
  return Object.fromEntries(Object.entries(environment).filter(([name]) => !name.startsWith('TASKD_')));
}

/**
 * @template T
 * @param {number} ms @param {string} what @param {Promise<T>} promise @returns {Promise<T>}
 */
async function within(ms, what, promise) {
  /** @type {NodeJS.Timeout | undefined} */
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited ${ms} ms for ${what}`)), ms);
  });
  try {
    return /** @type {T} */ (await Promise.race([promise, late]));
  } finally {
    clearTimeout(timer);
  }
}

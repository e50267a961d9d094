/**
 * The newest tasks, asked for again and again: often while one runs, seldom while nobody looks.
 */

import { Problem, hasEnded, isAbort, listTasks, problemOf, type Task } from './api';

const PAGE = 50;
const BUSY_MS = 2_000;
const QUIET_MS = 5_000;
const HIDDEN_MS = 30_000;
const OLDER_MAX = 1_000;

export class TaskList {
  tasks = $state.raw<Task[]>([]);
  loaded = $state.raw(false);
  problem = $state.raw<Problem | null>(null);
  more = $state.raw(false);
  /** Now, in ms, as often as the list is read: ages and durations are counted from it. */
  now = $state.raw(Date.now());

  #shown = PAGE;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #controller: AbortController | null = null;
  #closed = false;

  constructor() {
    document.addEventListener('visibilitychange', this.#look);
    void this.refresh();
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#controller?.abort();
    document.removeEventListener('visibilitychange', this.#look);
  }

  async refresh(): Promise<void> {
    clearTimeout(this.#timer);
    this.#controller?.abort();
    const controller = (this.#controller = new AbortController());
    try {
      const { tasks, next_before } = await listTasks(null, this.#shown, controller.signal);
      this.tasks = tasks;
      this.more = next_before !== null && this.#shown < OLDER_MAX;
      this.loaded = true;
      this.problem = null;
    } catch (error) {
      if (isAbort(error)) return;
      this.problem = problemOf(error);
    }
    this.now = Date.now();
    if (!this.#closed) this.#timer = setTimeout(() => void this.refresh(), this.#interval);
  }

  /** Show as many again. */
  async older(): Promise<void> {
    this.#shown = Math.min(OLDER_MAX, this.#shown * 2);
    await this.refresh();
  }

  /** A task that is known better elsewhere. */
  patch(task: Task): void {
    const known = this.tasks.some((each) => each.id === task.id);
    this.tasks = known
      ? this.tasks.map((each) => (each.id === task.id ? task : each))
      : [task, ...this.tasks].sort((a, b) => (a.id < b.id ? 1 : -1));
  }

  remove(id: string): void {
    this.tasks = this.tasks.filter((task) => task.id !== id);
  }

  get #interval(): number {
    if (document.hidden) return HIDDEN_MS;
    return this.tasks.some((task) => !hasEnded(task)) ? BUSY_MS : QUIET_MS;
  }

  #look = (): void => {
    if (!document.hidden) void this.refresh();
  };
}

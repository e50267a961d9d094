/**
 * Whether the service is well, in its own words: what is wrong now, and what it has to tell.
 *
 * It is asked seldom while it is well, more often while it is not, and at once where a request
 * was refused for its own fault, but never twice within three seconds, and not while nobody looks.
 * Where no answer comes nothing is known of it: the connection tells of that.
 */

import { TROUBLED, problemOf, readHealth } from './api';
import { remember, remembered } from './memory';

const WELL_MS = 30_000;
const ILL_MS = 3_000;

export class Health {
  /** What is wrong; '' where nothing is known to be. */
  trouble = $state.raw('');
  /** What it tells, but what was put away. */
  notices = $state.raw<string[]>([]);

  #controller = new AbortController();
  #timer: ReturnType<typeof setTimeout> | undefined;
  #asked_at = 0;

  constructor() {
    addEventListener(TROUBLED, this.#look);
    document.addEventListener('visibilitychange', this.#look);
    void this.#ask();
  }

  close(): void {
    this.#controller.abort();
    clearTimeout(this.#timer);
    removeEventListener(TROUBLED, this.#look);
    document.removeEventListener('visibilitychange', this.#look);
  }

  /** Do not tell `notice` again in this browser. */
  dismiss(notice: string): void {
    remember('dismissed', JSON.stringify([...this.#dismissed, notice].slice(-20)));
    this.notices = this.notices.filter((each) => each !== notice);
  }

  get #dismissed(): string[] {
    return JSON.parse(remembered('dismissed') ?? '[]') as string[];
  }

  #look = (): void => this.#askIn(this.#asked_at + ILL_MS - Date.now());

  #askIn(ms: number): void {
    clearTimeout(this.#timer);
    if (!this.#controller.signal.aborted) this.#timer = setTimeout(() => void this.#ask(), ms);
  }

  async #ask(): Promise<void> {
    if (document.hidden) return; // asked again when it is looked at
    this.#asked_at = Date.now();
    try {
      const { notices } = await readHealth(this.#controller.signal);
      this.trouble = '';
      this.notices = (notices ?? []).filter((notice) => !this.#dismissed.includes(notice));
    } catch (error) {
      const problem = problemOf(error);
      this.trouble = problem.status > 0 ? problem.message : '';
    }
    this.#askIn(this.trouble ? ILL_MS : WELL_MS);
  }
}

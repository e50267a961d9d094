/**
 * Whether the service is well, in its own words: why it refuses work now, and what else is wrong.
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
  /** Why it can accept or store nothing; '' if that is not known to be so. */
  trouble = $state.raw('');
  /** What is wrong although it works, but what was put away. */
  problems = $state.raw<string[]>([]);

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

  /** Do not show `problem` again in this browser. */
  dismiss(problem: string): void {
    remember('dismissed', JSON.stringify([...this.#dismissed, problem].slice(-20)));
    this.problems = this.problems.filter((each) => each !== problem);
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
      const { problems } = await readHealth(this.#controller.signal);
      this.trouble = '';
      this.problems = (problems ?? []).filter((problem) => !this.#dismissed.includes(problem));
    } catch (error) {
      const problem = problemOf(error);
      this.trouble = problem.status > 0 ? problem.message : '';
    }
    this.#askIn(this.trouble ? ILL_MS : WELL_MS);
  }
}

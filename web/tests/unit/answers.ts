/** A server's answers to what the page asks for, for tests: what was asked is written down. */
import { vi } from 'vitest';

/** Answer each `fetch` with what `answer` makes of its address: null is a 404, a number another status. */
export function stubAnswers(answer: (url: URL) => unknown): URL[] {
  const asked: URL[] = [];
  vi.stubGlobal('fetch', (path: string, init?: RequestInit) => {
    const url = new URL(path, 'http://x');
    asked.push(url);
    if (init?.signal?.aborted) return Promise.reject(new DOMException('left', 'AbortError'));
    const said = answer(url) ?? 404;
    const status = typeof said === 'number' ? said : 200;
    return Promise.resolve(new Response(JSON.stringify(said), { status }));
  });
  return asked;
}

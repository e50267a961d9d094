import { afterEach, beforeEach, expect, test, vi } from 'vitest';

import { TROUBLED } from '../../src/lib/api';
import { Health } from '../../src/lib/health.svelte';

let health: Health;
let asked = 0;
/** What the service answers now; null: nothing. */
let answer: { status: number; body: object } | null;
const well = (...problems: string[]) => ({
  status: 200,
  body: { status: problems.length ? 'degraded' : 'ok', problems },
});
const ill = { status: 503, body: { title: 'Service Unavailable', status: 503, detail: 'The disk is full.' } };

beforeEach(() => {
  vi.useFakeTimers();
  localStorage.clear();
  asked = 0;
  answer = well();
  vi.stubGlobal('fetch', () => {
    asked++;
    return answer
      ? Promise.resolve(new Response(JSON.stringify(answer.body), { status: answer.status }))
      : Promise.reject(new TypeError('Failed to fetch'));
  });
});

afterEach(() => {
  health.close();
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

async function begin(): Promise<void> {
  health = new Health();
  await vi.advanceTimersByTimeAsync(0);
}

test('a service that is well is asked seldom', async () => {
  await begin();
  await vi.advanceTimersByTimeAsync(29_000);
  expect(asked).toBe(1);
  await vi.advanceTimersByTimeAsync(61_000);
  expect(asked).toBe(4);
  expect(health.trouble).toBe('');
});

test('what is wrong is told in its words, until it is well again', async () => {
  answer = ill;
  await begin();
  expect(health.trouble).toBe('The disk is full.');
  answer = well();
  await vi.advanceTimersByTimeAsync(3_000);
  expect(health.trouble).toBe('');
});

test('a request that failed asks at once, and a hundred of them no more often', async () => {
  await begin();
  await vi.advanceTimersByTimeAsync(10_000);
  answer = ill;
  for (let n = 0; n < 100; n++) dispatchEvent(new Event(TROUBLED));
  await vi.advanceTimersByTimeAsync(0);
  expect(health.trouble).toBe('The disk is full.');
  expect(asked).toBe(2);
  for (let n = 0; n < 100; n++) dispatchEvent(new Event(TROUBLED));
  await vi.advanceTimersByTimeAsync(2_900);
  expect(asked).toBe(2);
});

test('a service that does not answer is not said to be ill', async () => {
  answer = ill;
  await begin();
  answer = null;
  await vi.advanceTimersByTimeAsync(3_000);
  expect(health.trouble).toBe('');
});

test('a problem that was put away does not come back, also not to another page', async () => {
  answer = well('one', 'two');
  await begin();
  expect(health.problems).toEqual(['one', 'two']);
  health.dismiss('one');
  expect(health.problems).toEqual(['two']);
  await vi.advanceTimersByTimeAsync(30_000);
  expect(health.problems).toEqual(['two']);
  health.close();
  await begin();
  expect(health.problems).toEqual(['two']);
});

test('nothing is asked after it was closed', async () => {
  await begin();
  health.close();
  dispatchEvent(new Event(TROUBLED));
  await vi.advanceTimersByTimeAsync(60_000);
  expect(asked).toBe(1);
});

import { defineConfig } from 'vitest/config';

// Two files at a time, each with a server and a browser of its own: a test waits more than it works.
export default defineConfig({
  test: {
    environment: 'node',
    include: ['tests/browser/**/*.test.ts'],
    pool: 'threads',
    maxWorkers: 2,
    testTimeout: 60_000,
    hookTimeout: 60_000,
    // As long as a locator waits (harness.ts): a slow machine is no fault, and a second is soon over there.
    expect: { poll: { timeout: 15_000 } },
  },
});

import { defineConfig } from 'vitest/config';

// One file after the other: each has a server and a browser of its own, and the machine few cores.
export default defineConfig({
  test: {
    environment: 'node',
    include: ['tests/browser/**/*.test.ts'],
    fileParallelism: false,
    testTimeout: 60_000,
    hookTimeout: 60_000,
  },
});

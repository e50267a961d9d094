import { svelteTesting } from '@testing-library/svelte/vite';
import { defineConfig, mergeConfig } from 'vitest/config';

import page from './vite.config.ts';

// Apart from vite.config.ts, which must work where the test tools are not installed.
export default mergeConfig(
  page,
  defineConfig({
    plugins: [svelteTesting()],
    test: {
      environment: 'happy-dom',
      include: ['tests/unit/**/*.test.ts', 'tests/components/**/*.test.ts'],
      // One happy-dom for all: to make one for each file takes longer than the tests.
      pool: 'threads',
      isolate: false,
      maxWorkers: 1,
      passWithNoTests: false,
      restoreMocks: true,
    },
  }),
);

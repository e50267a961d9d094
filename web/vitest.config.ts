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
      passWithNoTests: false,
      restoreMocks: true,
    },
  }),
);

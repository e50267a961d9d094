import { readdirSync } from 'node:fs';
import { basename } from 'node:path';
import { fileURLToPath } from 'node:url';

const PARTS = readdirSync(fileURLToPath(new URL('src/parts', import.meta.url))).sort();

/** Read by Vite, svelte-check and eslint alike. Types are stripped by Svelte itself. */
export default {
  compilerOptions: {
    runes: true,
    // Components are told apart by their number: the usual names are a tenth of the style sheet.
    /** @param {{ filename: string }} given */
    cssHash: ({ filename }) => `_${(PARTS.indexOf(basename(filename)) + 1).toString(36)}`,
  },
};

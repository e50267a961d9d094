/** Read by Vite, svelte-check and eslint alike. Types are stripped by Svelte itself. */
export default {
  compilerOptions: { runes: true },
};

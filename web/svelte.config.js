/** Read by Vite, svelte-check and eslint alike. Types are stripped by Svelte itself. */
export default {
  compilerOptions: {
    runes: true,
    // Four characters tell the page's components apart; the usual names are a tenth of its style sheet.
    /** @param {{ css: string, hash: (text: string) => string }} given */
    cssHash: ({ css, hash }) => `s${hash(css).slice(0, 4)}`,
  },
};

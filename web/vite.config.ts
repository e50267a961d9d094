import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig, type Plugin } from 'vite';

// `make page` and `npm run dev` show the page as it is edited, with the tasks of this running taskd.
const server = process.env.TASKD_SERVER ?? 'http://127.0.0.1:8642';

export default defineConfig({
  plugins: [svelte(), pruned()],
  build: {
    target: 'es2023',
    // Browsers of 2024 and later: they know light-dark(), which the older ones take two thirds more CSS for.
    cssTarget: ['chrome123', 'firefox120', 'safari17.5', 'ios17.5'],
    // One sheet packs better than two, and no part that comes later comes without its looks.
    cssCodeSplit: false,
    outDir: 'dist',
    emptyOutDir: true,
    // The page's CSP takes files of its own and nothing else: no data: addresses, no inline code.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
  server: {
    host: '127.0.0.1',
    // The Host that the browser sent goes on to taskd, which compares it with the Origin.
    proxy: { '/api': { target: server, ws: true, changeOrigin: false } },
  },
});

/**
 * Says of Svelte's runtime what it cannot know, so that the bundler leaves out what follows from it:
 * nothing is rendered on a server, so nothing is ever hydrated; and no state is deep (eslint refuses
 * `$state` without `.raw`), so no value is ever a proxy. Where Svelte no longer has these lines the
 * build ends with an error.
 */
function pruned(): Plugin {
  const known: [file: string, from: string | RegExp, to: string][] = [
    ['dom/hydration.js', 'export let hydrating = false;', 'export const hydrating = false;'],
    ['dom/hydration.js', /\n\thydrating = value;/, ''],
    ['proxy.js', 'export function proxy(value) {', 'export function proxy(value) {\n\treturn value;'],
  ];
  return {
    name: 'pruned',
    apply: 'build',
    transform(code, id) {
      let text = code;
      for (const [file, from, to] of known) {
        if (!id.endsWith(`/svelte/src/internal/client/${file}`)) continue;
        const changed = text.replace(from, to);
        if (changed === text) this.error(`${file} of Svelte has no ${from} any more`);
        text = changed;
      }
      return text === code ? null : { code: text, map: null };
    },
  };
}

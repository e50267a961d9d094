import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig } from 'vite';

// `make page` and `npm run dev` show the page as it is edited, with the tasks of this running taskd.
const server = process.env.TASKD_SERVER ?? 'http://127.0.0.1:8642';

export default defineConfig({
  plugins: [svelte()],
  build: {
    target: 'es2023',
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

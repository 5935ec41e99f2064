import { defineConfig } from 'vite';

/** Builds the page into build/console, which the server serves under /console/. */
export default defineConfig({
  root: import.meta.dirname,
  base: '/console/',
  build: {
    outDir: '../../build/console',
    emptyOutDir: true,
    target: 'es2022',
    // No inline code: the content security policy allows only files of this server.
    assetsInlineLimit: 0,
    modulePreload: false,
    sourcemap: false,
  },
  oxc: { jsx: { runtime: 'automatic', importSource: 'preact' } },
});

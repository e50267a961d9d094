/**
 * The pictures in the README: `make screenshots` makes them anew, from a real server with real tasks.
 *
 * They are taken of the page that is built, in Chromium, into `web/pictures/`.
 */
import { mkdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

import { launchChromium } from './tests/browser/chromium.mjs';
import { Served } from './tests/browser/served.mjs';

const CHECKOUT = fileURLToPath(new URL('..', import.meta.url));
const PICTURES = fileURLToPath(new URL('pictures', import.meta.url));

/** @typedef {{ name: string, colorScheme: 'dark' | 'light', width: number, height: number }} Look */
/** @type {Look[]} */
const LOOKS = [
  { name: 'dark', colorScheme: 'dark', width: 1400, height: 860 },
  { name: 'light', colorScheme: 'light', width: 1400, height: 860 },
  { name: 'phone', colorScheme: 'dark', width: 390, height: 780 },
];

/** Tasks that have ended, well and not, and one that is running; its id. @param {Served} server */
async function work(server) {
  await server.run('checksum', { path: `${CHECKOUT}LICENSE` });
  await server.run('git', { action: 'log', directory: CHECKOUT });
  await server.run('backup', { source: `${CHECKOUT}taskd`, destination: server.gate('backups') });
  await server.run('git', {
    action: 'clone',
    repository: server.gate('nowhere'),
    directory: server.gate('clone'),
  });
  const id = await server.submit('survey', { checkout: CHECKOUT, pace_s: 0.12 });
  await server.until(id, (task) => (task.progress?.current ?? 0) >= 80);
  return id;
}

/**
 * @param {import('playwright-core').Browser} browser
 * @param {Look} look @param {string} address
 */
async function take(browser, { name, colorScheme, width, height }, address) {
  const page = await browser.newPage({
    viewport: { width, height },
    colorScheme,
    deviceScaleFactor: 1.5,
    reducedMotion: 'reduce',
  });
  await page.goto(address);
  await page.getByRole('log').getByText('lines').first().waitFor();
  // The strip above the log comes with the first progress that is told live.
  await page
    .getByText(/\d+ of \d+ files/)
    .first()
    .waitFor();
  await page.evaluate(() => document.fonts.ready);
  await page.screenshot({ path: `${PICTURES}/${name}.png` });
  await page.close();
}

mkdirSync(PICTURES, { recursive: true });
const server = await new Served().start();
const browser = await launchChromium();
try {
  const id = await work(server);
  for (const look of LOOKS) await take(browser, look, `${server.url}/tasks/${id}`);
} finally {
  await browser.close();
  await server.remove();
}

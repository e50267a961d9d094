/**
 * The system's Chromium, for tests, screenshots and the benchmark of the page.
 *
 * `CHROMIUM` names one; without it the first of the usual names on PATH is taken.
 */
import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';

import { chromium } from 'playwright-core';

// As in tests/web/test_browser.py, which tells why the tests are skipped where none is found.
const NAMES = ['chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable'];

const ARGUMENTS = [
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-gpu',
  '--disable-quic',
  '--disable-sync',
  '--no-first-run',
];

/**
 * The program's path.
 * @returns {string}
 */
export function findChromium() {
  const named = process.env.CHROMIUM;
  const folders = (process.env.PATH ?? '').split(delimiter);
  const candidates = named
    ? [named, ...folders.map((folder) => join(folder, named))]
    : NAMES.flatMap((name) => folders.map((folder) => join(folder, name)));
  const found = candidates.find(isProgram);
  if (!found) throw new Error(`There is no ${named ?? 'Chromium'} here; CHROMIUM= names one.`);
  return found;
}

/** @param {string} path */
function isProgram(path) {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/**
 * Start it, without a window. `args` are added to those that keep it from the network; `without` are
 * left out of what playwright adds.
 * @param {string[]} args @param {string[]} without
 */
export function launchChromium(args = [], without = []) {
  // Its sandbox does not work as root, which is who a CI machine's one user often is.
  const sandbox = process.getuid?.() === 0 ? ['--no-sandbox'] : [];
  return chromium.launch({
    executablePath: findChromium(),
    args: [...ARGUMENTS, ...sandbox, ...args],
    ignoreDefaultArgs: without,
  });
}

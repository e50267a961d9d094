/**
 * Text for the clipboard: what was said, to the letter, also of rows that are not on the screen.
 */

import { stripAnsi } from './ansi';
import type { Entry } from './api';
import type { Selected } from './selection';

/** Entries as the text export writes them. */
export function asText(entries: readonly Entry[]): string {
  return entries
    .map(
      (entry) => `${entry.timestamp} ${entry.level.padEnd(7)} ${entry.source}  ${stripAnsi(entry.message)}`,
    )
    .join('\n');
}

/** Put `text` on the clipboard. False where the browser does not let the page do it. */
export async function copyText(text: string | Promise<string>): Promise<boolean> {
  try {
    // Only a page of a secure origin has a clipboard; over plain HTTP there is the old way.
    if (window.isSecureContext && 'clipboard' in navigator) {
      await navigator.clipboard.writeText(await text);
      return true;
    }
    return copyOldWay(await text);
  } catch {
    return false;
  }
}

function copyOldWay(text: string): boolean {
  const area = document.createElement('textarea');
  area.value = text;
  area.style.position = 'fixed';
  area.style.opacity = '0';
  document.body.append(area);
  area.select();
  const copied = document.execCommand('copy');
  area.remove();
  return copied;
}

/**
 * The text of a selection that begins in one row and ends in a later one: of the first row from
 * a place on, of the last up to one, and all that lies between, whether it is mounted or not.
 */
export function textBetween(
  from: Selected,
  to: Selected,
  entryAt: (row: number) => Entry | undefined,
  shownText: (row: number) => string,
): string {
  const parts = [shownText(from.row).slice(from.at)];
  for (let row = from.row + 1; row < to.row; row++) {
    const entry = entryAt(row);
    parts.push(entry ? stripAnsi(entry.message) : '…');
  }
  parts.push(shownText(to.row).slice(0, to.at));
  return parts.join('\n');
}

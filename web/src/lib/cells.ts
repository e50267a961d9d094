/**
 * How many lines a text takes in a monospace font, by arithmetic: no layout is asked for.
 *
 * A wide character (East Asian, emoji) has two cells and a combining one none. Where a font
 * disagrees, the row is measured once it is shown, and mended.
 */

const TAB_CELLS = 8;

const PLAIN = /^[\x20-\x7e\n]*$/;
const ZERO = /\p{Mn}|\p{Me}|\u200d|\ufe0f/u;
const WIDE =
  /[\u1100-\u115f\u2e80-\u303e\u3041-\u33ff\u3400-\u4dbf\u4e00-\u9fff\ua000-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe4f\uff00-\uff60\uffe0-\uffe6\u{1f300}-\u{1f64f}\u{1f680}-\u{1faff}\u{20000}-\u{3fffd}]/u;

function cellsOf(character: string, at: number): number {
  if (character === '\t') return TAB_CELLS - (at % TAB_CELLS);
  if (character <= '~') return 1;
  return ZERO.test(character) ? 0 : WIDE.test(character) ? 2 : 1;
}

/** The cells of `line`, which has no line feed. */
export function widthOf(line: string): number {
  if (PLAIN.test(line)) return line.length;
  let cells = 0;
  for (const character of line) cells += cellsOf(character, cells);
  return cells;
}

/** The cells of the longest of `text`'s lines. */
export function widestOf(text: string): number {
  if (!text.includes('\n')) return widthOf(text);
  return Math.max(...text.split('\n').map(widthOf));
}

/** The lines of `text` where a line holds `columns` cells; 0 columns: nothing is wrapped. */
export function linesOf(text: string, columns: number): number {
  if (!text.includes('\n')) return columns ? wrappedLines(text, columns) : 1;
  let lines = 0;
  for (const line of text.split('\n')) lines += columns ? wrappedLines(line, columns) : 1;
  return lines;
}

/** Greedy, as browsers do it: at a space or after a hyphen, or anywhere in a word longer than a line. */
function wrappedLines(line: string, columns: number): number {
  if (line.length * 2 <= columns || (line.length <= columns && PLAIN.test(line))) return 1;
  let lines = 1;
  let cells = 0;
  for (const [word] of line.matchAll(/[^\s-]*(?:-+|\s+|$)/g)) {
    const bare = widthOf(word.trimEnd());
    const whole = bare + (word.length - word.trimEnd().length);
    if (cells && cells + bare > columns) {
      lines++;
      cells = 0;
    }
    if (bare > columns) {
      lines += Math.ceil(bare / columns) - 1;
      cells = bare % columns || columns;
      cells += whole - bare;
    } else cells += whole;
  }
  return lines;
}

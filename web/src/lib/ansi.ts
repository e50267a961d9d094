/**
 * Terminal escapes in a message: colours become classes, everything else is dropped.
 *
 * What comes out is data: pieces of text with class names from a fixed set. A sequence that is
 * not complete is no sequence, so no message can swallow the text that follows it.
 */

export interface Styled {
  text: string;
  /** Class names, '' for plain text. */
  style: string;
}

// CSI sequences (SGR among them); OSC, DCS, PM and APC strings with their terminator; two-character escapes.
const ESCAPE =
  // eslint-disable-next-line no-control-regex
  /\x1b\[([0-9;:]*)m|\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]P^_X][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[ -/]*[0-OQ-WYZ`-~]/g;

/** Whether `text` has an escape at all: nearly none has. */
export function hasAnsi(text: string): boolean {
  return text.includes('\x1b');
}

/** `text` without its escapes. */
export function stripAnsi(text: string): string {
  return hasAnsi(text) ? text.replace(ESCAPE, '') : text;
}

class Pen {
  #front = '';
  #back = '';
  #marks = new Set<string>();

  get style(): string {
    return [this.#front, this.#back, ...this.#marks].filter(Boolean).join(' ');
  }

  apply(codes: number[]): void {
    for (let i = 0; i < codes.length; i++) {
      const code = codes[i] ?? 0;
      if (code === 38 || code === 48) i += this.#extended(code === 38, codes.slice(i + 1));
      else this.#simple(code);
    }
  }

  /** 256 colours and true colour: the first 16 are the theme's, the rest would not keep its contrast. */
  #extended(front: boolean, rest: number[]): number {
    const [kind, value] = rest;
    if (kind === 5 && value !== undefined && value < 16) this.#colour(front, value);
    return kind === 5 ? 2 : kind === 2 ? 4 : 1;
  }

  /** The bright colours are the plain ones, which can be read as it is; but grey and white as text. */
  #colour(front: boolean, value: number): void {
    if (front) this.#front = `f${value === 8 || value === 15 ? value : value % 8}`;
    else this.#back = `g${value % 8}`;
  }

  #simple(code: number): void {
    if (code === 0) {
      this.#front = this.#back = '';
      this.#marks.clear();
    } else if (code === 1) this.#marks.add('bold');
    else if (code === 2) this.#marks.add('dim');
    else if (code === 3) this.#marks.add('italic');
    else if (code === 4) this.#marks.add('underline');
    else if (code === 7) this.#marks.add('inverse');
    else if (code === 9) this.#marks.add('struck');
    else if (code === 22) ['bold', 'dim'].forEach((mark) => this.#marks.delete(mark));
    else if (code === 23) this.#marks.delete('italic');
    else if (code === 24) this.#marks.delete('underline');
    else if (code === 27) this.#marks.delete('inverse');
    else if (code === 29) this.#marks.delete('struck');
    else if (code === 39) this.#front = '';
    else if (code === 49) this.#back = '';
    else if (code >= 30 && code <= 37) this.#colour(true, code - 30);
    else if (code >= 40 && code <= 47) this.#colour(false, code - 40);
    else if (code >= 90 && code <= 97) this.#colour(true, code - 82);
    else if (code >= 100 && code <= 107) this.#colour(false, code - 92);
  }
}

/** `text` in pieces of one style each. */
export function readAnsi(text: string): Styled[] {
  if (!hasAnsi(text)) return [{ text, style: '' }];
  const pieces: Styled[] = [];
  const pen = new Pen();
  let end = 0;
  for (const match of text.matchAll(ESCAPE)) {
    if (match.index > end) pieces.push({ text: text.slice(end, match.index), style: pen.style });
    end = match.index + match[0].length;
    if (match[1] !== undefined) pen.apply(match[1].split(/[;:]/).map(Number));
  }
  if (end < text.length) pieces.push({ text: text.slice(end), style: pen.style });
  return pieces;
}

/**
 * A message as pieces to show: styled by its escapes, http(s) addresses as links, what is
 * searched for marked, and characters that one cannot see, or that reorder their neighbours,
 * named. The pieces' texts, put together, are the message without its escapes.
 */

import { hasAnsi, readAnsi, stripAnsi } from './ansi';
import type { Needle } from './needle';

export interface Piece {
  text: string;
  style: string;
  href?: string;
  mark?: boolean;
  /** For what cannot be seen: its name, such as U+202E. */
  code?: string;
}

/** Control characters but tab and line feed, marks of direction, isolates and overrides, byte order marks. */
const HIDDEN =
  // eslint-disable-next-line no-control-regex
  /[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]/;
const LINK = /https?:\/\/[^\s"'<>`\\^{|}]+/g;

/** The pieces of `message`; null where it is one plain text, as nearly all are. */
export function piecesOf(message: string, needle: Needle | null): Piece[] | null {
  const plain = !hasAnsi(message) && !HIDDEN.test(message) && !message.includes('://');
  if (plain && !needle) return null;
  const styled: Piece[] = readAnsi(message);
  const whole = styled.map((piece) => piece.text).join('');
  const places = needle ? needle(whole) : [];
  if (plain && !places.length) return null;
  const cut = new Cut(styled);
  for (const match of whole.matchAll(LINK)) {
    const href = trimmed(match[0]);
    cut.set(match.index, match.index + href.length, { href });
  }
  for (const [from, to] of places) cut.set(from, to, { mark: true });
  return cut.pieces.flatMap(named);
}

/** Without the punctuation that ends the sentence around the address. */
function trimmed(address: string): string {
  const bare = address.replace(/[.,;:!?\]]+$/, '');
  return bare.endsWith(')') && !bare.includes('(') ? bare.slice(0, -1) : bare;
}

/** Pieces that can be cut at any place, to give a part of them something of its own. */
class Cut {
  pieces: Piece[];

  constructor(pieces: Piece[]) {
    this.pieces = pieces;
  }

  set(from: number, to: number, what: Partial<Piece>): void {
    let place = 0;
    this.pieces = this.pieces.flatMap((piece) => {
      const start = Math.max(0, from - place);
      const end = Math.min(piece.text.length, to - place);
      place += piece.text.length;
      if (start >= end) return [piece];
      const parts = [
        { ...piece, text: piece.text.slice(0, start) },
        { ...piece, text: piece.text.slice(start, end), ...what },
        { ...piece, text: piece.text.slice(end) },
      ];
      return parts.filter((part) => part.text);
    });
  }
}

function named(piece: Piece): Piece[] {
  if (!HIDDEN.test(piece.text)) return [piece];
  const parts: Piece[] = [];
  let seen = '';
  for (const character of piece.text) {
    if (!HIDDEN.test(character)) {
      seen += character;
      continue;
    }
    if (seen) parts.push({ ...piece, text: seen });
    seen = '';
    parts.push({ ...piece, text: character, code: codeOf(character) });
  }
  if (seen) parts.push({ ...piece, text: seen });
  return parts;
}

/** `text` for where there is nothing but text, such as a tooltip or a label: the names stand in it. */
export function inWords(text: string): string {
  if (!HIDDEN.test(text)) return text;
  return [...stripAnsi(text)].map((each) => (HIDDEN.test(each) ? `[${codeOf(each)}]` : each)).join('');
}

const NAMES: Record<string, string> = {
  '\x1b': 'ESC',
  '\x07': 'BEL',
  '\x08': 'BS',
  '\r': 'CR',
  '\x7f': 'DEL',
};

function codeOf(character: string): string {
  const code = character.codePointAt(0) ?? 0;
  return NAMES[character] ?? `U+${code.toString(16).toUpperCase().padStart(4, '0')}`;
}

/**
 * Unicode case folding as the server does it (Python's `str.casefold`), as near as a browser can:
 * what the server finds must be what the page marks.
 *
 * JavaScript has no casefold. Lower, upper, lower gives the same for nearly all characters
 * (ß and ẞ become "ss", ς becomes σ); only the dotless ı would become i, and is left alone.
 */

export function foldCase(text: string): string {
  return text
    .split('ı')
    .map((part) => part.toLowerCase().toUpperCase().toLowerCase())
    .join('ı');
}

/** Whether folding `text` one character at a time cannot move later characters. */
function keepsPlaces(text: string): boolean {
  // eslint-disable-next-line no-control-regex
  return /^[\x00-\x7f]*$/.test(text);
}

/** Where `needle` (folded already) is in `text`: pairs of start and end, without overlap. */
export function findFolded(text: string, needle: string): [number, number][] {
  if (!needle) return [];
  const found: [number, number][] = [];
  if (keepsPlaces(text)) {
    const lower = text.toLowerCase();
    for (let at = lower.indexOf(needle); at >= 0; at = lower.indexOf(needle, at + needle.length)) {
      found.push([at, at + needle.length]);
    }
    return found;
  }
  // One folded character may come of a part of another: remember where each came from.
  let folded = '';
  const origin: number[] = [];
  let place = 0;
  for (const character of text) {
    const part = foldCase(character);
    origin.push(...Array<number>(part.length).fill(place));
    folded += part;
    place += character.length;
  }
  origin.push(place);
  for (let at = folded.indexOf(needle); at >= 0; at = folded.indexOf(needle, at + needle.length)) {
    const from = origin[at] ?? 0;
    let end = at + needle.length;
    // The end lies inside a character that became two: mark the whole of it.
    while (end < folded.length && origin[end] === origin[end - 1]) end++;
    found.push([from, origin[end] ?? text.length]);
  }
  return found;
}

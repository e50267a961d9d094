/** A stable colour for each source: the same name has the same one in every task and on every day. */

const COLOURS = 8;

export function colourOf(source: string): number {
  let hash = 2_166_136_261;
  for (let i = 0; i < source.length; i++) hash = Math.imul(hash ^ source.charCodeAt(i), 16_777_619);
  // Short names differ in few bits: spread them over all.
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return ((hash ^ (hash >>> 16)) >>> 0) % COLOURS;
}

/** `source` in exactly `cells` characters, its end kept where it is cut: `…tasks.download`. */
export function fitSource(source: string, cells: number): string {
  return source.length <= cells ? source.padEnd(cells) : `…${source.slice(source.length - cells + 1)}`;
}

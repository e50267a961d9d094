/**
 * JSON whose integers keep their digits.
 *
 * A number of JavaScript holds integers up to 2^53, and an entry, a param or a result may have greater
 * ones: `JSON.parse` makes 9007199254740992 of 9007199254740993. Such an integer becomes what
 * `JSON.rawJSON` makes of its digits, which `JSON.stringify` writes as they are. A browser that has
 * no `rawJSON` yet rounds, as before.
 */

interface Raw {
  rawJSON(digits: string): unknown;
  isRawJSON(value: unknown): boolean;
}

const raw: Partial<Raw> = JSON as unknown as Partial<Raw>;
// Looked for first: with a function for each value, reading takes ten times as long.
const LONG = /\d{16}/;
const INTEGER = /^-?\d+$/;

export function parse(text: string): unknown {
  const { rawJSON } = raw;
  if (!rawJSON || !LONG.test(text)) return JSON.parse(text) as unknown;
  return JSON.parse(text, (_name, value: unknown, at?: { source?: string }) => {
    const written = typeof value === 'number' && !Number.isSafeInteger(value) ? (at?.source ?? '') : '';
    return INTEGER.test(written) ? rawJSON(written) : value;
  }) as unknown;
}

/** Whether it is an integer that no number holds. */
export function isLong(value: unknown): boolean {
  return raw.isRawJSON?.(value) ?? false;
}

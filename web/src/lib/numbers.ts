/** Numbers as a reader wants them. */

const NUMBER = new Intl.NumberFormat('en');

export function showNumber(n: number): string {
  return NUMBER.format(n);
}

/** A number for a narrow place: `980`, `12.4k`, `1.2M`. */
export function showShort(n: number): string {
  if (n < 10_000) return NUMBER.format(n);
  if (n < 999_500) return `${n < 99_950 ? (n / 1e3).toFixed(1) : Math.round(n / 1e3)}k`;
  return `${n < 99_950_000 ? (n / 1e6).toFixed(1) : Math.round(n / 1e6)}M`;
}

/** `1 line`, `1,204 lines`. */
export function showCount(many: number, noun: string): string {
  return `${NUMBER.format(many)} ${noun}${many === 1 ? '' : 's'}`;
}

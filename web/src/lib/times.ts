/**
 * Times as a reader wants them: of the day (local or UTC), since the start, since the line before.
 *
 * An entry's timestamp has microseconds, a `Date` has not, and formatting is done for every row
 * of every frame: so UTC is cut from the text, and the rest is arithmetic.
 */

export const TIME_MODES = ['local', 'utc', 'start', 'delta'] as const;
export type TimeMode = (typeof TIME_MODES)[number];

export const TIME_MODE_NAMES: Record<TimeMode, string> = {
  local: 'Local time',
  utc: 'UTC',
  start: 'Since start',
  delta: 'Since previous line',
};

const two = (n: number) => (n < 10 ? `0${n}` : `${n}`);
const three = (n: number) => (n < 10 ? `00${n}` : n < 100 ? `0${n}` : `${n}`);

/** `timestamp` in `mode`; `start` and `before` are ms, `before` of the line before where it is known. */
export function showTime(timestamp: string, mode: TimeMode, start: number, before: number | null): string {
  if (mode === 'utc') return timestamp.slice(11, 23);
  const at = Date.parse(timestamp);
  if (mode === 'local') {
    const date = new Date(at);
    return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}.${three(date.getMilliseconds())}`;
  }
  if (mode === 'start') return showSpan(at - start).padStart(12);
  return (before === null ? '' : showDelta(at - before)).padStart(12);
}

function showSpan(ms: number): string {
  const sign = ms < 0 ? '-' : '+';
  const all = Math.abs(ms);
  const [hours, minutes] = [Math.floor(all / 3_600_000), Math.floor(all / 60_000) % 60];
  const rest = `${two(Math.floor(all / 1_000) % 60)}.${three(all % 1_000)}`;
  return hours ? `${sign}${hours}:${two(minutes)}:${rest}` : `${sign}${two(minutes)}:${rest}`;
}

function showDelta(ms: number): string {
  const sign = ms < 0 ? '-' : '+';
  return Math.abs(ms) < 60_000 ? `${sign}${(Math.abs(ms) / 1_000).toFixed(3)}` : showSpan(ms);
}

/** How long: `0.4 s`, `12 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`. */
export function showDuration(ms: number): string {
  const s = Math.max(0, ms) / 1_000;
  if (s < 9.95) return `${s.toFixed(1)} s`;
  if (s < 59.5) return `${Math.round(s)} s`;
  const whole = Math.round(s);
  if (whole < 3_600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  if (whole < 86_400) return `${Math.floor(whole / 3_600)} h ${Math.floor(whole / 60) % 60} min`;
  return `${Math.floor(whole / 86_400)} d ${Math.floor(whole / 3_600) % 24} h`;
}

/** How long ago, roughly: `now`, `5 min`, `3 h`, `12 d`. */
export function showAge(ms: number): string {
  const minutes = Math.floor(ms / 60_000);
  if (minutes < 1) return 'now';
  if (minutes < 60) return `${minutes} min`;
  return minutes < 1_440 ? `${Math.floor(minutes / 60)} h` : `${Math.floor(minutes / 1_440)} d`;
}

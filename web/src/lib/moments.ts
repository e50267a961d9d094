/** Whole moments, to be read: with the day and the zone, where a row has only the time of the day. */

const two = (n: number) => String(n).padStart(2, '0');

/** `2026-11-23 20:50:07.123456 +01:00`, or `… UTC`. */
export function showMoment(timestamp: string, utc: boolean): string {
  if (utc) return `${timestamp.slice(0, 10)} ${timestamp.slice(11, -1)} UTC`;
  const date = new Date(timestamp);
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  const time = `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
  const east = -date.getTimezoneOffset();
  const zone = `${east < 0 ? '-' : '+'}${two(Math.floor(Math.abs(east) / 60))}:${two(Math.abs(east) % 60)}`;
  return `${day} ${time}${timestamp.slice(19, -1)} ${zone}`;
}

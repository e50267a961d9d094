/**
 * The keys of the log, in lnav's tradition. This one table binds them and is shown by `?`.
 */

export const KEYS = [
  { does: 'down', keys: ['j'], label: 'Next line', part: 'Move' },
  { does: 'up', keys: ['k'], label: 'Previous line', part: 'Move' },
  { does: 'extendDown', keys: ['J'], label: 'Select one line more below', part: 'Move' },
  { does: 'extendUp', keys: ['K'], label: 'Select one line more above', part: 'Move' },
  { does: 'pageDown', keys: ['PageDown', ' '], label: 'A screen down', part: 'Move' },
  { does: 'pageUp', keys: ['PageUp', 'b'], label: 'A screen up', part: 'Move' },
  { does: 'first', keys: ['g', 'Home'], label: 'First line', part: 'Move' },
  { does: 'last', keys: ['G', 'End'], label: 'Last line, and follow', part: 'Move' },
  { does: 'follow', keys: ['f'], label: 'Follow on or off', part: 'Move' },
  { does: 'search', keys: ['/'], label: 'Search the whole log', part: 'Find' },
  { does: 'next', keys: ['n'], label: 'Next match', part: 'Find' },
  { does: 'previous', keys: ['N'], label: 'Previous match', part: 'Find' },
  { does: 'only', keys: ['o'], label: 'Only matching lines, or all', part: 'Find' },
  { does: 'nextError', keys: ['e'], label: 'Next error', part: 'Find' },
  { does: 'previousError', keys: ['E'], label: 'Previous error', part: 'Find' },
  { does: 'nextWarning', keys: ['w'], label: 'Next warning', part: 'Find' },
  { does: 'previousWarning', keys: ['W'], label: 'Previous warning', part: 'Find' },
  { does: 'detail', keys: ['x', 'Enter'], label: 'Detail of the line', part: 'Line' },
  { does: 'context', keys: ['c'], label: 'Show in context, without filters', part: 'Line' },
  { does: 'copy', keys: ['y'], label: 'Copy the selected lines', part: 'Line' },
  { does: 'fold', keys: ['z'], label: 'Fold or open a group or a long text', part: 'Line' },
  { does: 'wrap', keys: ['l'], label: 'Wrap long lines, or not', part: 'View' },
  { does: 'time', keys: ['t'], label: 'Times: local, UTC, since start, since previous', part: 'View' },
  { does: 'help', keys: ['?'], label: 'These keys', part: 'View' },
  { does: 'escape', keys: ['Escape'], label: 'Close, or unselect', part: 'View' },
] as const;

export type Deed = (typeof KEYS)[number]['does'];

/** With the focus in the detail, these scroll it. */
const SCROLL: readonly string[] = ['PageDown', 'PageUp', ' ', 'Home', 'End'];

const BOUND = new Map<string, Deed>(
  KEYS.flatMap(({ keys, does }) => keys.map((key) => [key, does] as const)),
);

/** What a key asks for; nothing where it is typed into a field, or belongs to the browser. */
export function deedOf(event: KeyboardEvent): Deed | null {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return null;
  const target = event.target as HTMLElement | null;
  if (target?.closest('input, textarea, select, dialog, [contenteditable]')) return null;
  if (SCROLL.includes(event.key) && target?.closest('aside')) return null;
  // A button is pressed, and a link followed, with these.
  if ((event.key === 'Enter' || event.key === ' ') && target?.closest('button, a, summary')) return null;
  return BOUND.get(event.key) ?? null;
}

export function showKey(key: string): string {
  return { ' ': 'Space', PageDown: 'PgDn', PageUp: 'PgUp', Escape: 'Esc' }[key] ?? key;
}

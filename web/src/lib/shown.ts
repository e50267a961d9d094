/**
 * What a row shows of its entry before somebody asks for all of it.
 *
 * A log is read line by line. An exception is its type and message, a long text its first
 * lines; each says how much more there is, and one click or key shows it.
 */

import type { Entry, Progress } from './api';
import { showCount } from './numbers';

const LINES_MAX = 24;
const LINES_SHOWN = 16;
const CHARACTERS_MAX = 4_000;
const CHARACTERS_SHOWN = 2_000;
const FIELDS_CHARACTERS_MAX = 200;
// What the row tells by other means, or nobody asks for.
const TOLD = new Set(['progress', 'group', 'exception', 'continued']);
const STREAMS: unknown[] = ['stdout', 'stderr'];

export interface Frame {
  file: string;
  line: number | null;
  function: string;
  code: string | null;
}

export interface Raised {
  type: string;
  message: string;
  frames: Frame[];
  cause: Raised | null;
}

export interface GroupMark {
  id: string;
  event: 'start' | 'end';
  title: string;
}

export interface Shown {
  text: string;
  /** The fields beside it, ` key=value`, but for those that the text tells already. */
  fields: string;
  /** What is left out, such as "42 more lines"; '' where nothing is. */
  more: string;
}

type Metadata = Entry['metadata'];

function part(metadata: Metadata, name: string): Record<string, unknown> | null {
  const value = metadata?.[name];
  return typeof value === 'object' && value !== null && !Array.isArray(value)
    ? (value as Record<string, unknown>)
    : null;
}

/** The exception that an entry tells of. Plugins may write anything there, so it is checked. */
export function exceptionOf(metadata: Metadata): Raised | null {
  return raisedOf(part(metadata, 'exception'), 0);
}

function raisedOf(value: unknown, depth: number): Raised | null {
  if (typeof value !== 'object' || value === null || depth > 20) return null;
  const said = value as Record<string, unknown>;
  if (typeof said.type !== 'string' || !Array.isArray(said.frames)) return null;
  return {
    type: said.type,
    message: typeof said.message === 'string' ? said.message : '',
    frames: said.frames.map(frameOf),
    cause: raisedOf(said.cause, depth + 1),
  };
}

function frameOf(value: unknown): Frame {
  const said = (value ?? {}) as Record<string, unknown>;
  return {
    file: String(said.file ?? '?'),
    line: typeof said.line === 'number' ? said.line : null,
    function: String(said.function ?? '?'),
    code: typeof said.code === 'string' && said.code ? said.code : null,
  };
}

export function progressOf(metadata: Metadata): Progress | null {
  const said = part(metadata, 'progress');
  if (!said || (typeof said.id !== 'string' && typeof said.id !== 'number')) return null;
  return {
    id: said.id,
    label: String(said.label ?? ''),
    current: typeof said.current === 'number' ? said.current : 0,
    total: typeof said.total === 'number' ? said.total : null,
    unit: typeof said.unit === 'string' ? said.unit : '',
    done: said.done === true,
  };
}

export function groupOf(metadata: Metadata): GroupMark | null {
  const said = part(metadata, 'group');
  if (!said || typeof said.id !== 'string' || (said.event !== 'start' && said.event !== 'end')) return null;
  return { id: said.id, event: said.event, title: String(said.title ?? '') };
}

/** How many entries are missing, or left out as alike, where an entry says so. */
export function lossOf(metadata: Metadata): { dropped: number } | { suppressed: number } | null {
  if (typeof metadata?.dropped === 'number') return { dropped: metadata.dropped };
  if (typeof metadata?.suppressed === 'number') return { suppressed: metadata.suppressed };
  return null;
}

/** What a row shows of `entry`. */
export function shownOf(entry: Entry, expanded: boolean): Shown {
  const { message, metadata } = entry;
  const fields = metadata === null || lossOf(metadata) ? '' : fieldsOf(metadata);
  if (expanded || (metadata === null && message.length < 200 && !message.includes('\n'))) {
    return { text: message, fields, more: '' };
  }
  const raised = metadata && exceptionOf(metadata);
  return { ...(raised ? shownException(message, raised) : shortened(message)), fields };
}

function fieldsOf(metadata: Record<string, unknown>): string {
  let fields = '';
  for (const [key, value] of Object.entries(metadata)) {
    if (!TOLD.has(key) && !(key === 'stream' && STREAMS.includes(value)))
      fields += ` ${plain(key)}=${plain(value)}`;
    if (fields.length > FIELDS_CHARACTERS_MAX) {
      return `${fields.slice(0, FIELDS_CHARACTERS_MAX).replace(/[\ud800-\udbff]$/, '')}…`;
    }
  }
  return fields;
}

function plain(value: unknown): string {
  return typeof value === 'string' && /^[^\s"=\p{C}]+$/u.test(value) ? value : JSON.stringify(value);
}

type Text = Omit<Shown, 'fields'>;

function shownException(message: string, raised: Raised): Text {
  const [head = ''] = message.split('\n', 1);
  const told = shortened(raised.message).text;
  const line = told ? `${raised.type}: ${told}` : raised.type;
  const alone = head === '' || head.startsWith('Traceback');
  const text = alone ? line : head.includes(line) ? head : `${head}\n${line}`;
  const frames = showCount(raised.frames.length, 'frame');
  return { text, more: raised.cause ? `${frames}, and its cause` : frames };
}

function shortened(message: string): Text {
  const lines = message.split('\n');
  if (lines.length > LINES_MAX) {
    return {
      text: lines.slice(0, LINES_SHOWN).join('\n'),
      more: showCount(lines.length - LINES_SHOWN, 'more line'),
    };
  }
  if (message.length > CHARACTERS_MAX) {
    // Not inside of a pair of surrogates.
    const text = message.slice(0, CHARACTERS_SHOWN).replace(/[\ud800-\udbff]$/, '');
    return { text, more: showCount(message.length - text.length, 'more character') };
  }
  return { text: message, more: '' };
}

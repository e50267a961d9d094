/** Entries and tasks as a server gives them, for tests. */
import type { Entry, Task } from '../../src/lib/api';

export function entry(seq: number, more: Partial<Entry> = {}): Entry {
  return {
    seq,
    timestamp: new Date(Date.UTC(2026, 0, 1) + seq * 100).toISOString().replace('Z', '000Z'),
    level: 'INFO',
    source: 'test',
    message: `line ${seq}`,
    metadata: null,
    ...more,
  };
}

export function entries(from: number, to: number): Entry[] {
  return Array.from({ length: to - from + 1 }, (_, i) => entry(from + i));
}

export function task(more: Partial<Task> = {}): Task {
  return {
    id: '01a20a50-704d-7526-9b00-501d5b94287e',
    plugin: 'test',
    params: {},
    status: 'running',
    created_at: '2026-01-01T00:00:00.000000Z',
    started_at: '2026-01-01T00:00:00.000000Z',
    finished_at: null,
    result: null,
    error: null,
    retry_of: null,
    last_seq: 0,
    progress: null,
    counts: { DEBUG: 0, INFO: 0, WARNING: 0, ERROR: 0 },
    ...more,
  };
}

/** How many entries a log has of each level and of each source: as the server has counted, and one by one since. */

import { LEVELS, type Entry, type Level, type Stats } from './api';

export class Facets {
  levels: Record<Level, number> = { DEBUG: 0, INFO: 0, WARNING: 0, ERROR: 0 };
  #sources = new Map<string, number>();

  /** The loudest first. */
  get sources(): [string, number][] {
    return [...this.#sources].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1));
  }

  load({ by_level, by_source }: Pick<Stats, 'by_level' | 'by_source'>): void {
    for (const level of LEVELS) this.levels[level] = by_level[level] ?? 0;
    this.#sources = new Map(Object.entries(by_source));
  }

  add({ level, source }: Entry): void {
    this.levels[level]++;
    this.#sources.set(source, (this.#sources.get(source) ?? 0) + 1);
  }
}

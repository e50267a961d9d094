/**
 * What is counted of a whole log, however little of it is here: how many entries of each level and
 * source, and how many when.
 *
 * The server has counted up to some seq; what is newer is counted here as it comes, each entry
 * once. Under a filter what comes is not all there is, so then only the timeline, which is the
 * filter's own, goes on here, and for the levels and sources the server is asked again and again.
 * What was counted is shown at most twice a second: nobody reads faster, and to draw it takes time.
 */

import { LEVELS, isAbort, problemOf, type Entry, type Level, type Outline } from './api';
import type { Epoch } from './epoch';
import { Facets } from './facets';
import { Timeline } from './timeline';

const SHOW_MS = 500;
const AGAIN_MS = 2_000;
const AGAIN_MAX_MS = 30_000;

export class Tally {
  counts = $state.raw<Record<Level, number>>({ DEBUG: 0, INFO: 0, WARNING: 0, ERROR: 0 });
  /** With their counts, the loudest first. */
  sources = $state.raw<[string, number][]>([]);
  /** Changes with the timeline. */
  version = $state.raw(0);
  timeline = new Timeline();

  #facets = new Facets();
  /** The server has counted up to this seq. */
  #seq = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;

  /** How many entries the log has. */
  get all(): number {
    return LEVELS.reduce((sum, level) => sum + this.counts[level], 0);
  }

  /** Until the log is counted, as of this moment, this is the best that is known. */
  guess(counts: Record<Level, number>): void {
    this.#facets.levels = { ...counts };
    this.#showFacets();
  }

  /**
   * Have the server count, which may take long: where it cannot now, it is asked again. Fails where
   * there is no such log any more.
   */
  async load(epoch: Epoch, wait_ms = AGAIN_MS): Promise<void> {
    const outline = await epoch.queries.outline().catch((error: unknown) => {
      if (isAbort(error) || problemOf(error).status === 404) throw error;
      return null;
    });
    if (epoch.closed) return;
    if (outline) this.set(epoch, outline);
    else {
      await new Promise((resolve) => setTimeout(resolve, wait_ms));
      if (!epoch.closed) await this.load(epoch, Math.min(AGAIN_MAX_MS, 2 * wait_ms));
    }
  }

  /** The server has counted what `epoch` shows. */
  set(epoch: Epoch, outline: Outline): void {
    this.timeline.load(outline.bins);
    this.#seq = outline.last_seq;
    if (epoch.queries.unfiltered) {
      this.#facets.load(outline);
      // Entries that were taken after the server had counted.
      for (const entry of epoch.after(outline.last_seq)) this.add(entry, true);
    }
    this.show();
  }

  /** Ask for the counts of the whole log, under whatever filter it is shown. */
  async loadFacets(epoch: Epoch): Promise<void> {
    // They are an extra: where they cannot be had, those of before stay.
    const stats = await epoch.queries.stats().catch(() => null);
    if (!stats || epoch.closed) return;
    this.#facets.load(stats);
    this.show();
  }

  /** `entry` came; of the `whole` log, or of what the filter leaves of it. */
  add(entry: Entry, whole: boolean): void {
    if (entry.seq <= this.#seq) return;
    this.timeline.add(entry);
    if (whole) this.#facets.add(entry);
  }

  showSoon(): void {
    this.#timer ??= setTimeout(() => this.show(), SHOW_MS);
  }

  show(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#showFacets();
    this.version++;
  }

  #showFacets(): void {
    this.counts = { ...this.#facets.levels };
    this.sources = this.#facets.sources;
  }
}

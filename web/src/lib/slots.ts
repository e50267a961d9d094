/**
 * Which DOM node shows which row: a row keeps its node while it is shown, and a node that is
 * free takes a new row. So following a flood rewrites texts and moves no nodes.
 */
export class Slots {
  #slots = new Map<number, number>();

  /** The slot of each of `rows`, in their order. */
  assign(rows: readonly number[]): number[] {
    const next = new Map<number, number>();
    const taken = new Set<number>();
    for (const row of rows) {
      const slot = this.#slots.get(row);
      if (slot === undefined) continue;
      next.set(row, slot);
      taken.add(slot);
    }
    let free = 0;
    for (const row of rows) {
      if (next.has(row)) continue;
      while (taken.has(free)) free++;
      next.set(row, free);
      taken.add(free);
    }
    this.#slots = next;
    return rows.map((row) => next.get(row) ?? 0);
  }
}

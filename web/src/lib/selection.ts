/** What the browser has selected, as rows of the log and places in what they show. */

export interface Selected {
  row: number;
  /** The place in the row's shown text. */
  at: number;
}

/** The two ends of the selection; null where there is none, or one of them is not in `log`. */
export function selectedIn(log: HTMLElement): [Selected, Selected] | null {
  const selection = getSelection();
  if (!selection || selection.isCollapsed || !selection.rangeCount) return null;
  const range = selection.getRangeAt(0);
  if (!log.contains(range.startContainer) || !log.contains(range.endContainer)) return null;
  const from = placeOf(range.startContainer, range.startOffset);
  const to = placeOf(range.endContainer, range.endOffset);
  return from && to ? [from, to] : null;
}

function placeOf(node: Node, offset: number): Selected | null {
  const element = node instanceof Element ? node : node.parentElement;
  const line = element?.closest<HTMLElement>('[data-row]');
  if (!line) return null;
  const message = line.querySelector('.message');
  const row = Number(line.dataset.row);
  if (!message) return { row, at: 0 };
  const range = document.createRange();
  range.selectNodeContents(message);
  // Beyond the message it is all of it; in the columns before it, nothing.
  if (range.comparePoint(node, offset) > 0) return { row, at: message.textContent.length };
  if (range.comparePoint(node, offset) < 0) return { row, at: 0 };
  range.setEnd(node, offset);
  return { row, at: range.toString().length };
}

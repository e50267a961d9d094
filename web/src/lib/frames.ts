/** Whose code the frames of an exception are in: one's own is what one looks for. */

import type { Frame } from './shown';

/** The standard library, installed packages, taskd itself. */
const FOREIGN =
  /(?:^<)|\/(?:site|dist)-packages\/|\/lib(?:64)?\/python\d|\/taskd\/(?!plugins\/)[a-z_/]+\.py$/;

/** Whether a frame lies in code that its reader may have written. */
export function isOwn(frame: Frame): boolean {
  return !FOREIGN.test(frame.file);
}

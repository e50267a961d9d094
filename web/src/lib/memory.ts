/** What this browser remembers for whoever looks: choices, and what they have put away. */

export function remembered(name: string): string | null {
  try {
    return localStorage.getItem(`taskd.${name}`);
  } catch {
    return null; // the browser keeps nothing for this page
  }
}

export function remember(name: string, value: string): void {
  try {
    localStorage.setItem(`taskd.${name}`, value);
  } catch {
    // Then it holds until the page is left.
  }
}

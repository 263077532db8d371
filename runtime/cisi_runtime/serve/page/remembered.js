/** Small things that the browser keeps: the token while the tab is open, preferences for longer. */

/** @type {Map<string, string>} */
const here = new Map();

/**
 * @param {"sessionStorage" | "localStorage"} store
 * @param {string} key
 * @returns {string | null}
 */
export function recall(store, key) {
  try {
    return window[store].getItem(key);
  } catch {
    return here.get(key) ?? null; // storage is forbidden
  }
}

/**
 * @param {"sessionStorage" | "localStorage"} store
 * @param {string} key
 * @param {string} value
 */
export function remember(store, key, value) {
  here.set(key, value);
  try {
    window[store].setItem(key, value);
  } catch {
    // Forbidden or full: until the page is left, `here` has it.
  }
}

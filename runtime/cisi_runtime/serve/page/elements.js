/** The page's elements by their id. */

/**
 * @template {Element} T
 * @param {string} id
 * @param {new () => T} kind
 * @returns {T}
 */
export function byId(id, kind) {
  const element = document.getElementById(id);
  if (!(element instanceof kind)) throw new Error(`#${id} is not a ${kind.name}`);
  return element;
}

/** @param {string} id */
export const button = (id) => byId(id, HTMLButtonElement);

/** @param {string} id */
export const input = (id) => byId(id, HTMLInputElement);

/**
 * A button whose effect is not to be had now stays in the order of Tab, and is announced as unavailable.
 *
 * @param {HTMLButtonElement} element
 * @param {boolean} isAvailable
 */
export function setAvailable(element, isAvailable) {
  element.setAttribute("aria-disabled", String(!isAvailable));
}

/**
 * @param {number} bytes
 * @returns {string}
 */
export function bytesInWords(bytes) {
  if (bytes < 1000) return `${bytes} bytes`;
  if (bytes < 1e6) return `${Math.round(bytes / 1000)} KB`;
  return `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`;
}

/**
 * @param {string} format as the server calls it
 * @returns {string} as people write it
 */
export function formatInWords(format) {
  return format === "WEBP" ? "WebP" : format;
}

/**
 * @param {number} number
 * @param {string} singular
 * @returns {string}
 */
export function counted(number, singular) {
  return `${number} ${singular}${number === 1 ? "" : "s"}`;
}

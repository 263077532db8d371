/**
 * Rectangles of whole pixels.
 *
 * @typedef {object} Rectangle
 * @property {number} left
 * @property {number} top
 * @property {number} right exclusive
 * @property {number} bottom exclusive
 */

/**
 * @param {Rectangle} rectangle
 * @param {number} width
 * @param {number} height
 * @returns {Rectangle | null} the part inside a picture of that size, null if there is none
 */
export function clipped(rectangle, width, height) {
  return intersection(rectangle, whole({ width, height }));
}

/**
 * @param {Rectangle | null} a
 * @param {Rectangle | null} b
 * @returns {Rectangle | null} the smallest rectangle that holds both
 */
export function union(a, b) {
  if (!a || !b) return a ?? b;
  return {
    left: Math.min(a.left, b.left),
    top: Math.min(a.top, b.top),
    right: Math.max(a.right, b.right),
    bottom: Math.max(a.bottom, b.bottom),
  };
}

/**
 * @param {Rectangle} a
 * @param {Rectangle} b
 * @returns {Rectangle | null} whole pixels that lie in both, null if there are none
 */
export function intersection(a, b) {
  const part = {
    left: Math.floor(Math.max(a.left, b.left)),
    top: Math.floor(Math.max(a.top, b.top)),
    right: Math.ceil(Math.min(a.right, b.right)),
    bottom: Math.ceil(Math.min(a.bottom, b.bottom)),
  };
  return part.left < part.right && part.top < part.bottom ? part : null;
}

/**
 * @param {Rectangle} rectangle
 * @param {number} margin
 * @returns {Rectangle} larger by `margin` on all sides
 */
export function grown(rectangle, margin) {
  return {
    left: rectangle.left - margin,
    top: rectangle.top - margin,
    right: rectangle.right + margin,
    bottom: rectangle.bottom + margin,
  };
}

/**
 * @param {{width: number, height: number}} size
 * @returns {Rectangle} a whole picture
 */
export function whole({ width, height }) {
  return { left: 0, top: 0, right: width, bottom: height };
}

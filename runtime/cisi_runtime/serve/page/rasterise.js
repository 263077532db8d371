/** Strokes, rectangles and outlines drawn into a mask, exactly: a value depends on the pixel's centre alone. */

import { clipped } from "./rectangles.js";

/** @typedef {import("./mask.js").Mask} Mask */
/** @typedef {import("./mask.js").Point} Point */
/** @typedef {import("./rectangles.js").Rectangle} Rectangle */

/**
 * @typedef {object} Brush
 * @property {number} radius in pixels of the photograph
 * @property {number} hardness 0 to 1: share of the radius inside which the brush is at its full strength
 * @property {boolean} erases
 */

/**
 * @param {Point} from
 * @param {Point} to
 * @param {number} radius
 * @returns {Rectangle} that holds the capsule
 */
export function capsuleBounds(from, to, radius) {
  return {
    left: Math.floor(Math.min(from.x, to.x) - radius),
    top: Math.floor(Math.min(from.y, to.y) - radius),
    right: Math.ceil(Math.max(from.x, to.x) + radius) + 1,
    bottom: Math.ceil(Math.max(from.y, to.y) + radius) + 1,
  };
}

/**
 * A brush moved along a straight line. Its strength is 255 within hardness·radius of the line and falls linearly to 0
 * at the radius. Painting takes the larger of strength and mask, erasing the smaller of 255 − strength and mask: a
 * stroke over itself changes nothing.
 *
 * @param {Mask} mask
 * @param {Point} from
 * @param {Point} to
 * @param {Brush} brush
 * @returns {Rectangle | null} what may have changed
 */
export function paintCapsule(mask, from, to, brush) {
  const { radius, erases } = brush;
  const part = clipped(capsuleBounds(from, to, radius), mask.width, mask.height);
  if (!part || (erases && !mask.bytes)) return null;
  const bytes = mask.writable(part);
  const core = Math.min(1, Math.max(0, brush.hardness)) * radius;
  const [dx, dy] = [to.x - from.x, to.y - from.y];
  const length2 = dx * dx + dy * dy;
  const full = erases ? 0 : 255;
  for (let y = part.top; y < part.bottom; y++) {
    const py = y + 0.5 - from.y;
    for (let x = part.left, i = y * mask.width + part.left; x < part.right; x++, i++) {
      if (bytes[i] === full) continue;
      const px = x + 0.5 - from.x;
      const along = length2 === 0 ? 0 : Math.min(1, Math.max(0, (px * dx + py * dy) / length2));
      const [ex, ey] = [px - along * dx, py - along * dy];
      const distance2 = ex * ex + ey * ey;
      if (distance2 > radius * radius) continue;
      let strength = 255;
      if (distance2 > core * core) {
        strength = Math.round((255 * (radius - Math.sqrt(distance2))) / (radius - core));
      }
      if (erases) {
        if (255 - strength < bytes[i]) bytes[i] = 255 - strength;
      } else if (strength > bytes[i]) {
        bytes[i] = strength;
      }
    }
  }
  return part;
}

/**
 * @param {Mask} mask
 * @param {Point} corner
 * @param {Point} opposite
 * @returns {Rectangle | null} the pixels that became hole: those that the two corners lie in, and all between
 */
export function fillRectangle(mask, corner, opposite) {
  const part = rectangleBetween(mask, corner, opposite);
  if (!part) return null;
  const bytes = mask.writable(part);
  for (let y = part.top; y < part.bottom; y++) {
    bytes.fill(255, y * mask.width + part.left, y * mask.width + part.right);
  }
  return part;
}

/**
 * @param {{width: number, height: number}} size
 * @param {Point} corner
 * @param {Point} opposite
 */
export function rectangleBetween({ width, height }, corner, opposite) {
  return clipped({
    left: Math.floor(Math.min(corner.x, opposite.x)),
    top: Math.floor(Math.min(corner.y, opposite.y)),
    right: Math.floor(Math.max(corner.x, opposite.x)) + 1,
    bottom: Math.floor(Math.max(corner.y, opposite.y)) + 1,
  }, width, height);
}

/**
 * @param {Point[]} outline
 * @returns {Rectangle} that holds it
 */
export function outlineBounds(outline) {
  const bounds = { left: Infinity, top: Infinity, right: -Infinity, bottom: -Infinity };
  for (const { x, y } of outline) {
    bounds.left = Math.min(bounds.left, x);
    bounds.top = Math.min(bounds.top, y);
    bounds.right = Math.max(bounds.right, x);
    bounds.bottom = Math.max(bounds.bottom, y);
  }
  return bounds;
}

/**
 * The inside of a closed outline by the even-odd rule: pixels whose centres lie in it become hole.
 *
 * @param {Mask} mask
 * @param {Point[]} outline
 * @returns {Rectangle | null} what may have changed
 */
export function fillOutline(mask, outline) {
  if (outline.length < 3) return null;
  const part = clipped(outlineBounds(outline), mask.width, mask.height);
  if (!part) return null;
  const bytes = mask.writable(part);
  /** @type {number[]} */
  const crossings = [];
  for (let y = part.top; y < part.bottom; y++) {
    const centre = y + 0.5;
    crossings.length = 0;
    for (let i = 0; i < outline.length; i++) {
      const [a, b] = [outline[i], outline[(i + 1) % outline.length]];
      // Half open, so that a corner on the line counts once.
      if (a.y <= centre !== b.y <= centre) crossings.push(a.x + ((centre - a.y) * (b.x - a.x)) / (b.y - a.y));
    }
    crossings.sort((a, b) => a - b);
    for (let i = 0; i + 1 < crossings.length; i += 2) {
      const first = Math.max(0, Math.ceil(crossings[i] - 0.5));
      const end = Math.min(mask.width, Math.ceil(crossings[i + 1] - 0.5));
      if (first < end) bytes.fill(255, y * mask.width + first, y * mask.width + end);
    }
  }
  return part;
}

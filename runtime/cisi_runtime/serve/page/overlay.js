/** The hole as it is shown over the photograph: a tint with an edge. */

import { HOLE } from "./mask.js";

/** @typedef {import("./mask.js").Mask} Mask */
/** @typedef {import("./rectangles.js").Rectangle} Rectangle */
/**
 * @typedef {object} Placement of the photograph on the screen
 * @property {number} scale screen pixels a pixel of the photograph
 * @property {number} x where its first pixel begins
 * @property {number} y
 */

// Samples along each axis of a screen pixel that shows several of the mask: a thin hole must not vanish.
const MAX_SAMPLES = 3;

/**
 * @param {Mask} mask
 * @param {Placement} placement
 * @param {Rectangle} area of the screen
 * @param {Uint32Array} pixels as many as the area has, written row by row
 * @param {{inside: number, edge: number}} colours as the pixels of an ImageData hold them
 */
export function shadeHole(mask, placement, area, pixels, colours) {
  const [width, height] = [area.right - area.left, area.bottom - area.top];
  const columns = samples(area.left - 1, width + 2, placement.x, placement.scale, mask.width);
  const rows = samples(area.top - 1, height + 2, placement.y, placement.scale, mask.height);
  const wide = width + 2;
  const hole = new Uint8Array(wide * (height + 2));
  const bytes = mask.bytes;
  if (bytes) {
    for (const ys of rows) {
      for (let y = 0; y < height + 2; y++) {
        if (ys[y] < 0) continue;
        const row = ys[y] * mask.width;
        for (const xs of columns) {
          for (let x = 0, i = y * wide; x < wide; x++, i++) if (xs[x] >= 0 && bytes[row + xs[x]] >= HOLE) hole[i] = 1;
        }
      }
    }
  }
  for (let y = 0, out = 0; y < height; y++) {
    for (let x = 0, i = (y + 1) * wide + 1; x < width; x++, i++, out++) {
      if (!hole[i]) pixels[out] = 0;
      else pixels[out] = hole[i - 1] & hole[i + 1] & hole[i - wide] & hole[i + wide] ? colours.inside : colours.edge;
    }
  }
}

/**
 * @param {number} first screen pixel
 * @param {number} count
 * @param {number} origin
 * @param {number} scale
 * @param {number} limit
 * @returns {Int32Array[]} for each sample the mask's index of each screen pixel, -1 outside
 */
function samples(first, count, origin, scale, limit) {
  const number = Math.min(MAX_SAMPLES, Math.max(1, Math.ceil(1 / scale)));
  return Array.from({ length: number }, (_, sample) => {
    const offset = (sample + 0.5) / number;
    return Int32Array.from({ length: count }, (_, i) => {
      const index = Math.floor((first + i + offset - origin) / scale);
      return index >= 0 && index < limit ? index : -1;
    });
  });
}

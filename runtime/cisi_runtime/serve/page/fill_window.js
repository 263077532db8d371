/** The part of a photograph that the network looks at, reduced to its size, and its fill put back. */

import { HOLE } from "./mask.js";

/** @typedef {import("./rectangles.js").Rectangle} Rectangle */
/**
 * @typedef {object} Reduced
 * @property {number} width
 * @property {number} height
 * @property {Uint8Array} rgb
 * @property {Uint8Array} hole 255 in the hole, else 0
 */

const SIDE = 256;
const CONTEXT = 2;
const MULTIPLE = 16;
const SMALLEST = 64;
// What a pixel gets of which nothing is known. The network does not see it.
const UNKNOWN = 128;

/**
 * A window of twice the hole's length around the hole, square where the photograph allows it.
 *
 * @param {Rectangle} hole
 * @param {{width: number, height: number}} size of the photograph
 * @returns {Rectangle}
 */
export function planWindow(hole, { width, height }) {
  const length = Math.max(SIDE, CONTEXT * Math.max(hole.right - hole.left, hole.bottom - hole.top));
  const [left, right] = span(hole.left, hole.right, Math.min(length, width), width);
  const [top, bottom] = span(hole.top, hole.bottom, Math.min(length, height), height);
  return { left, top, right, bottom };
}

/**
 * @param {number} low
 * @param {number} high
 * @param {number} extent
 * @param {number} limit
 */
function span(low, high, extent, limit) {
  const start = Math.min(limit - extent, Math.max(0, Math.floor((low + high - extent) / 2)));
  return [start, start + extent];
}

/**
 * Average the known pixels over areas. A pixel that has any part of the hole in it is hole.
 *
 * @param {Uint8ClampedArray} rgba of the photograph
 * @param {Uint8Array} mask of the photograph
 * @param {number} stride the photograph's width
 * @param {Rectangle} window
 * @returns {Reduced} at most 256 pixels a side
 */
export function reduce(rgba, mask, stride, window) {
  const [wide, high] = [window.right - window.left, window.bottom - window.top];
  const scale = Math.max(1, Math.max(wide, high) / SIDE);
  const [width, height] = [Math.max(1, Math.round(wide / scale)), Math.max(1, Math.round(high / scale))];
  const rgb = new Uint8Array(width * height * 3).fill(UNKNOWN);
  const hole = new Uint8Array(width * height);
  const [columns, rows] = [shares(wide, width), shares(high, height)];
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      let [red, green, blue, weight] = [0, 0, 0, 0];
      for (const [row, rowShare] of rows[y]) {
        for (const [column, columnShare] of columns[x]) {
          const at = (window.top + row) * stride + window.left + column;
          if (mask[at] >= HOLE) {
            hole[y * width + x] = 255;
            continue;
          }
          const share = rowShare * columnShare;
          weight += share;
          red += share * rgba[4 * at];
          green += share * rgba[4 * at + 1];
          blue += share * rgba[4 * at + 2];
        }
      }
      if (weight > 0) rgb.set([red, green, blue].map((sum) => Math.round(sum / weight)), 3 * (y * width + x));
    }
  }
  return { width, height, rgb, hole };
}

/**
 * @param {number} from
 * @param {number} to at most `from`
 * @returns {[number, number][][]} for each pixel of the shorter line, pixels of the longer one and their shares
 */
function shares(from, to) {
  const ratio = from / to;
  return Array.from({ length: to }, (_, index) => {
    const [start, end] = [index * ratio, (index + 1) * ratio];
    /** @type {[number, number][]} */
    const parts = [];
    for (let pixel = Math.floor(start + 1e-9); pixel < Math.min(from, end - 1e-9); pixel++) {
      parts.push([pixel, Math.min(end, pixel + 1) - Math.max(start, pixel)]);
    }
    return parts;
  });
}

/**
 * Pad at the right and below to what the network takes: mirrored without repeating the edge, and the edge repeated
 * where the picture is too short, as `cisi_runtime.inpainting.padding` does.
 *
 * @param {Reduced} reduced
 * @returns {Reduced}
 */
export function pad({ width, height, rgb, hole }) {
  const [columns, rows] = [mirrored(width), mirrored(height)];
  const padded = {
    width: columns.length,
    height: rows.length,
    rgb: new Uint8Array(columns.length * rows.length * 3),
    hole: new Uint8Array(columns.length * rows.length),
  };
  rows.forEach((row, y) => columns.forEach((column, x) => {
    const [from, to] = [row * width + column, y * columns.length + x];
    padded.hole[to] = hole[from];
    for (let band = 0; band < 3; band++) padded.rgb[3 * to + band] = rgb[3 * from + band];
  }));
  return padded;
}

/** @param {number} length */
export function mirrored(length) {
  const padded = Math.max(SMALLEST, Math.ceil(length / MULTIPLE) * MULTIPLE);
  const indices = Array.from({ length }, (_, index) => index);
  for (let index = length - 2; index >= 0 && indices.length < padded; index--) indices.push(index);
  while (indices.length < padded) indices.push(indices[indices.length - 1]);
  return indices;
}

/**
 * Enlarge the fill and write it into the hole. No other pixel is written.
 *
 * @param {Uint8Array} fill RGB
 * @param {{width: number, height: number}} size of the fill
 * @param {Uint8ClampedArray} rgba of the photograph
 * @param {Uint8Array} mask of the photograph
 * @param {number} stride the photograph's width
 * @param {Rectangle} window
 */
export function composite(fill, size, rgba, mask, stride, window) {
  const columns = between(window.right - window.left, size.width);
  const rows = between(window.bottom - window.top, size.height);
  for (let y = window.top; y < window.bottom; y++) {
    const [upper, lower, down] = rows[y - window.top];
    for (let x = window.left; x < window.right; x++) {
      const at = y * stride + x;
      if (mask[at] < HOLE) continue;
      const [left, right, across] = columns[x - window.left];
      for (let band = 0; band < 3; band++) {
        const [above, below] = [upper, lower].map((row) => {
          const first = 3 * row * size.width + band;
          return fill[first + 3 * left] * (1 - across) + fill[first + 3 * right] * across;
        });
        rgba[4 * at + band] = Math.round(above * (1 - down) + below * down);
      }
      rgba[4 * at + 3] = 255;
    }
  }
}

/**
 * @param {number} to
 * @param {number} from at most `to`
 * @returns {[number, number, number][]} for each pixel of the longer line two of the shorter, and the second's share
 */
function between(to, from) {
  return Array.from({ length: to }, (_, index) => {
    const place = Math.min(from - 1, Math.max(0, ((index + 0.5) * from) / to - 0.5));
    const first = Math.floor(place);
    return [first, Math.min(from - 1, first + 1), place - first];
  });
}

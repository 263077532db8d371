/** The mask of a photograph: one byte a pixel at the photograph's full size. A pixel of 128 or more is hole. */

import { clipped, union } from "./rectangles.js";

/** @typedef {import("./rectangles.js").Rectangle} Rectangle */
/** @typedef {{x: number, y: number}} Point in pixels of the photograph; the first pixel's centre is (0.5, 0.5) */

export const HOLE = 128;

/** Memory is taken when something is first painted, and copies share it until one of them is painted on. */
export class Mask {
  /** @type {Uint8Array | null} */
  #bytes = null;
  /** Shared by all masks with the same bytes. */
  #owners = { count: 1 };
  /** What may differ from 0. @type {Rectangle | null} */
  #touched = null;

  /**
   * @param {number} width
   * @param {number} height
   */
  constructor(width, height) {
    this.width = width;
    this.height = height;
  }

  /** @returns {Uint8Array | null} row by row; null stands for zeros */
  get bytes() {
    return this.#bytes;
  }

  /** Everything outside is 0; what is inside may be. */
  get touched() {
    return this.#touched;
  }

  /**
   * @param {Rectangle} part that will be written
   * @returns {Uint8Array} the bytes, to write to
   */
  writable(part) {
    if (!this.#bytes) {
      this.#bytes = new Uint8Array(this.width * this.height);
    } else if (this.#owners.count > 1) {
      this.#owners.count--;
      this.#owners = { count: 1 };
      this.#bytes = this.#bytes.slice();
    }
    this.#touched = union(this.#touched, clipped(part, this.width, this.height));
    return this.#bytes;
  }

  /** @returns {Mask} one that may be changed independently */
  copy() {
    const copy = new Mask(this.width, this.height);
    if (this.#bytes) {
      this.#owners.count++;
      copy.#owners = this.#owners;
      copy.#bytes = this.#bytes;
      copy.#touched = this.#touched;
    }
    return copy;
  }

  /** @returns {Rectangle | null} the smallest that holds the hole, null without one */
  bounds() {
    return holeBounds(this.#bytes, this.width, this.#touched);
  }

  /** @returns {boolean} */
  hasHole() {
    const { width } = this;
    const part = this.#touched;
    if (!this.#bytes || !part) return false;
    for (let y = part.top; y < part.bottom; y++) {
      for (let i = y * width + part.left, end = y * width + part.right; i < end; i++) {
        if (this.#bytes[i] >= HOLE) return true;
      }
    }
    return false;
  }
}

/**
 * @param {Uint8Array | null} bytes
 * @param {number} width
 * @param {Rectangle | null} part to look at
 * @returns {Rectangle | null}
 */
export function holeBounds(bytes, width, part) {
  if (!bytes || !part) return null;
  let { left, top, right, bottom } = { left: part.right, top: -1, right: -1, bottom: -1 };
  for (let y = part.top; y < part.bottom; y++) {
    const row = y * width;
    let x = part.left;
    while (x < part.right && bytes[row + x] < HOLE) x++;
    if (x === part.right) continue;
    if (top < 0) top = y;
    bottom = y + 1;
    left = Math.min(left, x);
    x = part.right;
    while (x > right && bytes[row + x - 1] < HOLE) x--;
    right = Math.max(right, x);
  }
  return top < 0 ? null : { left, top, right, bottom };
}

/**
 * @param {Mask} mask
 * @param {Uint8Array} values as long as the mask's
 */
export function replaceMask(mask, values) {
  mask.writable({ left: 0, top: 0, right: mask.width, bottom: mask.height }).set(values);
}

/** @param {Mask} mask */
export function invertMask(mask) {
  const bytes = mask.writable({ left: 0, top: 0, right: mask.width, bottom: mask.height });
  for (let i = 0; i < bytes.length; i++) bytes[i] = 255 - bytes[i];
}

/**
 * The largest value in a square of 2·pixels + 1 around each pixel, as the server's `dilate` grows holes.
 *
 * @param {Mask} mask
 * @param {number} pixels
 * @returns {Rectangle | null} what may have changed
 */
export function growMask(mask, pixels) {
  const { width, height } = mask;
  if (!mask.bytes || !mask.touched || pixels < 1) return null;
  const { left, top, right, bottom } = mask.touched;
  const part = clipped({ left: left - pixels, top: top - pixels, right: right + pixels, bottom: bottom + pixels },
    width, height);
  if (!part) return null;
  const bytes = mask.writable(part);
  const [columns, rows] = [part.right - part.left, part.bottom - part.top];
  // Zeros on all sides, so that the windows need no cases at the edges.
  const [wide, high] = [columns + 2 * pixels, rows + 2 * pixels];
  const work = new Uint8Array(wide * high);
  for (let y = 0; y < rows; y++) {
    const from = (part.top + y) * width + part.left;
    work.set(bytes.subarray(from, from + columns), (y + pixels) * wide + pixels);
  }
  largestAhead(work, 1, 2 * pixels + 1);
  largestAhead(work, wide, 2 * pixels + 1);
  for (let y = 0; y < rows; y++) {
    bytes.set(work.subarray(y * wide, y * wide + columns), (part.top + y) * width + part.left);
  }
  return part;
}

/**
 * Each value becomes the largest of the `count` values at distances 0, step, 2·step, … The windows are doubled until
 * they are long enough, which takes log2(count) passes.
 *
 * @param {Uint8Array} values
 * @param {number} step
 * @param {number} count
 */
function largestAhead(values, step, count) {
  for (let length = 1; length < count; ) {
    const ahead = step * Math.min(length, count - length);
    for (let i = 0; i + ahead < values.length; i++) {
      if (values[i + ahead] > values[i]) values[i] = values[i + ahead];
    }
    length += Math.min(length, count - length);
  }
}

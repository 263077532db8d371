/** Steps back and forth in a mask, kept as the rectangles of bytes that changed. */

import { clipped, union } from "./rectangles.js";

/** @typedef {import("./mask.js").Mask} Mask */
/** @typedef {import("./rectangles.js").Rectangle} Rectangle */
/** @typedef {{part: Rectangle, bytes: Uint8Array}} Patch what a rectangle held on the other side of the step */

const TILE = 128;
const LIMIT_BYTES = 64 * 2 ** 20;

export class Undo {
  /** @type {Patch[][]} */
  #past = [];
  /** @type {Patch[][]} */
  #future = [];
  /** Tiles as they were before the step that is being made. @type {Map<number, Patch> | null} */
  #before = null;

  /**
   * @param {Mask} mask
   * @param {number} [limitBytes] of all steps together; the oldest are forgotten first, the last one never
   */
  constructor(mask, limitBytes = LIMIT_BYTES) {
    this.mask = mask;
    this.limitBytes = limitBytes;
  }

  get canUndo() {
    return this.#past.length > 0;
  }

  get canRedo() {
    return this.#future.length > 0;
  }

  /** Bytes kept. */
  get size() {
    return [...this.#past, ...this.#future].reduce((sum, step) => sum + stepBytes(step), 0);
  }

  /** Begin a step. What it changes must be announced by `touch` first. */
  begin() {
    this.cancel();
    this.#before = new Map();
  }

  /** @param {Rectangle} rectangle that is about to change */
  touch(rectangle) {
    const { width, height } = this.mask;
    const part = clipped(rectangle, width, height);
    if (!part || !this.#before) return;
    const tilesAcross = Math.ceil(width / TILE);
    for (let row = Math.floor(part.top / TILE); row * TILE < part.bottom; row++) {
      for (let column = Math.floor(part.left / TILE); column * TILE < part.right; column++) {
        const key = row * tilesAcross + column;
        if (this.#before.has(key)) continue;
        const tile = {
          left: column * TILE,
          top: row * TILE,
          right: Math.min(width, (column + 1) * TILE),
          bottom: Math.min(height, (row + 1) * TILE),
        };
        this.#before.set(key, { part: tile, bytes: copyPart(this.mask, tile) });
      }
    }
  }

  /** @returns {boolean} whether the step changed anything; if not, it is forgotten */
  commit() {
    const tiles = this.#before ? [...this.#before.values()] : [];
    this.#before = null;
    const step = tiles.map((tile) => changedPart(this.mask, tile)).filter((patch) => patch !== null);
    if (step.length === 0) return false;
    this.#past.push(step);
    this.#future = [];
    this.trim(this.limitBytes);
    return true;
  }

  /** @returns {Rectangle | null} what the abandoned step had changed */
  cancel() {
    const tiles = this.#before ? [...this.#before.values()] : [];
    this.#before = null;
    return swapAll(this.mask, tiles);
  }

  /** @returns {Rectangle | null} what changed; null if there was no step */
  undo() {
    return this.#move(this.#past, this.#future);
  }

  /** @returns {Rectangle | null} */
  redo() {
    return this.#move(this.#future, this.#past);
  }

  /** @param {number} limitBytes */
  trim(limitBytes) {
    let size = this.size;
    while (this.#past.length > 1 && size > limitBytes) size -= stepBytes(this.#past.shift() ?? []);
  }

  /**
   * @param {Patch[][]} from
   * @param {Patch[][]} to
   */
  #move(from, to) {
    this.cancel();
    const step = from.pop();
    if (!step) return null;
    to.push(step);
    return swapAll(this.mask, step);
  }
}

/** @param {Patch[]} step */
function stepBytes(step) {
  return step.reduce((sum, patch) => sum + patch.bytes.length, 0);
}

/**
 * @param {Mask} mask
 * @param {Rectangle} part
 */
function copyPart(mask, part) {
  const columns = part.right - part.left;
  const copy = new Uint8Array(columns * (part.bottom - part.top));
  if (!mask.bytes) return copy;
  for (let y = part.top; y < part.bottom; y++) {
    const from = y * mask.width + part.left;
    copy.set(mask.bytes.subarray(from, from + columns), (y - part.top) * columns);
  }
  return copy;
}

/**
 * @param {Mask} mask
 * @param {Patch} tile its bytes before
 * @returns {Patch | null} the smallest rectangle that holds all that differs
 */
function changedPart(mask, { part, bytes }) {
  if (!mask.bytes) return null;
  const columns = part.right - part.left;
  const changed = { left: part.right, top: part.bottom, right: -1, bottom: -1 };
  for (let y = part.top; y < part.bottom; y++) {
    const row = (y - part.top) * columns - part.left;
    for (let x = part.left; x < part.right; x++) {
      if (bytes[row + x] === mask.bytes[y * mask.width + x]) continue;
      changed.left = Math.min(changed.left, x);
      changed.top = Math.min(changed.top, y);
      changed.right = Math.max(changed.right, x + 1);
      changed.bottom = y + 1;
    }
  }
  if (changed.bottom < 0) return null;
  const width = changed.right - changed.left;
  const kept = new Uint8Array(width * (changed.bottom - changed.top));
  for (let y = changed.top; y < changed.bottom; y++) {
    const from = (y - part.top) * columns + changed.left - part.left;
    kept.set(bytes.subarray(from, from + width), (y - changed.top) * width);
  }
  return { part: changed, bytes: kept };
}

/**
 * @param {Mask} mask
 * @param {Patch[]} patches exchanged with what the mask holds
 * @returns {Rectangle | null}
 */
function swapAll(mask, patches) {
  /** @type {Rectangle | null} */
  let all = null;
  for (const { part, bytes } of patches) {
    const target = mask.writable(part);
    const columns = part.right - part.left;
    for (let y = part.top; y < part.bottom; y++) {
      const inMask = target.subarray(y * mask.width + part.left, y * mask.width + part.right);
      const inPatch = bytes.subarray((y - part.top) * columns, (y - part.top + 1) * columns);
      const row = inMask.slice();
      inMask.set(inPatch);
      inPatch.set(row);
    }
    all = union(all, part);
  }
  return all;
}

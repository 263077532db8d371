/** The photograph on the screen: where it lies, and the canvases it is drawn on. */

import { byId } from "./elements.js";
import { shadeHole } from "./overlay.js";
import { clipped, grown, intersection, union, whole } from "./rectangles.js";

/** @typedef {import("./mask.js").Mask} Mask */
/** @typedef {import("./mask.js").Point} Point */
/** @typedef {import("./picture.js").Picture} Picture */
/** @typedef {import("./rectangles.js").Rectangle} Rectangle */

const MAX_ZOOM = 32;
const MAX_FITTED_ZOOM = 4;
// After the last move the picture is drawn once more, at its best. While it moves, drawing must be quick.
const REST_MS = 120;
// Above this the pixels themselves are shown.
const SHARP_ZOOM = 6;
const TINT = { inside: [255, 30, 120, 118], edge: [255, 255, 255, 235] };

/** Positions called `Point` are pixels of the photograph; those called x and y are CSS pixels of the stage. */
export class View {
  #stage = byId("canvases", HTMLDivElement);
  #pictureCanvas = byId("picture", HTMLCanvasElement);
  #overlayCanvas = byId("overlay", HTMLCanvasElement);
  #isFitted = true;
  #needsPicture = false;
  /** @type {Rectangle | null} in pixels of the screen */
  #staleOverlay = null;
  #frame = 0;
  /** Runs while the picture moves. */
  #restTimer = 0;
  #offset = { x: 0, y: 0 };
  /** @type {Set<() => void>} */
  #listeners = new Set();

  /** CSS pixels a pixel of the photograph. */
  zoom = 1;
  /** @type {Picture | null} */
  picture = null;
  /** What is compared with. @type {Picture | null} */
  original = null;
  /** @type {Mask | null} */
  mask = null;
  /** The original is shown left of this share of the photograph's width: 0 none, 1 all of it. */
  split = 0;

  constructor() {
    new ResizeObserver(() => this.#resize()).observe(this.#stage);
    this.#resize();
  }

  /** @param {() => void} listener called when the view has moved */
  onMove(listener) {
    this.#listeners.add(listener);
  }

  get size() {
    return { width: this.#stage.clientWidth, height: this.#stage.clientHeight };
  }

  /** Where the photograph lies, in CSS pixels of the stage. */
  get frame() {
    const { width, height } = this.picture ?? { width: 0, height: 0 };
    const { x, y } = this.#offset;
    return { left: x, top: y, right: x + width * this.zoom, bottom: y + height * this.zoom };
  }

  /**
   * @param {number} x
   * @param {number} y
   * @returns {Point}
   */
  toPicture(x, y) {
    return { x: (x - this.#offset.x) / this.zoom, y: (y - this.#offset.y) / this.zoom };
  }

  /** @param {Point} point */
  toStage(point) {
    return { x: point.x * this.zoom + this.#offset.x, y: point.y * this.zoom + this.#offset.y };
  }

  /** Show the whole photograph. */
  fit() {
    this.#isFitted = true;
    if (!this.picture) return;
    const { width, height } = this.size;
    const isNarrow = width < 600;
    const room = { x: isNarrow ? 12 : 32, top: isNarrow ? 12 : 72, bottom: isNarrow ? 60 : 72 };
    // On a stage that is hardly higher than what floats on it, that lies over the photograph.
    const free = { width: width - 2 * room.x, height: Math.max(0.6 * height, height - room.top - room.bottom) };
    const zoom = Math.min(free.width / this.picture.width, free.height / this.picture.height, MAX_FITTED_ZOOM);
    this.zoom = Math.max(zoom, 1e-3);
    this.#offset = {
      x: (width - this.picture.width * this.zoom) / 2,
      y: (height + room.top - room.bottom - this.picture.height * this.zoom) / 2,
    };
    this.#moved();
  }

  /**
   * @param {number} factor
   * @param {number} [x] the place that stays where it is
   * @param {number} [y]
   */
  zoomBy(factor, x = this.size.width / 2, y = this.size.height / 2) {
    const fixed = this.toPicture(x, y);
    const smallest = this.picture ? Math.min(1, 64 / Math.max(this.picture.width, this.picture.height)) : 1;
    this.zoom = Math.min(MAX_ZOOM, Math.max(smallest, this.zoom * factor));
    this.#offset = { x: x - fixed.x * this.zoom, y: y - fixed.y * this.zoom };
    this.#isMoving();
  }

  /**
   * @param {number} dx
   * @param {number} dy
   */
  panBy(dx, dy) {
    this.#offset = { x: this.#offset.x + dx, y: this.#offset.y + dy };
    this.#isMoving();
  }

  /** @param {Point} point is brought into the stage if it lies outside */
  reveal(point) {
    const margin = 40;
    const { x, y } = this.toStage(point);
    const { width, height } = this.size;
    const dx = x < margin ? margin - x : Math.min(0, width - margin - x);
    const dy = y < margin ? margin - y : Math.min(0, height - margin - y);
    if (dx || dy) this.panBy(dx, dy);
  }

  /** Draw everything in the next frame. */
  draw() {
    this.#needsPicture = true;
    this.drawOverlay();
  }

  /** @param {Rectangle | null} [part] of the mask that changed; all of it if not given */
  drawOverlay(part) {
    const { width, height } = this.#overlayCanvas;
    const stale = clipped(part ? this.#onScreen(part) : whole(this.#overlayCanvas), width, height);
    this.#staleOverlay = union(this.#staleOverlay, stale);
    this.#frame ||= requestAnimationFrame(() => this.#drawFrame());
  }

  /**
   * @param {Rectangle} part of the photograph
   * @returns {Rectangle} in pixels of the screen, with one more on each side: the edge of the hole next to what changed
   * may have become its inside
   */
  #onScreen(part) {
    const ratio = this.#ratio;
    const scale = this.zoom * ratio;
    return grown({
      left: part.left * scale + this.#offset.x * ratio,
      top: part.top * scale + this.#offset.y * ratio,
      right: part.right * scale + this.#offset.x * ratio,
      bottom: part.bottom * scale + this.#offset.y * ratio,
    }, 2);
  }

  get #ratio() {
    return Math.min(3, window.devicePixelRatio || 1);
  }

  /** One step of many that follow each other. */
  #isMoving() {
    this.#isFitted = false;
    window.clearTimeout(this.#restTimer);
    this.#restTimer = window.setTimeout(() => {
      this.#restTimer = 0;
      this.draw();
    }, REST_MS);
    this.#keepInReach();
    this.#moved();
  }

  #moved() {
    this.draw();
    for (const listener of this.#listeners) listener();
  }

  #resize() {
    const { width, height } = this.size;
    for (const canvas of [this.#pictureCanvas, this.#overlayCanvas]) {
      canvas.width = Math.max(1, Math.round(width * this.#ratio));
      canvas.height = Math.max(1, Math.round(height * this.#ratio));
    }
    if (this.#isFitted) this.fit();
    else this.#moved();
  }

  #keepInReach() {
    if (!this.picture) return;
    const margin = 48;
    const { width, height } = this.size;
    const [wide, high] = [this.picture.width * this.zoom, this.picture.height * this.zoom];
    this.#offset.x = Math.min(width - margin, Math.max(margin - wide, this.#offset.x));
    this.#offset.y = Math.min(height - margin, Math.max(margin - high, this.#offset.y));
  }

  #drawFrame() {
    this.#frame = 0;
    if (this.#needsPicture) this.#drawPicture();
    if (this.#staleOverlay) this.#shade(this.#staleOverlay);
    this.#needsPicture = false;
    this.#staleOverlay = null;
  }

  #drawPicture() {
    const context = this.#pictureCanvas.getContext("2d");
    if (!context) return;
    const { width, height } = this.#pictureCanvas;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, width, height);
    if (!this.picture) return;
    const ratio = this.#ratio;
    context.setTransform(ratio, 0, 0, ratio, this.#offset.x * ratio, this.#offset.y * ratio);
    context.imageSmoothingEnabled = this.zoom * ratio < SHARP_ZOOM;
    context.imageSmoothingQuality = this.#restTimer ? "low" : "high";
    const [wide, high] = [this.picture.width * this.zoom, this.picture.height * this.zoom];
    const parts = [
      { picture: this.original, from: 0, to: this.original ? this.split : 0 },
      { picture: this.picture, from: this.original ? this.split : 0, to: 1 },
    ];
    for (const { picture, from, to } of parts) {
      if (!picture || from >= to) continue;
      context.save();
      context.beginPath();
      context.rect(from * wide, 0, (to - from) * wide, high);
      context.clip();
      context.drawImage(picture.level(this.zoom * ratio), 0, 0, wide, high);
      context.restore();
    }
  }

  /** @param {Rectangle} stale */
  #shade(stale) {
    const context = this.#overlayCanvas.getContext("2d");
    if (!context) return;
    context.clearRect(stale.left, stale.top, stale.right - stale.left, stale.bottom - stale.top);
    const { touched } = this.mask ?? {};
    if (!this.mask || !touched || this.split > 0) return;
    const area = intersection(this.#onScreen(touched), stale);
    if (!area) return;
    const [width, height] = [area.right - area.left, area.bottom - area.top];
    const ratio = this.#ratio;
    const image = context.createImageData(width, height);
    const placement = { scale: this.zoom * ratio, x: this.#offset.x * ratio, y: this.#offset.y * ratio };
    shadeHole(this.mask, placement, area, new Uint32Array(image.data.buffer), {
      inside: packed(TINT.inside),
      edge: packed(TINT.edge),
    });
    context.putImageData(image, area.left, area.top);
  }
}

/** @param {number[]} rgba */
function packed(rgba) {
  return new Uint32Array(Uint8ClampedArray.from(rgba).buffer)[0];
}

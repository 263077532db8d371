/** The tools that change the mask: where they were put down and moved becomes painted pixels. */

import {
  capsuleBounds,
  fillOutline,
  fillRectangle,
  outlineBounds,
  paintCapsule,
  rectangleBetween,
} from "./rasterise.js";

/** @typedef {import("./mask.js").Mask} Mask */
/** @typedef {import("./mask.js").Point} Point */
/** @typedef {import("./rectangles.js").Rectangle} Rectangle */
/** @typedef {import("./undo.js").Undo} Undo */
/** @typedef {"brush" | "eraser" | "rectangle" | "lasso" | "move"} ToolName */

/** @type {ToolName[]} */
export const TOOLS = ["brush", "eraser", "rectangle", "lasso", "move"];
const MIN_SIZE = 1;
// Of the photograph's shorter side.
const LARGEST_SHARE = 0.5;
const FIRST_SHARE = 0.09;

export class Tools {
  /** @type {ToolName} */
  name = "brush";
  /** Corners or points that were set and have not become a hole yet. @type {Point[]} */
  points = [];
  /** 0 to 1 */
  hardness = 0.8;
  /** Diameter of the brush, as a share of the photograph's shorter side. */
  #share = FIRST_SHARE;
  /** @type {{mask: Mask, undo: Undo} | null} */
  #target = null;
  /** Where the brush was last, while it paints. @type {Point | null} */
  #last = null;
  /** Whether the pointer is down with a rectangle or lasso. */
  #isDragging = false;
  #wasDragged = false;

  /**
   * @param {object} listeners
   * @param {(part: Rectangle | null) => void} listeners.painted part of the mask to draw again
   * @param {() => void} listeners.finished a step is complete
   * @param {() => void} listeners.marked `points` has changed
   */
  constructor(listeners) {
    this.listeners = listeners;
  }

  /** @param {{mask: Mask, undo: Undo} | null} target what is painted on */
  attach(target) {
    if (target?.mask === this.#target?.mask) return;
    this.cancel();
    this.#target = target;
  }

  /** @param {ToolName} name */
  choose(name) {
    this.cancel();
    this.name = name;
  }

  get paints() {
    return this.name === "brush" || this.name === "eraser";
  }

  get isBusy() {
    return this.#last !== null || this.points.length > 0;
  }

  /** Diameter in pixels of the photograph. */
  get size() {
    return Math.max(MIN_SIZE, Math.round(this.#share * this.#shorterSide));
  }

  set size(pixels) {
    this.#share = Math.min(LARGEST_SHARE, Math.max(MIN_SIZE, pixels) / this.#shorterSide);
  }

  /** 0 to 1 on a scale where equal steps are equal ratios. */
  get sizeOnScale() {
    return Math.log(this.size / MIN_SIZE) / Math.log(this.#largest / MIN_SIZE);
  }

  set sizeOnScale(value) {
    this.size = MIN_SIZE * (this.#largest / MIN_SIZE) ** value;
  }

  get #shorterSide() {
    return this.#target ? Math.min(this.#target.mask.width, this.#target.mask.height) : 1000;
  }

  get #largest() {
    return Math.max(2, LARGEST_SHARE * this.#shorterSide);
  }

  /** @param {Point} point where the tool was put down */
  begin(point) {
    if (!this.#target) return;
    if (this.paints) {
      this.#target.undo.begin();
      this.#last = point;
      this.#stamp(point, point);
      return;
    }
    this.#isDragging = true;
    this.#wasDragged = false;
    this.points.push(point);
    if (this.name === "rectangle" && this.points.length === 1) this.points.push(point);
    this.listeners.marked();
  }

  /**
   * @param {Point[]} points where the tool went since, in order
   * @param {number} tolerance moves shorter than this, in pixels of the photograph, are none
   */
  move(points, tolerance) {
    const end = points[points.length - 1];
    if (!this.#target || !end) return;
    if (this.#last) {
      for (const point of points) {
        // Points closer than a twentieth of the radius change almost nothing and cost as much as others.
        if (point !== end && distance(point, this.#last) < this.size / 40) continue;
        this.#stamp(this.#last, point);
        this.#last = point;
      }
      return;
    }
    if (!this.#isDragging) return;
    const start = this.points[this.name === "rectangle" ? 0 : this.points.length - 1];
    if (!this.#wasDragged && distance(start, end) <= tolerance) return;
    this.#wasDragged = true;
    if (this.name === "rectangle") this.points[1] = end;
    else this.points.push(...points);
    this.listeners.marked();
  }

  /**
   * The tool was lifted. A rectangle or lasso that was dragged is complete. One that was only put down waits for its
   * other corner or points, so that nothing needs dragging.
   *
   * @param {Point} point
   * @param {number} tolerance a point this close to the lasso's first closes it
   */
  end(point, tolerance) {
    if (this.#last) {
      this.#last = null;
      this.#commit();
      return;
    }
    if (!this.#isDragging) return;
    this.#isDragging = false;
    if (this.name === "rectangle") {
      if (this.points.length > 2) this.points = [this.points[0], point];
      else if (!this.#wasDragged) return;
      this.complete();
    } else if (this.#wasDragged || (this.points.length > 3 && distance(this.points[0], point) <= tolerance)) {
      this.complete();
    }
  }

  /**
   * One corner or point, or one dot of the brush, without a pointer.
   *
   * @param {Point} point
   */
  put(point) {
    const previous = this.points[this.points.length - 1];
    if (this.name === "lasso" && previous && distance(previous, point) < 0.5) {
      this.complete();
      return;
    }
    this.begin(point);
    this.end(point, 0);
  }

  /** Make the hole that the points set so far describe. */
  complete() {
    const { points } = this;
    this.points = [];
    this.#isDragging = false;
    this.listeners.marked();
    if (!this.#target || points.length < 2) return;
    const { mask } = this.#target;
    if (this.name === "rectangle") {
      const part = rectangleBetween(mask, points[0], points[1]);
      if (part) this.change(part, () => fillRectangle(mask, points[0], points[1]));
    } else {
      this.change(outlineBounds(points), () => fillOutline(mask, points));
    }
  }

  /** Leave what is being drawn as if it had not begun. */
  cancel() {
    this.points = [];
    this.#isDragging = false;
    this.#last = null;
    const part = this.#target?.undo.cancel() ?? null;
    if (part) this.listeners.painted(part);
    this.listeners.marked();
  }

  /**
   * Any change of the mask, as one step.
   *
   * @param {Rectangle} part that may change
   * @param {() => unknown} action
   */
  change(part, action) {
    if (!this.#target) return;
    this.#target.undo.begin();
    this.#target.undo.touch(part);
    action();
    this.listeners.painted(part);
    this.#commit();
  }

  #commit() {
    if (this.#target?.undo.commit()) this.listeners.finished();
  }

  /**
   * @param {Point} from
   * @param {Point} to
   */
  #stamp(from, to) {
    if (!this.#target) return;
    const { mask, undo } = this.#target;
    const brush = { radius: this.size / 2, hardness: this.hardness, erases: this.name === "eraser" };
    undo.touch(capsuleBounds(from, to, brush.radius));
    const part = paintCapsule(mask, from, to, brush);
    if (part) this.listeners.painted(part);
  }
}

/**
 * @param {Point} a
 * @param {Point} b
 */
function distance(a, b) {
  return Math.hypot(a.x - b.x, a.y - b.y);
}

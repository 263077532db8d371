/** Mouse, pen and fingers on the photograph: one pointer uses the tool, two fingers zoom and move the view. */

import { byId } from "./elements.js";

/** @typedef {import("./tools.js").Tools} Tools */
/** @typedef {import("./view.js").View} View */

// CSS pixels. A finger is less steady than a mouse.
const TOLERANCE = { mouse: 4, pen: 6, touch: 12 };

export class Gestures {
  #stage = byId("stage", HTMLElement);
  #surface = byId("canvases", HTMLDivElement);
  /** Fingers, pens and buttons that are down. @type {Map<number, {x: number, y: number}>} */
  #pointers = new Map();
  /** @type {"none" | "tool" | "pan" | "pinch"} */
  #mode = "none";
  isSpaceDown = false;

  /**
   * @param {View} view
   * @param {Tools} tools
   * @param {(place: {x: number, y: number} | null) => void} hover the pointer is over the photograph at this place
   */
  constructor(view, tools, hover) {
    this.view = view;
    this.tools = tools;
    const surface = this.#surface;
    surface.addEventListener("pointerdown", (event) => this.#down(event));
    surface.addEventListener("pointermove", (event) => {
      hover(event.pointerType === "touch" ? null : this.#place(event));
      this.#move(event);
    });
    surface.addEventListener("pointerup", (event) => this.#up(event));
    surface.addEventListener("pointercancel", (event) => this.#cancel(event));
    surface.addEventListener("pointerleave", () => hover(null));
    surface.addEventListener("dblclick", () => {
      if (tools.name === "lasso" && tools.points.length > 2) tools.complete();
    });
    surface.addEventListener("contextmenu", (event) => event.preventDefault());
    this.#stage.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
  }

  /** @param {MouseEvent} event */
  #place(event) {
    const { left, top } = this.#surface.getBoundingClientRect();
    return { x: event.clientX - left, y: event.clientY - top };
  }

  /** @param {PointerEvent} event */
  #point(event) {
    const { x, y } = this.#place(event);
    return this.view.toPicture(x, y);
  }

  /** @param {PointerEvent} event */
  #tolerance(event) {
    const pixels = TOLERANCE[/** @type {"mouse" | "pen" | "touch"} */ (event.pointerType)] ?? TOLERANCE.mouse;
    return pixels / this.view.zoom;
  }

  /** @param {PointerEvent} event */
  #down(event) {
    if (event.button > 1) return;
    this.#surface.setPointerCapture(event.pointerId);
    this.#pointers.set(event.pointerId, this.#place(event));
    if (this.#pointers.size > 1) {
      // The first finger did not mean to paint.
      if (this.#mode === "tool") this.tools.cancel();
      this.#mode = "pinch";
    } else if (event.button === 1 || this.isSpaceDown || this.tools.name === "move") {
      event.preventDefault();
      this.#mode = "pan";
    } else {
      this.#mode = "tool";
      this.tools.begin(this.#point(event));
    }
    this.#surface.dataset.mode = this.#mode;
  }

  /** @param {PointerEvent} event */
  #move(event) {
    const before = this.#pointers.get(event.pointerId);
    if (!before) return;
    const place = this.#place(event);
    if (this.#mode === "tool") {
      const events = event.getCoalescedEvents?.() ?? [];
      this.tools.move((events.length ? events : [event]).map((each) => this.#point(each)), this.#tolerance(event));
    } else if (this.#mode === "pan") {
      this.view.panBy(place.x - before.x, place.y - before.y);
    } else if (this.#mode === "pinch") {
      const other = [...this.#pointers].find(([id]) => id !== event.pointerId)?.[1];
      if (other) this.#pinch(before, place, other);
    }
    this.#pointers.set(event.pointerId, place);
  }

  /**
   * @param {{x: number, y: number}} before
   * @param {{x: number, y: number}} after
   * @param {{x: number, y: number}} other the finger that did not move
   */
  #pinch(before, after, other) {
    const ratio = Math.hypot(after.x - other.x, after.y - other.y) / Math.hypot(before.x - other.x, before.y - other.y);
    const middle = { x: (after.x + other.x) / 2, y: (after.y + other.y) / 2 };
    this.view.panBy((after.x - before.x) / 2, (after.y - before.y) / 2);
    if (Number.isFinite(ratio) && ratio > 0) this.view.zoomBy(ratio, middle.x, middle.y);
  }

  /** @param {PointerEvent} event */
  #up(event) {
    if (!this.#pointers.delete(event.pointerId)) return;
    if (this.#mode === "tool") this.tools.end(this.#point(event), this.#tolerance(event));
    this.#rest();
  }

  /** @param {PointerEvent} event */
  #cancel(event) {
    if (!this.#pointers.delete(event.pointerId)) return;
    if (this.#mode === "tool") this.tools.cancel();
    this.#rest();
  }

  #rest() {
    // The finger that stays down after a pinch does nothing.
    if (this.#pointers.size === 0) this.#mode = "none";
    this.#surface.dataset.mode = this.#mode;
  }

  /** @param {WheelEvent} event */
  #wheel(event) {
    event.preventDefault();
    const { x, y } = this.#place(event);
    const lines = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 16 : 1;
    // A pinch on a touchpad arrives as a wheel with Ctrl, in small steps.
    const pixels = event.deltaY * lines * (event.ctrlKey ? 4 : 1);
    this.view.zoomBy(Math.exp(-Math.max(-240, Math.min(240, pixels)) / 400), x, y);
  }
}

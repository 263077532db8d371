/** Lines over the photograph: the brush's ring, the keyboard's cursor, a rectangle or lasso that is being drawn. */

import { byId } from "./elements.js";

/** @typedef {import("./mask.js").Point} Point */
/** @typedef {import("./tools.js").Tools} Tools */
/** @typedef {import("./view.js").View} View */

export class Marks {
  #svg = byId("marks", SVGSVGElement);
  #cursor = this.#find("cursor");
  #rectangle = this.#find("rectangle");
  #outline = this.#find("outline");
  #seam = this.#find("seam");
  /** @type {{x: number, y: number} | null} */
  #pointer = null;
  /** The keyboard's place on the photograph, while it is used. @type {Point | null} */
  keyboard = null;

  /**
   * @param {View} view
   * @param {Tools} tools
   */
  constructor(view, tools) {
    this.view = view;
    this.tools = tools;
  }

  /** @param {{x: number, y: number} | null} place of a mouse or pen on the stage */
  hover(place) {
    this.#pointer = place;
    if (place) this.keyboard = null;
    this.draw();
  }

  draw() {
    const { view, tools } = this;
    const place = this.keyboard ? view.toStage(this.keyboard) : this.#pointer;
    const ring = tools.paints ? (tools.size / 2) * view.zoom : 0;
    show(this.#cursor, view.picture !== null && view.split === 0 && place !== null && (ring > 0 || !!this.keyboard));
    if (place) {
      this.#cursor.setAttribute("transform", `translate(${place.x} ${place.y})`);
      const [outer, inner] = this.#cursor.querySelectorAll("circle");
      outer.setAttribute("r", String(ring));
      inner.setAttribute("r", String(ring * tools.hardness));
      show(inner, ring * (1 - tools.hardness) > 3);
      // A ring too small to be seen needs the cross too.
      show(this.#cursor.querySelector("path"), !!this.keyboard || ring < 3);
    }
    this.#drawPoints(place);
    const { left, top, right, bottom } = view.frame;
    const isSplit = view.split > 0 && view.split < 1;
    show(this.#seam, isSplit);
    const x = String(left + view.split * (right - left));
    for (const [name, value] of [["x1", x], ["x2", x], ["y1", top], ["y2", bottom]]) {
      this.#seam.setAttribute(String(name), String(value));
    }
  }

  /** @param {{x: number, y: number} | null} place that the next corner or point would have */
  #drawPoints(place) {
    const { name, points } = this.tools;
    const corners = points.map((point) => this.view.toStage(point));
    // A first corner that was only put down is followed by the pointer.
    const isOpen = name === "rectangle" && points.length === 2 && points[0] === points[1];
    if (isOpen && place) corners[1] = place;
    show(this.#rectangle, name === "rectangle" && corners.length > 1);
    show(this.#outline, name === "lasso" && corners.length > 0);
    if (name === "rectangle" && corners.length > 1) {
      const [a, b] = [corners[0], corners[corners.length - 1]];
      this.#rectangle.setAttribute("x", String(Math.min(a.x, b.x)));
      this.#rectangle.setAttribute("y", String(Math.min(a.y, b.y)));
      this.#rectangle.setAttribute("width", String(Math.max(1, Math.abs(a.x - b.x))));
      this.#rectangle.setAttribute("height", String(Math.max(1, Math.abs(a.y - b.y))));
    } else if (name === "lasso") {
      if (place) corners.push(place);
      this.#outline.setAttribute("points", corners.map(({ x, y }) => `${x},${y}`).join(" "));
    }
  }

  /** @param {string} name */
  #find(name) {
    const element = this.#svg.querySelector(`[data-mark=${name}]`);
    if (!element) throw new Error(`no mark called ${name}`);
    return element;
  }
}

/**
 * @param {Element | null} element
 * @param {boolean} isShown
 */
function show(element, isShown) {
  element?.toggleAttribute("data-shown", isShown);
}

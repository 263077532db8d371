/** The keyboard: shortcuts everywhere, and a cursor that paints while the photograph has the focus. */

import { byId, input } from "./elements.js";
import { recall, remember } from "./remembered.js";

/** @typedef {import("./gestures.js").Gestures} Gestures */
/** @typedef {import("./marks.js").Marks} Marks */
/** @typedef {import("./tools.js").Tools} Tools */
/** @typedef {import("./tools.js").ToolName} ToolName */
/** @typedef {import("./view.js").View} View */

/** @type {Record<string, ToolName>} */
const TOOL_KEYS = { b: "brush", e: "eraser", r: "rectangle", l: "lasso", m: "move" };
/** @type {Record<string, [number, number]>} */
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
// Steps of the cursor in CSS pixels.
const STEP = { small: 8, large: 48 };
const SINGLE_KEYS = "cisi-single-keys";

/**
 * @typedef {object} Commands
 * @property {(name: ToolName) => void} tool
 * @property {(factor: number) => void} resize the brush
 * @property {() => void} undo
 * @property {() => void} redo
 * @property {(isHeld: boolean) => void} compare
 * @property {() => void} inpaint
 * @property {() => void} next
 * @property {() => void} escape
 */

export class Keys {
  #surface = byId("canvases", HTMLDivElement);
  #singleKeys = input("single-keys");
  /** Where the cursor was when the photograph lost the focus. @type {import("./mask.js").Point | null} */
  #left = null;

  /**
   * @param {{view: View, tools: Tools, marks: Marks, gestures: Gestures}} parts
   * @param {Commands} commands
   */
  constructor(parts, commands) {
    this.parts = parts;
    this.commands = commands;
    this.#singleKeys.checked = recall("localStorage", SINGLE_KEYS) !== "off";
    this.#singleKeys.addEventListener("change", () => {
      remember("localStorage", SINGLE_KEYS, this.#singleKeys.checked ? "on" : "off");
    });
    document.addEventListener("keydown", (event) => {
      if (document.querySelector("dialog[open]")) return;
      const isHandled = this.#shortcut(event) || this.#onPhotograph(event);
      if (isHandled) event.preventDefault();
    });
    document.addEventListener("keyup", (event) => {
      if (event.key === " ") parts.gestures.isSpaceDown = false;
      if (event.key.toLowerCase() === "c") commands.compare(false);
    });
    window.addEventListener("blur", () => {
      parts.gestures.isSpaceDown = false;
      commands.compare(false);
    });
    this.#surface.addEventListener("focus", () => {
      if (this.#surface.matches(":focus-visible")) this.#showCursor();
    });
    this.#surface.addEventListener("blur", () => {
      this.#left = parts.marks.keyboard;
      parts.marks.keyboard = null;
      parts.marks.draw();
    });
  }

  /**
   * @param {KeyboardEvent} event
   * @returns {boolean}
   */
  #shortcut(event) {
    const { commands, parts } = this;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const isTyping = event.target instanceof HTMLElement && event.target.matches("input[type=number], select");
    if (key === "Escape") {
      commands.escape();
      return true;
    }
    if (event.ctrlKey || event.metaKey) {
      if (key === "Enter") commands.inpaint();
      else if (key === "z" && !isTyping) (event.shiftKey ? commands.redo : commands.undo)();
      else if (key === "y" && !isTyping) commands.redo();
      else return false;
      return true;
    }
    if (isTyping || event.altKey || !this.#singleKeys.checked) return false;
    if (TOOL_KEYS[key]) commands.tool(TOOL_KEYS[key]);
    else if (key === "[") commands.resize(1 / 1.15);
    else if (key === "]") commands.resize(1.15);
    else if (key === "+" || key === "=") parts.view.zoomBy(1.25);
    else if (key === "-") parts.view.zoomBy(0.8);
    else if (key === "0") parts.view.fit();
    else if (key === "n") commands.next();
    else if (key === "c") commands.compare(true);
    else return false;
    return true;
  }

  /**
   * @param {KeyboardEvent} event
   * @returns {boolean}
   */
  #onPhotograph(event) {
    const { view, tools, marks, gestures } = this.parts;
    if (event.target !== this.#surface && event.target !== document.body) return false;
    if (event.key === " " && !marks.keyboard) {
      gestures.isSpaceDown = true;
      return true;
    }
    if (event.target !== this.#surface || !view.picture) return false;
    if (ARROWS[event.key]) {
      this.#showCursor();
      const step = (event.shiftKey ? STEP.large : STEP.small) / view.zoom;
      const [dx, dy] = ARROWS[event.key];
      const { width, height } = view.picture;
      marks.keyboard = {
        x: Math.min(width - 0.5, Math.max(0.5, (marks.keyboard?.x ?? 0) + dx * step)),
        y: Math.min(height - 0.5, Math.max(0.5, (marks.keyboard?.y ?? 0) + dy * step)),
      };
      view.reveal(marks.keyboard);
      marks.draw();
      return true;
    }
    if (event.key === "Enter" && !marks.keyboard) {
      this.#showCursor();
      return true;
    }
    if ((event.key === "Enter" || event.key === " ") && marks.keyboard) {
      if (!event.repeat && tools.name !== "move") tools.put(marks.keyboard);
      return true;
    }
    return false;
  }

  /** Where it was, or in the middle of what is seen of the photograph. */
  #showCursor() {
    const { view, marks } = this.parts;
    if (marks.keyboard || !view.picture) return;
    const { left, top, right, bottom } = view.frame;
    const { width, height } = view.size;
    const middle = view.toPicture(
      (Math.max(0, left) + Math.min(width, right)) / 2,
      (Math.max(0, top) + Math.min(height, bottom)) / 2,
    );
    const isInside = this.#left && this.#left.x < view.picture.width && this.#left.y < view.picture.height;
    marks.keyboard = isInside ? this.#left : middle;
    this.#left = null;
    marks.draw();
  }
}

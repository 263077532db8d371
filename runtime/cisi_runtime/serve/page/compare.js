/** The original beside the result: held, or with a slider. */

import { button, byId, input } from "./elements.js";

/** @typedef {import("./marks.js").Marks} Marks */
/** @typedef {import("./view.js").View} View */

// Width of the slider's handle in CSS pixels; style.css has it too.
const HANDLE = 44;

export class Compare {
  #split = input("split");
  #badge = byId("badge", HTMLParagraphElement);
  #slider = button("slider");
  #isHeld = false;

  /**
   * @param {View} view
   * @param {Marks} marks
   */
  constructor(view, marks) {
    this.view = view;
    this.marks = marks;
    view.onMove(() => this.#place());
    this.#slider.addEventListener("click", () => {
      this.#split.hidden = !this.#split.hidden;
      if (!this.#split.hidden) this.#split.focus({ preventScroll: true });
      this.#draw();
    });
    this.#split.addEventListener("input", () => this.#draw());
    const hold = button("hold");
    hold.addEventListener("pointerdown", (event) => {
      hold.setPointerCapture(event.pointerId);
      this.hold(true);
    });
    for (const name of ["pointerup", "pointercancel", "blur"]) hold.addEventListener(name, () => this.hold(false));
    hold.addEventListener("contextmenu", (event) => event.preventDefault()); // a long touch
    hold.addEventListener("keydown", (event) => {
      if (event.key === " " || event.key === "Enter") this.hold(true);
    });
    hold.addEventListener("keyup", () => this.hold(false));
  }

  /** @param {boolean} isHeld whether the original is shown instead */
  hold(isHeld) {
    if (this.#isHeld === isHeld || !this.view.original) return;
    this.#isHeld = isHeld;
    this.#draw();
  }

  /** @param {boolean} isPossible whether a result is shown */
  reset(isPossible) {
    this.#isHeld = false;
    if (!isPossible) this.#split.hidden = true;
    byId("compare", HTMLElement).hidden = !isPossible;
    this.#draw();
  }

  #draw() {
    const { view } = this;
    const isSliding = !this.#split.hidden;
    const share = Number(this.#split.value) / Number(this.#split.max);
    view.split = this.#isHeld ? 1 : isSliding ? share : 0;
    this.#split.setAttribute("aria-valuetext", `${Math.round(100 * share)} % original`);
    this.#slider.setAttribute("aria-pressed", String(isSliding));
    button("hold").setAttribute("aria-pressed", String(this.#isHeld));
    this.#badge.hidden = !this.#isHeld;
    this.#badge.textContent = "Original";
    document.body.dataset.compare = this.#isHeld ? "original" : isSliding ? "slider" : "";
    this.#place();
    view.draw();
    this.marks.draw();
  }

  /** The slider lies over the photograph, so that its handle is where the seam is. */
  #place() {
    if (this.#split.hidden) return;
    const { left, top, right, bottom } = this.view.frame;
    this.#split.style.left = `${left - HANDLE / 2}px`;
    this.#split.style.width = `${right - left + HANDLE}px`;
    this.#split.style.top = `${top}px`;
    this.#split.style.height = `${bottom - top}px`;
  }
}

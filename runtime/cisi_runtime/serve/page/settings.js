/** Which tool is chosen, its size and hardness, and what is wished of the result. */

import { byId, formatInWords, input } from "./elements.js";

/** @typedef {import("./marks.js").Marks} Marks */
/** @typedef {import("./service.js").Options} Options */
/** @typedef {import("./tools.js").ToolName} ToolName */
/** @typedef {import("./tools.js").Tools} Tools */

export class Settings {
  #size = input("brush-size");
  #hardness = input("brush-hardness");
  #tools = /** @type {HTMLButtonElement[]} */ ([...document.querySelectorAll("button[data-tool]")]);

  /**
   * @param {Tools} tools
   * @param {Marks} marks
   */
  constructor(tools, marks) {
    this.tools = tools;
    this.marks = marks;
    this.#size.addEventListener("input", () => {
      tools.sizeOnScale = Number(this.#size.value) / 100;
      this.draw();
    });
    this.#hardness.addEventListener("input", () => {
      tools.hardness = Number(this.#hardness.value) / 100;
      this.draw();
    });
    this.draw();
  }

  /** @returns {Options} */
  get options() {
    return { format: byId("format", HTMLSelectElement).value, texture: input("texture").checked };
  }

  /** @param {(name: ToolName) => void} choose */
  onChoose(choose) {
    for (const each of this.#tools) {
      each.addEventListener("click", () => choose(/** @type {ToolName} */ (each.dataset.tool)));
    }
  }

  /** @param {number} factor for the brush's size; at least a pixel */
  resize(factor) {
    const { tools } = this;
    tools.size = factor > 1 ? Math.max(tools.size + 1, tools.size * factor) : tools.size * factor;
    this.draw();
  }

  draw() {
    const { tools } = this;
    for (const each of this.#tools) each.setAttribute("aria-pressed", String(each.dataset.tool === tools.name));
    document.body.dataset.tool = tools.name;
    byId("settings", HTMLElement).hidden = !tools.paints;
    this.#size.value = String(100 * tools.sizeOnScale);
    this.#hardness.value = String(100 * tools.hardness);
    const [size, hardness] = [`${tools.size} px`, `${Math.round(100 * tools.hardness)} %`];
    byId("brush-size-text", HTMLOutputElement).textContent = size;
    byId("brush-hardness-text", HTMLOutputElement).textContent = hardness;
    this.#size.setAttribute("aria-valuetext", size);
    this.#hardness.setAttribute("aria-valuetext", hardness);
    this.marks.draw();
  }
}

/** @param {string[]} formats that a result may have */
export function offerFormats(formats) {
  const select = byId("format", HTMLSelectElement);
  byId("format-row", HTMLLabelElement).hidden = formats.length < 2;
  for (const format of formats) select.append(new Option(formatInWords(format), format));
}

/** @param {boolean} isThere */
export function offerTexture(isThere) {
  byId("texture-row", HTMLLabelElement).hidden = !isThere;
}

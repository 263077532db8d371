/** The card that says what is being done, and what went wrong. */

import { button, byId } from "./elements.js";

// A note stays long enough to be read slowly, and was announced.
const NOTE_MS = 4000;
const NOTE_MS_PER_CHARACTER = 100;

/** @typedef {{label: string, run: () => void}} Action */

export class Status {
  #card = byId("card", HTMLDivElement);
  #text = byId("card-text", HTMLParagraphElement);
  #progress = byId("card-progress", HTMLProgressElement);
  #action = button("card-action");
  #close = button("card-close");
  #announcer = byId("announcer", HTMLParagraphElement);
  #alert = byId("alert", HTMLParagraphElement);
  /** @type {(() => void) | null} */
  #run = null;
  #timer = 0;

  constructor() {
    this.#action.addEventListener("click", () => this.#run?.());
    this.#close.addEventListener("click", () => this.clear());
  }

  /**
   * Work that takes a while, with the seconds that it has taken.
   *
   * @param {string} text
   * @param {() => void} cancel
   */
  busy(text, cancel) {
    const start = performance.now();
    this.#show("busy", text, { label: "Cancel", run: cancel });
    this.#progress.removeAttribute("value");
    this.#timer = window.setInterval(() => {
      const seconds = Math.floor((performance.now() - start) / 1000);
      if (seconds > 0) this.#text.textContent = `${text} ${seconds} s`;
    }, 250);
    this.#announcer.textContent = text;
  }

  /**
   * @param {string} text
   * @param {number} share of the work that is done, 0 to 1
   * @param {() => void} cancel
   */
  progress(text, share, cancel) {
    this.#step(`${text} ${Math.round(100 * share)} %`, text, share, cancel);
  }

  /**
   * @param {string} text
   * @param {number} seconds to wait
   * @param {number} left of them
   * @param {() => void} cancel
   */
  countDown(text, seconds, left, cancel) {
    this.#step(`${text} ${left} s`, `${text} ${seconds} s`, 1 - left / seconds, cancel);
  }

  /**
   * @param {string} text
   * @param {string} announcement the same for all steps: it is said once
   * @param {number} share
   * @param {() => void} cancel
   */
  #step(text, announcement, share, cancel) {
    this.#show("busy", text, { label: "Cancel", run: cancel });
    this.#progress.value = share;
    if (this.#announcer.textContent !== announcement) this.#announcer.textContent = announcement;
  }

  /**
   * @param {string} text
   * @param {Action | null} [action]
   */
  problem(text, action = null) {
    this.#show("problem", text, action);
    this.#alert.textContent = text;
  }

  /** @param {string} text that needs no answer */
  say(text) {
    this.#show("note", text, null);
    this.#announcer.textContent = text;
    this.#timer = window.setTimeout(() => this.clear(), NOTE_MS + NOTE_MS_PER_CHARACTER * text.length);
  }

  /** @param {string} text for those who do not see the page */
  announce(text) {
    this.#announcer.textContent = text;
  }

  clear() {
    this.#stopTimer();
    if (this.#card.contains(document.activeElement)) byId("canvases", HTMLDivElement).focus({ preventScroll: true });
    this.#card.hidden = true;
    this.#run = null;
  }

  /** @returns {boolean} whether the card says how work goes on */
  get isBusy() {
    return !this.#card.hidden && this.#card.dataset.kind === "busy";
  }

  /**
   * @param {"busy" | "problem" | "note"} kind
   * @param {string} text
   * @param {Action | null} action
   */
  #show(kind, text, action) {
    this.#stopTimer();
    this.#card.dataset.kind = kind;
    this.#card.hidden = false;
    this.#text.textContent = text;
    this.#progress.hidden = kind !== "busy";
    this.#close.hidden = kind === "busy";
    this.#action.hidden = action === null;
    this.#action.textContent = action?.label ?? "";
    this.#run = action?.run ?? null;
  }

  #stopTimer() {
    window.clearInterval(this.#timer); // also ends a timeout
    this.#alert.textContent = "";
  }
}

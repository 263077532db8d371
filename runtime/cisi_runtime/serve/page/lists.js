/** The lists of pictures: the queue of photographs, and the history of the current one. */

import { byId } from "./elements.js";

/** @typedef {import("./photographs.js").Photograph} Photograph */
/** @typedef {import("./photographs.js").Version} Version */

const STATES = { "": "", working: "being inpainted", done: "inpainted", failed: "failed" };

/**
 * Each entry is made once and then kept, so that a click or the focus on it survives what goes on meanwhile.
 *
 * @type {WeakMap<Photograph | Version, HTMLLIElement>}
 */
const entries = new WeakMap();

/**
 * @param {Photograph[]} photographs
 * @param {Photograph | null} current
 * @param {{show: (photograph: Photograph) => void, close: (photograph: Photograph) => void}} actions
 */
export function drawQueue(photographs, current, { show, close }) {
  byId("queue", HTMLElement).hidden = photographs.length < 2;
  const items = photographs.map((photograph) => {
    const { name, state, problem } = photograph;
    const item = entryOf(photograph, () => show(photograph));
    if (!item.querySelector(".remove")) item.append(removeButton(name, () => close(photograph)));
    const { hasHole } = photograph.current;
    const parts = [name, STATES[state], problem, hasHole ? "with a mask" : ""];
    describe(item, photograph.current.thumbnail, parts.filter(Boolean).join(", "), photograph === current);
    item.dataset.state = hasHole && (state === "" || state === "done") ? "masked" : state;
    item.title = problem ? `${name}: ${problem}` : name;
    return item;
  });
  arrange(byId("queue-list", HTMLOListElement), items);
}

/**
 * @param {Photograph | null} photograph
 * @param {(photograph: Photograph, version: Version) => void} show
 */
export function drawHistory(photograph, show) {
  const versions = photograph?.versions ?? [];
  byId("history-section", HTMLElement).hidden = versions.length < 2;
  const items = versions.map((version) => {
    const item = entryOf(version, () => photograph && show(photograph, version));
    if (!item.querySelector("span")) {
      const text = document.createElement("span");
      text.textContent = version.label;
      item.firstElementChild?.append(text);
    }
    describe(item, version.thumbnail, version.label, version === photograph?.current);
    return item;
  });
  arrange(byId("history", HTMLOListElement), items);
}

/**
 * @param {Photograph | Version} what
 * @param {() => void} choose
 */
function entryOf(what, choose) {
  const known = entries.get(what);
  if (known) return known;
  const item = document.createElement("li");
  const button = document.createElement("button");
  const image = document.createElement("img");
  button.type = "button";
  image.alt = "";
  button.addEventListener("click", choose);
  button.append(image);
  item.append(button);
  entries.set(what, item);
  return item;
}

/**
 * @param {string} name
 * @param {() => void} remove
 */
function removeButton(name, remove) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "remove";
  button.setAttribute("aria-label", `Close ${name}`);
  button.addEventListener("click", remove);
  return button;
}

/**
 * @param {HTMLLIElement} item
 * @param {string} thumbnail
 * @param {string} label
 * @param {boolean} isCurrent
 */
function describe(item, thumbnail, label, isCurrent) {
  const image = item.querySelector("img");
  if (image && thumbnail && image.getAttribute("src") !== thumbnail) image.src = thumbnail;
  const button = item.firstElementChild;
  button?.setAttribute("aria-label", label);
  if (isCurrent) button?.setAttribute("aria-current", "true");
  else button?.removeAttribute("aria-current");
}

/**
 * @param {HTMLOListElement} list
 * @param {HTMLLIElement[]} items that it is to hold; new ones come last
 */
function arrange(list, items) {
  for (const item of [...list.children]) {
    if (items.includes(/** @type {HTMLLIElement} */ (item))) continue;
    const neighbour = item.nextElementSibling ?? item.previousElementSibling;
    if (item.contains(document.activeElement)) neighbour?.querySelector("button")?.focus();
    item.remove();
  }
  for (const item of items) if (item.parentElement !== list) list.append(item);
}

/** What the engine takes and gives, said on the page. */

import { byId, bytesInWords, formatInWords } from "./elements.js";
import { readLimits } from "./engine.js";
import { offerFormats, offerTexture } from "./settings.js";

/** @typedef {import("./service.js").Limits} Limits */

/** @param {typeof import("./service.js").capabilities} capabilities */
export async function showLimits(capabilities) {
  const notes = byId("engine-notes", HTMLUListElement);
  notes.replaceChildren(...capabilities.notes.map((note) => {
    const item = document.createElement("li");
    item.textContent = note;
    return item;
  }));
  offerTexture(capabilities.hasTexture);
  /** @type {Limits} */
  let limits;
  try {
    limits = await readLimits();
  } catch {
    // The page does not need them: whoever opens a photograph is told what is wrong.
    return;
  }
  offerFormats(limits.formats);
  const bounds = [
    limits.maxMegapixels && `${limits.maxMegapixels} megapixels`,
    limits.maxBytes && bytesInWords(limits.maxBytes),
  ].filter(Boolean);
  const most = bounds.length ? `, up to ${bounds.join(" and ")}` : "";
  byId("formats", HTMLParagraphElement).textContent = `${limits.formats.map(formatInWords).join(", ")}${most}`;
}

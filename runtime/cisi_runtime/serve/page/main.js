/** The page: its parts made and connected. */

import { Compare } from "./compare.js";
import { wireHelp } from "./dialogs.js";
import { button, byId, bytesInWords, formatInWords, input, setAvailable } from "./elements.js";
import { capabilities } from "./engine.js";
import { derivedName, download, readMask, wireMaskUpload, wireOpening } from "./files.js";
import { Gestures } from "./gestures.js";
import { Inpainting } from "./inpainting.js";
import { Keys } from "./keys.js";
import { drawHistory, drawQueue } from "./lists.js";
import { Marks } from "./marks.js";
import { growMask, invertMask, replaceMask } from "./mask.js";
import { encodeGrey } from "./png.js";
import { grown, whole } from "./rectangles.js";
import { showLimits } from "./limits.js";
import { Settings } from "./settings.js";
import { Status } from "./status.js";
import { Tools } from "./tools.js";
import { View } from "./view.js";
import { Workspace } from "./workspace.js";

const status = new Status();
const workspace = new Workspace(status);
const inpainting = new Inpainting(workspace);
const view = new View();
const tools = new Tools({
  painted: (part) => view.drawOverlay(part),
  finished: () => workspace.changed("painted"),
  marked: () => marks.draw(),
});
const marks = new Marks(view, tools);
const settings = new Settings(tools, marks);
const compare = new Compare(view, marks);
const gestures = new Gestures(view, tools, (place) => marks.hover(place));
view.onMove(() => {
  marks.draw();
  const percent = `${Math.round(100 * view.zoom)}%`;
  button("zoom-fit").textContent = percent;
  button("zoom-fit").setAttribute("aria-label", `${percent}, fit to the window`);
});

/** The picture that is shown has changed. */
function drawShown() {
  const { current, version } = workspace;
  const [before, after] = [view.picture, version?.picture];
  const isOther = current !== shownPhotograph || before?.width !== after?.width || before?.height !== after?.height;
  shownPhotograph = current;
  view.picture = version?.picture ?? null;
  view.original = version?.source ? (current?.original.picture ?? null) : null;
  view.mask = version?.mask ?? null;
  tools.attach(version?.mask && version.undo ? { mask: version.mask, undo: version.undo } : null);
  marks.keyboard = null;
  settings.draw();
  compare.reset(view.original !== null);
  const size = view.picture ? `${view.picture.width} × ${view.picture.height}` : "";
  byId("file-name", HTMLParagraphElement).textContent = current ? `${current.name}  ·  ${size}` : "";
  const label = current ? `${current.name}, ${size} pixels` : "Photograph";
  byId("canvases", HTMLDivElement).setAttribute("aria-label", label);
  if (isOther) view.fit();
  else view.draw();
  drawState();
}
/** @type {import("./photographs.js").Photograph | null} */
let shownPhotograph = null;

/** What can be done now. */
function drawState() {
  const { current, version, photographs, isWorking } = workspace;
  const hasHole = version?.hasHole ?? false;
  const isResult = Boolean(version?.source);
  const opened = hasHole ? "masked" : isResult ? "result" : "open";
  document.body.dataset.state = !current ? "empty" : isWorking ? "working" : opened;
  setAvailable(button("undo"), version?.undo?.canUndo ?? false);
  setAvailable(button("redo"), version?.undo?.canRedo ?? false);
  setAvailable(button("inpaint"), hasHole && !isWorking);
  setAvailable(button("inpaint-all"), !isWorking && photographs.some((photograph) => photograph.current.hasHole));
  setAvailable(button("same-mask"), hasHole);
  for (const id of ["clear", "grow", "mask-download"]) setAvailable(button(id), hasHole);
  button("download").hidden = button("back-to-mask").hidden = !isResult;
  const format = version && `${formatInWords(version.format)}, ${bytesInWords(version.file.size)}. `;
  byId("result-notes", HTMLParagraphElement).textContent = isResult ? format + sentence(version?.report ?? "") : "";
  drawQueue(photographs, current, {
    show: (photograph) => workspace.show(photograph),
    close: (photograph) => workspace.close(photograph),
  });
  drawHistory(current, (photograph, chosen) => workspace.show(photograph, chosen));
}

/** @param {string} text */
const sentence = (text) => (text ? `${text[0].toUpperCase()}${text.slice(1)}.` : "");

workspace.addEventListener("shown", drawShown);
workspace.addEventListener("painted", drawState);
workspace.addEventListener("state", drawState);

/** @param {File[]} files */
async function open(files) {
  status.clear();
  await workspace.open(files);
}

function inpaint() {
  const { current, version } = workspace;
  if (!current || workspace.isWorking) return;
  if (tools.isBusy) tools.complete();
  if (!version?.hasHole) status.say("Paint over what should go first.");
  else inpainting.run([current], settings.options);
}

function inpaintAll() {
  const photographs = workspace.photographs.filter((photograph) => photograph.current.hasHole);
  if (photographs.length === 0) status.say("None of the photographs has a mask yet.");
  else inpainting.run(photographs, settings.options);
}

/**
 * @param {"undo" | "redo"} direction
 */
function step(direction) {
  if (tools.isBusy) {
    tools.cancel();
    return;
  }
  const part = workspace.version?.undo?.[direction]();
  if (!part) return;
  view.drawOverlay(part);
  workspace.changed("painted");
  status.announce(direction === "undo" ? "Undone." : "Redone.");
}

/** @param {(mask: import("./mask.js").Mask) => void} action on the whole mask, as one step */
function changeMask(action) {
  const mask = workspace.version?.mask;
  if (mask) tools.change(whole(mask), () => action(mask));
}

/** @param {boolean} isOpen */
function setPanel(isOpen) {
  document.body.toggleAttribute("data-panel", isOpen);
  button("panel-open").setAttribute("aria-expanded", String(isOpen));
  if (isOpen) button("panel-close").focus();
}

// On small screens the panel lies over the photograph: a touch beside it closes it and does nothing else.
document.addEventListener("pointerdown", (event) => {
  if (!document.body.hasAttribute("data-panel") || !(event.target instanceof Element)) return;
  if (event.target.closest("#panel, #panel-open")) return;
  event.stopPropagation();
  setPanel(false);
}, { capture: true });

/** @param {import("./tools.js").ToolName} name */
function chooseTool(name) {
  tools.choose(name);
  settings.draw();
}

/** @type {Record<string, () => void>} */
const ON_CLICK = {
  undo: () => step("undo"),
  redo: () => step("redo"),
  "zoom-in": () => view.zoomBy(1.25),
  "zoom-out": () => view.zoomBy(0.8),
  "zoom-fit": () => view.fit(),
  inpaint,
  "inpaint-all": inpaintAll,
  next: () => workspace.next && workspace.show(workspace.next),
  "same-mask": async () => status.say(await workspace.shareMask()),
  invert: () => changeMask(invertMask),
  clear: () => changeMask((mask) => replaceMask(mask, new Uint8Array(mask.width * mask.height))),
  grow: () => {
    const [mask, field] = [workspace.version?.mask, input("grow-by")];
    const pixels = Math.round(field.valueAsNumber);
    if (!field.checkValidity() || !(pixels >= 1)) status.say(`Grow by ${field.min} to ${field.max} pixels.`);
    else if (mask?.touched) tools.change(grown(mask.touched, pixels), () => growMask(mask, pixels));
  },
  "mask-download": async () => {
    const { current, version } = workspace;
    if (!current || !version?.mask || !version.hasHole) return;
    const { bytes, width, height } = version.mask;
    download(await encodeGrey(bytes, width, height), derivedName(current.name, "mask", "PNG"));
  },
  download: () => {
    const { current, version } = workspace;
    if (current && version) download(version.file, derivedName(current.name, "inpainted", version.format));
  },
  "back-to-mask": () => {
    const { current, version } = workspace;
    if (!current || !version?.source) return;
    workspace.show(current, version.source);
    byId("canvases", HTMLDivElement).focus({ preventScroll: true }); // the button goes
  },
  "panel-open": () => setPanel(!document.body.hasAttribute("data-panel")),
  "panel-close": () => {
    setPanel(false);
    button("panel-open").focus();
  },
};
for (const [id, action] of Object.entries(ON_CLICK)) button(id).addEventListener("click", action);

wireOpening(open);
wireMaskUpload(async (file) => {
  const version = workspace.version;
  if (!version?.mask) return;
  try {
    const grey = await readMask(file, version.mask);
    if (version !== workspace.version) return;
    changeMask((mask) => replaceMask(mask, grey));
    status.clear();
    status.announce("The mask is loaded.");
  } catch (error) {
    status.problem(error instanceof Error ? error.message : String(error));
  }
});
wireHelp();
settings.onChoose(chooseTool);
new Keys({ view, tools, marks, gestures }, {
  tool: chooseTool,
  resize: (factor) => settings.resize(factor),
  undo: () => step("undo"),
  redo: () => step("redo"),
  compare: (isHeld) => compare.hold(isHeld),
  inpaint,
  next: () => workspace.next && workspace.show(workspace.next),
  escape: () => {
    if (tools.isBusy) tools.cancel();
    else if (document.body.hasAttribute("data-panel")) setPanel(false);
    else inpainting.cancel();
  },
});
drawState();
showLimits(capabilities);

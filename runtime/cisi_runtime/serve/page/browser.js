/** What fills holes on the page without a server: the network itself, in a worker. The interface is service.js's. */

import { Refusal, cancelled } from "./refusal.js";

/** @typedef {import("./service.js").Completed} Completed */
/** @typedef {import("./service.js").Limits} Limits */
/** @typedef {import("./service.js").Progress} Progress */
/** @typedef {import("./service.js").Uploaded} Uploaded */

// The photograph's pixels, the canvas and the result's file are in memory at once.
const MAX_MEGAPIXELS = 40;

export const capabilities = {
  needsUpload: false,
  hasTexture: false,
  notes: [
    "Your browser fills the hole; the photograph stays on your device.",
    "The result is a PNG file without the photograph’s metadata, colour profile and transparency.",
    "Fills are smooth: no texture from around the hole is added.",
  ],
};

/** @type {Map<string, Blob>} */
const photographs = new Map();
let count = 0;
/** @type {Worker | null} */
let worker = null;

/** Nothing here asks for a token. */
export function setToken() {}

export function hasToken() {
  return false;
}

/** @returns {Promise<Limits>} */
export async function readLimits() {
  return { maxBytes: null, maxMegapixels: MAX_MEGAPIXELS, formats: ["PNG"], needsToken: false };
}

/**
 * @param {Blob} file
 * @param {string} name
 * @param {Progress} progress
 * @returns {Promise<Uploaded>}
 */
export async function upload(file, name, { onUpload }) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    throw new Refusal(`${name}: this browser cannot read it as a picture.`, { status: 415, reason: "not-a-picture" });
  }
  const { width, height } = bitmap;
  bitmap.close();
  const megapixels = (width * height) / 1e6;
  if (megapixels > MAX_MEGAPIXELS) {
    throw new Refusal(`${name}: ${width} × ${height} is ${megapixels.toFixed(0)} megapixels, expected at most `
      + `${MAX_MEGAPIXELS}.`, { status: 413, reason: "too-many-pixels" });
  }
  onUpload?.(1);
  const id = String(++count);
  photographs.set(id, file);
  return { id, width, height, format: file.type.replace("image/", "").toUpperCase() };
}

/**
 * @param {string} id
 * @returns {Promise<Blob>}
 */
export async function preview(id) {
  return found(id);
}

/**
 * @param {string} id
 * @param {Blob} mask
 * @param {unknown} _options there are none
 * @param {Progress} progress
 * @returns {Promise<Completed>}
 */
export async function inpaint(id, mask, _options, { signal }) {
  const file = await completed({ photograph: found(id), mask }, signal);
  const result = String(++count);
  photographs.set(result, file);
  return { file, format: "PNG", id: result, report: "known pixels identical" };
}

/** @param {string} id */
export function forget(id) {
  photographs.delete(id);
}

/** @param {string} id */
function found(id) {
  const file = photographs.get(id);
  if (!file) throw new Refusal("The photograph is no longer here.", { status: 404, reason: "unknown-photograph" });
  return file;
}

/**
 * @param {{photograph: Blob, mask: Blob}} job
 * @param {AbortSignal} signal
 * @returns {Promise<Blob>}
 */
function completed(job, signal) {
  return new Promise((resolve, reject) => {
    const running = (worker ??= new Worker(new URL("./browser_worker.js", import.meta.url), { type: "module" }));
    const stop = () => {
      // The network cannot be interrupted. The next hole gets a new worker.
      running.terminate();
      worker = null;
      reject(cancelled());
    };
    signal.addEventListener("abort", stop, { once: true });
    running.onmessage = ({ data }) => {
      signal.removeEventListener("abort", stop);
      if (data.file) resolve(data.file);
      else reject(new Refusal(data.problem, { status: 500 }));
    };
    running.onerror = (event) => {
      signal.removeEventListener("abort", stop);
      worker = null;
      reject(new Refusal(`The network could not be started: ${event.message ?? "a file is missing"}`, { status: 500 }));
    };
    running.postMessage(job);
  });
}

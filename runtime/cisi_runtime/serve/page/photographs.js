/** Photographs, and for each its versions: the original and what became of it. Every version has its own mask. */

import * as engine from "./engine.js";
import { Mask, replaceMask } from "./mask.js";
import { decodePicture, makeThumbnail } from "./picture.js";
import { whole } from "./rectangles.js";
import { throwIfCancelled } from "./refusal.js";
import { Undo } from "./undo.js";

/** @typedef {import("./picture.js").Picture} Picture */
/** @typedef {import("./service.js").Progress} Progress */

/** @typedef {{done: Promise<void>, stop: AbortController, listeners: Set<(share: number) => void>}} Upload */

// Of masks that are not on the screen fewer steps are kept.
const UNDO_BYTES_IN_BACKGROUND = 4 * 2 ** 20;

export class Version {
  /** The server's name for it, null if it has none. @type {string | null} */
  id = null;
  /** Decoded pixels, while it may be on the screen. @type {Picture | null} */
  picture = null;
  /** Address of a small picture, empty until it has been decoded once. */
  thumbnail = "";
  /** What the server said of the result. */
  report = "";
  /** The upload that is going on. @type {Upload | null} */
  upload = null;
  /** @type {{mask: Mask, undo: Undo} | null} */
  #painted = null;

  /**
   * @param {string} label
   * @param {Blob} file the bytes as they came from the disk or the server
   * @param {string} format
   * @param {Version | null} source the version that it was made from
   */
  constructor(label, file, format, source) {
    this.label = label;
    this.file = file;
    this.format = format;
    this.source = source;
  }

  /** @returns {Mask | null} null until the picture has been decoded */
  get mask() {
    return this.#painting?.mask ?? null;
  }

  get undo() {
    return this.#painting?.undo ?? null;
  }

  /** @param {Mask} mask takes the place of the version's own, with nothing to undo */
  takeMask(mask) {
    this.#painted = { mask, undo: new Undo(mask) };
  }

  /** @param {Mask} mask is copied; where there is one already, this is a step that can be undone */
  adoptMask(mask) {
    if (!this.#painted?.mask.bytes) {
      this.takeMask(mask.copy());
      return;
    }
    const { mask: own, undo } = this.#painted;
    undo.begin();
    undo.touch(whole(own));
    replaceMask(own, mask.bytes ?? new Uint8Array(own.width * own.height));
    undo.commit();
  }

  /** @returns {boolean} whether there is something to inpaint */
  get hasHole() {
    return this.#painted?.mask.hasHole() ?? false;
  }

  /** Let go of it in the engine too. */
  forget() {
    this.rest();
    this.upload?.stop.abort();
    if (this.id) engine.forget(this.id);
    if (this.thumbnail) URL.revokeObjectURL(this.thumbnail);
  }

  /** Forget the pixels and most steps; the file and the mask stay. */
  rest() {
    this.picture?.close();
    this.picture = null;
    this.#painted?.undo.trim(UNDO_BYTES_IN_BACKGROUND);
  }

  get #painting() {
    if (!this.#painted && this.picture) this.takeMask(new Mask(this.picture.width, this.picture.height));
    return this.#painted;
  }
}

export class Photograph {
  /** @param {File} file */
  constructor(file) {
    this.name = file.name || "photograph.png"; // what is pasted may have no name
    this.original = new Version("Original", file, "", null);
    this.versions = [this.original];
    this.current = this.original;
    /** @type {"" | "working" | "done" | "failed"} */
    this.state = "";
    /** Why it failed, or was left out. */
    this.problem = "";
  }

  #results = 0;

  /**
   * @param {import("./service.js").Completed} completed
   * @param {Version} source
   * @returns {Version}
   */
  add(completed, source) {
    const version = new Version(`Result ${++this.#results}`, completed.file, completed.format, source);
    version.id = completed.id;
    version.report = completed.report;
    this.versions.push(version);
    return version;
  }
}

/**
 * Make sure that the engine holds a version. Whoever comes while it is being uploaded waits for the same upload, and
 * whoever cancels, cancels it for all.
 *
 * @param {Version} version
 * @param {string} name
 * @param {Progress} progress
 */
export async function ensureUploaded(version, name, { signal, onUpload }) {
  if (version.id) return;
  throwIfCancelled(signal);
  version.upload ??= beginUpload(version, name);
  const { done, stop, listeners } = version.upload;
  const cancel = () => stop.abort();
  signal.addEventListener("abort", cancel, { once: true });
  if (onUpload) listeners.add(onUpload);
  try {
    await done;
  } finally {
    signal.removeEventListener("abort", cancel);
  }
}

/**
 * @param {Version} version
 * @param {string} name
 * @returns {Upload}
 */
function beginUpload(version, name) {
  const stop = new AbortController();
  /** @type {Upload["listeners"]} */
  const listeners = new Set();
  const onUpload = (/** @type {number} */ share) => listeners.forEach((listener) => listener(share));
  const done = uploadOnce(version, name, { signal: stop.signal, onUpload }).finally(() => {
    version.upload = null;
  });
  return { done, stop, listeners };
}

/**
 * @param {Version} version
 * @param {string} name
 * @param {Progress} progress
 */
async function uploadOnce(version, name, progress) {
  const uploaded = await engine.upload(version.file, name, progress);
  const { picture } = version;
  if (picture && (picture.width !== uploaded.width || picture.height !== uploaded.height)) {
    // The browser turned it another way: what the server sees counts.
    const upright = await decodePicture(await engine.preview(uploaded.id, progress));
    version.rest();
    version.picture = upright;
    version.takeMask(new Mask(uploaded.width, uploaded.height));
  }
  version.id = uploaded.id;
  version.format = uploaded.format;
}

/**
 * Make sure that a version can be drawn.
 *
 * @param {Version} version
 * @param {string} name
 * @param {Progress} progress
 */
export async function ensureDecoded(version, name, progress) {
  if (version.picture) return;
  let picture;
  try {
    picture = await decodePicture(version.file);
  } catch {
    // A format that the browser does not know, or no picture at all; the server says which.
    await ensureUploaded(version, name, progress);
    picture = await decodePicture(await engine.preview(version.id ?? "", progress));
  }
  if (version.picture) picture.close(); // somebody else was quicker
  else version.picture = picture;
  version.thumbnail ||= await makeThumbnail(version.picture);
}

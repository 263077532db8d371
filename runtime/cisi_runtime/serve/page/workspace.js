/** The photographs that are open, and which version of which one is shown. Tells its listeners what changed. */

import { counted } from "./elements.js";
import { patiently } from "./patience.js";
import { Photograph, ensureDecoded, ensureUploaded } from "./photographs.js";
import { Refusal, isCancelled } from "./refusal.js";

/** @typedef {import("./photographs.js").Version} Version */
/** @typedef {import("./service.js").Progress} Progress */
/** @typedef {import("./status.js").Status} Status */

/** Events: "shown" (another picture), "painted" (its mask), "state" (of the photographs, or of what is running). */
export class Workspace extends EventTarget {
  /** @type {Photograph[]} */
  photographs = [];
  /** The one that is shown. @type {Photograph | null} */
  current = null;
  /** Whether holes are being filled. The one who does it says so. */
  isWorking = false;
  /** Getting something to show. */
  #opening = new AbortController();

  /** @param {Status} status */
  constructor(status) {
    super();
    this.status = status;
  }

  /** @returns {Version | null} the one that is shown, and painted on */
  get version() {
    return this.current?.current ?? null;
  }

  /** @returns {Photograph | null} the one after the current, the first after the last */
  get next() {
    const { photographs } = this;
    if (photographs.length < 2 || !this.current) return null;
    return photographs[(photographs.indexOf(this.current) + 1) % photographs.length];
  }

  /** @param {File[]} files */
  async open(files) {
    const opened = files.map((file) => new Photograph(file));
    this.photographs.push(...opened);
    for (const photograph of opened) if (await this.show(photograph)) break;
    for (const photograph of opened) if (!photograph.current.thumbnail) await this.decodeAside(photograph);
    this.changed("state");
  }

  /**
   * @param {Photograph} photograph
   * @param {Version} [version]
   * @returns {Promise<boolean>} whether it is shown now
   */
  async show(photograph, version = photograph.current) {
    this.#opening.abort();
    const opening = (this.#opening = new AbortController());
    const progress = this.progress(opening, `Reading ${photograph.name}`);
    try {
      // Again if one was put to rest meanwhile, by the end of something that had looked at it aside.
      while (!version.picture || !photograph.original.picture) {
        for (const each of new Set([version, photograph.original])) {
          await this.patiently(opening, each, () => ensureDecoded(each, photograph.name, progress));
        }
      }
    } catch (error) {
      if (opening.signal.aborted && this.#opening !== opening) return false;
      this.report(error, () => this.show(photograph, version));
      // What cannot be read at all is left out. What may be read later, or has results, stays.
      if (photograph !== this.current && version === photograph.original && !canRepeat(error)) this.#drop(photograph);
      return false;
    }
    if (this.#opening !== opening) return false;
    if (this.status.isBusy && !this.isWorking) this.status.clear();
    const hidden = this.current === photograph ? [] : (this.current?.versions ?? []);
    this.current = photograph;
    photograph.current = version;
    for (const each of [...hidden, ...photograph.versions]) {
      if (each !== version && each !== photograph.original) each.rest();
    }
    this.changed("shown");
    this.#uploadAside(photograph, version);
    return true;
  }

  /** @param {Photograph} photograph is closed */
  async close(photograph) {
    const { next } = this;
    if (photograph === this.current && next) await this.show(next);
    this.#drop(photograph);
    if (photograph === this.current) {
      this.current = null;
      this.changed("shown");
    }
  }

  /**
   * Give the current mask to all photographs of the same size.
   *
   * @returns {Promise<string>} for people: what it was given to, and what was left out
   */
  async shareMask() {
    const mask = this.version?.mask;
    if (!mask) return "";
    /** @type {string[]} */
    const others = [];
    let number = 1;
    for (const photograph of this.photographs) {
      if (photograph === this.current) continue;
      const size = await this.decodeAside(photograph);
      if (size?.width === mask.width && size?.height === mask.height) {
        photograph.current.adoptMask(mask);
        number++;
      } else {
        others.push(size ? `${photograph.name} (${size.width} × ${size.height})` : photograph.name);
      }
    }
    this.changed("state");
    const given = `The mask is now on ${counted(number, "photograph")}.`;
    if (others.length === 0) return given;
    return `${given} It is ${mask.width} × ${mask.height} pixels and does not fit ${others.join(", ")}.`;
  }

  /**
   * Decode a photograph that is not shown, for its thumbnail and its size.
   *
   * @param {Photograph} photograph
   * @returns {Promise<{width: number, height: number} | null>} null if it cannot be read
   */
  async decodeAside(photograph) {
    const version = photograph.current;
    try {
      await ensureDecoded(version, photograph.name, { signal: new AbortController().signal });
    } catch (error) {
      photograph.state = "failed";
      photograph.problem = error instanceof Error ? error.message : String(error);
    }
    const size = version.picture && { width: version.picture.width, height: version.picture.height };
    if (photograph !== this.current) version.rest();
    this.changed("state");
    return size;
  }

  /**
   * @template T
   * @param {AbortController} work
   * @param {Version} version
   * @param {() => Promise<T>} request
   */
  patiently(work, version, request) {
    const expired = () => {
      version.id = null;
    };
    return patiently(request, { signal: work.signal, status: this.status, cancel: () => work.abort(), expired });
  }

  /**
   * @param {AbortController} work
   * @param {string} text
   * @returns {Progress}
   */
  progress(work, text) {
    return {
      signal: work.signal,
      onUpload: (share) => {
        if (!work.signal.aborted) this.status.progress(text, share, () => work.abort());
      },
    };
  }

  /**
   * Say why something ended early, and offer to do it again where that may help.
   *
   * @param {unknown} error
   * @param {() => void} again
   */
  report(error, again) {
    if (isCancelled(error)) {
      this.status.clear();
      return;
    }
    this.status.problem(messageOf(error), canRepeat(error) ? { label: "Try again", run: again } : null);
  }

  /** @param {"shown" | "painted" | "state"} what */
  changed(what) {
    this.dispatchEvent(new Event(what));
  }

  /**
   * The upload goes on while the mask is drawn.
   *
   * @param {Photograph} photograph
   * @param {Version} version
   */
  async #uploadAside(photograph, version) {
    const { picture } = version;
    const hadHole = version.hasHole;
    const work = new AbortController();
    try {
      await this.patiently(work, version, () => ensureUploaded(version, photograph.name, { signal: work.signal }));
    } catch (error) {
      if (this.version === version && !this.isWorking && !isCancelled(error)) {
        this.report(error, () => {
          this.status.clear();
          this.#uploadAside(photograph, version);
        });
      }
      return;
    }
    if (this.version !== version || version.picture === picture) return;
    this.changed("shown");
    if (hadHole) this.status.say("The server sees this photograph at another size, so the mask was cleared.");
  }

  /** @param {Photograph} photograph */
  #drop(photograph) {
    this.photographs = this.photographs.filter((each) => each !== photograph);
    photograph.versions.forEach((version) => version.forget());
    this.changed("state");
  }
}

/** @param {unknown} error */
function canRepeat(error) {
  return error instanceof Refusal && (error.isUnreachable || error.status >= 500);
}

/**
 * @param {unknown} error
 * @returns {string}
 */
export function messageOf(error) {
  if (error instanceof Refusal) return error.message;
  // What browsers say of a file that they cannot decode helps nobody.
  if (error instanceof DOMException) return "This file cannot be read as a picture.";
  return error instanceof Error ? error.message : String(error);
}

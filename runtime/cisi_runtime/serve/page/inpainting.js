/** Holes filled, of one photograph or of several after another. */

import * as engine from "./engine.js";
import { counted } from "./elements.js";
import { ensureUploaded } from "./photographs.js";
import { encodeGrey } from "./png.js";
import { Refusal, isCancelled } from "./refusal.js";
import { messageOf } from "./workspace.js";

/** @typedef {import("./photographs.js").Photograph} Photograph */
/** @typedef {import("./service.js").Options} Options */
/** @typedef {import("./workspace.js").Workspace} Workspace */

export class Inpainting {
  /** @type {AbortController | null} */
  #work = null;

  /** @param {Workspace} workspace */
  constructor(workspace) {
    this.workspace = workspace;
  }

  cancel() {
    this.#work?.abort();
  }

  /**
   * @param {Photograph[]} photographs each with a hole
   * @param {Options} options
   */
  async run(photographs, options) {
    if (this.#work || photographs.length === 0) return;
    const { workspace } = this;
    const { status } = workspace;
    const work = (this.#work = new AbortController());
    workspace.isWorking = true;
    workspace.changed("state");
    /** @type {Photograph[]} */
    const failed = [];
    try {
      for (const [index, photograph] of photographs.entries()) {
        const count = photographs.length > 1 ? ` ${index + 1} of ${photographs.length}` : "";
        const isOpen = () => workspace.photographs.includes(photograph);
        const error = isOpen() ? await this.#fill(work, photograph, options, count) : null;
        if (!error || (!isOpen() && !isCancelled(error))) continue; // nobody waits for one that was closed
        if (photographs.length === 1 || concernsAll(error)) {
          workspace.report(error, () => this.run(photographs.slice(index), options));
          return;
        }
        failed.push(photograph);
      }
    } finally {
      this.#work = null;
      workspace.isWorking = false;
      workspace.changed("state");
    }
    if (failed.length > 0) {
      const why = failed.map(({ name, problem }) => `${name}: ${problem}`).join(" ");
      status.problem(`${counted(failed.length, "photograph")} could not be inpainted. ${why}`);
    } else if (photographs.length > 1) {
      status.say(`${counted(photographs.length, "photograph")} inpainted.`);
    } else {
      if (status.isBusy) status.clear();
      status.announce("The hole is filled.");
    }
  }

  /**
   * @param {AbortController} work
   * @param {Photograph} photograph
   * @param {Options} options
   * @param {string} count
   * @returns {Promise<unknown>} the error, null if there was none
   */
  async #fill(work, photograph, options, count) {
    const { workspace } = this;
    const { status } = workspace;
    const source = photograph.current;
    const { signal } = work;
    const cancel = () => work.abort();
    photograph.state = "working";
    photograph.problem = "";
    workspace.changed("state");
    status.busy(`Filling the hole${count}…`, cancel);
    try {
      if (!source.mask) throw new Error("there is no mask");
      const { width, height } = source.mask;
      const png = await encodeGrey(source.mask.bytes, width, height);
      const completed = await workspace.patiently(work, source, async () => {
        if (!workspace.photographs.includes(photograph)) throw new Error(`${photograph.name} was closed.`);
        await ensureUploaded(source, photograph.name, workspace.progress(work, `Uploading${count}`));
        if (source.mask?.width !== width || source.mask.height !== height) throw new Refusal(
          "The server sees this photograph at another size. Draw the mask again.", { status: 422 });
        status.busy(`Filling the hole${count}…`, cancel);
        return engine.inpaint(source.id ?? "", png, options, { signal });
      });
      const result = photograph.add(completed, source);
      photograph.state = "done";
      // Whoever looks at something else by now is not disturbed.
      if (photograph.current === source) {
        if (photograph === workspace.current) {
          await workspace.show(photograph, result);
        } else {
          photograph.current = result;
          await workspace.decodeAside(photograph);
        }
      }
      return null;
    } catch (error) {
      photograph.state = isCancelled(error) ? "" : "failed";
      photograph.problem = isCancelled(error) ? "" : messageOf(error);
      return error;
    }
  }
}

/** @param {unknown} error */
function concernsAll(error) {
  return isCancelled(error) || (error instanceof Refusal && (error.isUnreachable || error.status === 503));
}

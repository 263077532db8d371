/** The requests to `cisi-serve`. */

import { bytesInWords } from "./elements.js";
import { Refusal, cancelled } from "./refusal.js";
import { recall, remember } from "./remembered.js";

/**
 * @typedef {object} Limits
 * @property {number | null} maxBytes
 * @property {number | null} maxMegapixels
 * @property {string[]} formats that results may have; the first are read too
 * @property {boolean} needsToken
 */

/**
 * @typedef {object} Uploaded
 * @property {string} id
 * @property {number} width of the upright picture
 * @property {number} height
 * @property {string} format
 */

/**
 * @typedef {object} Options
 * @property {string} format empty: that of the photograph
 * @property {boolean} texture
 */

/**
 * @typedef {object} Completed
 * @property {Blob} file
 * @property {string} format
 * @property {string | null} id of the result as a photograph of its own
 * @property {string} report for people, may be empty
 */

/**
 * @typedef {object} Progress
 * @property {AbortSignal} signal
 * @property {(share: number) => void} [onUpload] share of the request that has been sent, 0 to 1
 */

const TOKEN_KEY = "cisi-token";
/** Of a request, once the server has said it. @type {number | null} */
let maxBytes = null;

/** What this engine can do, and what the page says of it. */
export const capabilities = {
  needsUpload: true,
  hasTexture: true,
  /** @type {string[]} */
  notes: [],
};

/** @param {string} token sent from now on, until the tab is closed */
export function setToken(token) {
  remember("sessionStorage", TOKEN_KEY, token);
}

/** @returns {boolean} */
export function hasToken() {
  return recall("sessionStorage", TOKEN_KEY) !== null;
}

/** @returns {Promise<Limits>} */
export async function readLimits() {
  const { body } = await send("GET", "limits", null, { signal: new AbortController().signal });
  const values = JSON.parse(await body.text());
  maxBytes = values.max_bytes ?? null;
  return {
    maxBytes,
    maxMegapixels: values.max_megapixels ?? null,
    formats: values.formats,
    needsToken: values.needs_token,
  };
}

/**
 * @param {Blob} file
 * @param {string} name
 * @param {Progress} progress
 * @returns {Promise<Uploaded>}
 */
export async function upload(file, name, progress) {
  if (maxBytes !== null && file.size > maxBytes) {
    // A server that closes the connection while it is sent to looks like none at all.
    const detail = `${name} is ${bytesInWords(file.size)}; the server accepts at most ${bytesInWords(maxBytes)}.`;
    throw new Refusal(detail, { status: 413, reason: "too-many-bytes" });
  }
  const form = new FormData();
  form.append("image", file, name);
  const { body } = await send("POST", "photographs", form, progress);
  return JSON.parse(await body.text());
}

/**
 * @param {string} id
 * @param {Progress} progress
 * @returns {Promise<Blob>} a picture that every browser shows
 */
export async function preview(id, progress) {
  return (await send("GET", `photographs/${encodeURIComponent(id)}/preview`, null, progress)).body;
}

/**
 * @param {string} id
 * @param {Blob} mask PNG, white = hole
 * @param {Options} options
 * @param {Progress} progress
 * @returns {Promise<Completed>}
 */
export async function inpaint(id, mask, options, progress) {
  const form = new FormData();
  form.append("mask", mask, "mask.png");
  form.append("detail", String(options.texture));
  if (options.format) form.append("format", options.format.toLowerCase());
  const { body, header } = await send("POST", `photographs/${encodeURIComponent(id)}/inpaint`, form, progress);
  return {
    file: body,
    format: header("CISI-Format"),
    id: header("CISI-Photograph") || null,
    report: decoded(header("CISI-Report")),
  };
}

/** @param {string} id is no longer needed; nothing waits for the answer */
export function forget(id) {
  send("DELETE", `photographs/${encodeURIComponent(id)}`, null, { signal: new AbortController().signal }).catch(() => {
    // It expires by itself.
  });
}

/** @param {string} value percent-encoded */
function decoded(value) {
  try {
    return decodeURIComponent(value);
  } catch {
    return value;
  }
}

/**
 * XMLHttpRequest, because fetch does not tell how much of a request has been sent.
 *
 * @param {string} method
 * @param {string} path
 * @param {FormData | null} form
 * @param {Progress} progress
 * @returns {Promise<{body: Blob, header: (name: string) => string}>}
 */
function send(method, path, form, { signal, onUpload }) {
  return new Promise((resolve, reject) => {
    if (signal.aborted) {
      reject(cancelled());
      return;
    }
    const request = new XMLHttpRequest();
    const abort = () => request.abort();
    signal.addEventListener("abort", abort, { once: true });
    request.open(method, new URL(path, document.baseURI));
    request.responseType = "blob";
    const token = recall("sessionStorage", TOKEN_KEY);
    if (token) request.setRequestHeader("Authorization", `Bearer ${token}`);
    if (onUpload) {
      request.upload.addEventListener("progress", ({ loaded, total }) => onUpload(total ? loaded / total : 1));
      request.upload.addEventListener("load", () => onUpload(1));
    }
    request.addEventListener("loadend", () => signal.removeEventListener("abort", abort));
    request.addEventListener("abort", () => reject(cancelled()));
    request.addEventListener("error", () => reject(new Refusal("The server cannot be reached. Your mask is kept.")));
    request.addEventListener("load", () => {
      const header = (/** @type {string} */ name) => request.getResponseHeader(name) ?? "";
      if (request.status < 300) resolve({ body: request.response, header });
      else refusal(request, header).then(reject, reject);
    });
    request.send(form);
  });
}

/**
 * @param {XMLHttpRequest} request
 * @param {(name: string) => string} header
 */
async function refusal(request, header) {
  const { status } = request;
  const retryAfterS = Number(header("Retry-After")) || 0;
  let [detail, reason] = [`The server answered ${status} ${request.statusText}.`.replace(" .", "."), ""];
  if (header("Content-Type").includes("json")) {
    const problem = JSON.parse(await request.response.text());
    [detail, reason] = [problem.detail ?? detail, problem.reason ?? ""];
  }
  return new Refusal(detail, { status, reason, retryAfterS });
}

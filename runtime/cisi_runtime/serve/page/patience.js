/** Requests that are repeated where that helps: a full queue, an expired session, a token that is missing. */

import { askForToken } from "./dialogs.js";
import { hasToken, setToken } from "./engine.js";
import { Refusal, cancelled } from "./refusal.js";

/** @typedef {import("./status.js").Status} Status */

const MAX_UPLOADS_AGAIN = 3;
const DEFAULT_WAIT_S = 5;

/**
 * @template T
 * @param {() => Promise<T>} request may be called several times
 * @param {object} means
 * @param {AbortSignal} means.signal
 * @param {Status} means.status
 * @param {() => void} means.cancel
 * @param {() => void} [means.expired] the server no longer has the photograph
 * @returns {Promise<T>}
 */
export async function patiently(request, means) {
  for (let uploadsAgain = 0; ; ) {
    try {
      return await request();
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      if (error.status === 429 || error.reason === "not-ready") {
        await countDown(error.retryAfterS || DEFAULT_WAIT_S, means);
      } else if (error.status === 401) {
        const token = await askForToken(hasToken());
        if (token === null) throw cancelled();
        setToken(token);
      } else if (error.isExpired && means.expired && uploadsAgain < MAX_UPLOADS_AGAIN) {
        uploadsAgain++;
        means.expired();
      } else {
        throw error;
      }
    }
  }
}

/**
 * @param {number} seconds
 * @param {{signal: AbortSignal, status: Status, cancel: () => void}} means
 */
async function countDown(seconds, { signal, status, cancel }) {
  const total = Math.ceil(seconds);
  for (let left = total; left > 0; left--) {
    status.countDown("The server is busy, trying again in", total, left, cancel);
    await new Promise((resolve, reject) => {
      const timer = setTimeout(resolve, 1000);
      signal.addEventListener("abort", () => {
        clearTimeout(timer);
        reject(cancelled());
      }, { once: true });
    });
  }
}

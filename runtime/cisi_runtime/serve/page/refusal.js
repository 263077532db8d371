/** Why a request was not answered with a result. */

export class Refusal extends Error {
  /**
   * @param {string} message for people
   * @param {{status?: number, reason?: string, retryAfterS?: number}} [details] status 0: no answer came
   */
  constructor(message, { status = 0, reason = "", retryAfterS = 0 } = {}) {
    super(message);
    this.name = "Refusal";
    this.status = status;
    this.reason = reason;
    this.retryAfterS = retryAfterS;
  }

  /** The session has expired: the photograph must be uploaded again. */
  get isExpired() {
    return this.status === 404 && this.reason === "unknown-photograph";
  }

  get isUnreachable() {
    return this.status === 0;
  }
}

/**
 * @param {unknown} error
 * @returns {boolean} whether the work was cancelled
 */
export function isCancelled(error) {
  return error instanceof DOMException && error.name === "AbortError";
}

/** @returns {DOMException} */
export function cancelled() {
  return new DOMException("Cancelled.", "AbortError");
}

/**
 * @param {AbortSignal} signal
 */
export function throwIfCancelled(signal) {
  if (signal.aborted) throw cancelled();
}

/** The dialogs: help, and the token that a server asks for. */

import { button, byId, input } from "./elements.js";

/** Wire the help dialog to its button. */
export function wireHelp() {
  const dialog = byId("help-dialog", HTMLDialogElement);
  button("help").addEventListener("click", () => dialog.showModal());
  for (const close of dialog.querySelectorAll("[data-close]")) close.addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close(); // beside its content
  });
}

/** @type {Promise<string | null> | null} */
let asking = null;

/**
 * @param {boolean} isWrong whether a token was sent and not accepted
 * @returns {Promise<string | null>} null if nothing was entered. Whoever asks while the dialog is open gets its answer.
 */
export function askForToken(isWrong) {
  asking ??= ask(isWrong).finally(() => {
    asking = null;
  });
  return asking;
}

/**
 * @param {boolean} isWrong
 * @returns {Promise<string | null>}
 */
function ask(isWrong) {
  const dialog = byId("token-dialog", HTMLDialogElement);
  const field = input("token");
  byId("token-text", HTMLParagraphElement).textContent = `${isWrong ? "The server did not accept this token. " : ""}`
    + "Whoever runs the server can give you one. It is kept until you close this tab.";
  field.value = "";
  return new Promise((resolve) => {
    const controller = new AbortController();
    const { signal } = controller;
    const finish = (/** @type {string | null} */ token) => {
      controller.abort();
      dialog.close();
      resolve(token);
    };
    byId("token-form", HTMLFormElement).addEventListener("submit", (event) => {
      event.preventDefault();
      if (field.value.trim()) finish(field.value.trim());
    }, { signal });
    button("token-cancel").addEventListener("click", () => finish(null), { signal });
    dialog.addEventListener("cancel", () => finish(null), { signal });
    dialog.showModal();
    field.focus();
  });
}

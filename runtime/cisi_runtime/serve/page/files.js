/** Files in and out: photographs opened, dropped or pasted, masks, and downloads. */

import { button, byId, input } from "./elements.js";

/** @typedef {import("./mask.js").Mask} Mask */

/**
 * @param {(files: File[]) => void} open
 */
export function wireOpening(open) {
  const chooser = input("photograph-file");
  for (const id of ["open", "open-first"]) button(id).addEventListener("click", () => chooser.click());
  chooser.addEventListener("change", () => {
    const files = [...(chooser.files ?? [])];
    chooser.value = ""; // so that the same file can be chosen again
    if (files.length) open(files);
  });
  let depth = 0; // of the elements that a drag has entered and not left
  const mark = () => document.body.toggleAttribute("data-dropping", depth > 0);
  document.addEventListener("dragenter", (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    depth++;
    mark();
  });
  document.addEventListener("dragleave", () => {
    depth = Math.max(0, depth - 1);
    mark();
  });
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    depth = 0;
    mark();
    const files = [...(event.dataTransfer?.files ?? [])];
    if (files.length) open(files);
  });
  document.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (files.length) open(files);
  });
}

/**
 * @param {Blob} file
 * @param {string} name
 */
export function download(file, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(file);
  link.download = name;
  link.click();
  // Not at once: the browser reads it after this turn.
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

const SUFFIXES = /** @type {Record<string, string>} */ ({
  JPEG: "jpg", PNG: "png", WEBP: "webp", TIFF: "tif", AVIF: "avif", BMP: "bmp",
});

/**
 * @param {string} name of the photograph
 * @param {string} what follows it
 * @param {string} format
 */
export function derivedName(name, what, format) {
  const dot = name.lastIndexOf(".");
  const [stem, suffix] = dot > 0 ? [name.slice(0, dot), name.slice(dot + 1)] : [name, ""];
  const usual = SUFFIXES[format] ?? format.toLowerCase();
  const isSame = { jpg: /^jpe?g$|^jfif$/i, tif: /^tiff?$/i }[usual]?.test(suffix) ?? suffix.toLowerCase() === usual;
  return `${stem}.${what}.${isSame ? suffix : usual}`;
}

/**
 * Read a mask that fits a photograph.
 *
 * @param {Blob} file
 * @param {{width: number, height: number}} size
 * @returns {Promise<Uint8Array>} one byte a pixel
 * @throws {Error} that says what was expected
 */
export async function readMask(file, size) {
  /** @type {ImageBitmap} */
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  } catch {
    throw new Error("This file cannot be read as a picture. Masks are best saved as PNG.");
  }
  const { width, height } = bitmap;
  if (width !== size.width || height !== size.height) {
    bitmap.close();
    throw new Error(`The mask is ${width} × ${height} pixels and the photograph ${size.width} × ${size.height}. `
      + "They must be the same size.");
  }
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, height];
  const context = canvas.getContext("2d", { willReadFrequently: true });
  if (!context) throw new Error("The browser has no memory left to read the mask.");
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return greyOf(context.getImageData(0, 0, width, height).data);
}

/**
 * @param {Uint8ClampedArray} rgba
 * @returns {Uint8Array}
 */
export function greyOf(rgba) {
  const grey = new Uint8Array(rgba.length / 4);
  let largest = 0;
  for (let i = 0, j = 0; i < grey.length; i++, j += 4) {
    if (rgba[j + 3] !== 255) throw new Error("The mask is partly transparent. Save it in black and white instead.");
    if (rgba[j] !== rgba[j + 1] || rgba[j] !== rgba[j + 2]) {
      throw new Error("The mask has colours. Expected black and white, with the hole in white.");
    }
    grey[i] = rgba[j];
    if (grey[i] > largest) largest = grey[i];
  }
  if (largest === 1) {
    throw new Error("The mask holds only the values 0 and 1, which are both black. Expected 0 and 255.");
  }
  if (largest < 128) throw new Error("The mask has no hole: no pixel of it is 128 or brighter. The hole is white.");
  return grey;
}

/** @param {(file: File) => void} read */
export function wireMaskUpload(read) {
  const chooser = byId("mask-file", HTMLInputElement);
  button("mask-upload").addEventListener("click", () => chooser.click());
  chooser.addEventListener("change", () => {
    const file = chooser.files?.[0];
    chooser.value = "";
    if (file) read(file);
  });
}

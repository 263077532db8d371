/** The worker of the page without a server: it holds the network and completes photographs. */

import { composite, pad, planWindow, reduce } from "./fill_window.js";
import { holeBounds } from "./mask.js";
import { blendSeam } from "./membrane.js";

/** @typedef {{run: (inputs: object) => Promise<Record<string, {data: Uint8Array}>>}} Session */

/** @type {Promise<{ort: any, session: Session}> | null} */
let opened = null;

self.onmessage = async ({ data }) => {
  try {
    self.postMessage({ file: await complete(data.photograph, data.mask) });
  } catch (error) {
    self.postMessage({ problem: error instanceof Error ? error.message : String(error) });
  }
};

async function open() {
  const ort = await import(new URL("./ort/ort.wasm.bundle.min.js", import.meta.url).href);
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmPaths = { wasm: new URL("./ort/ort-wasm-simd-threaded.wasm", import.meta.url).href };
  const answer = await fetch(new URL("./graph.onnx", import.meta.url));
  if (!answer.ok) throw new Error(`The network's file graph.onnx cannot be fetched (${answer.status}).`);
  return { ort, session: await ort.InferenceSession.create(new Uint8Array(await answer.arrayBuffer())) };
}

/**
 * @param {Blob} photograph
 * @param {Blob} maskFile
 * @returns {Promise<Blob>} PNG
 */
async function complete(photograph, maskFile) {
  const { canvas, context, pixels } = await read(photograph);
  const { width, height } = canvas;
  const mask = grey((await read(maskFile)).pixels.data);
  const hole = holeBounds(mask, width, { left: 0, top: 0, right: width, bottom: height });
  if (hole) {
    const window = planWindow(hole, canvas);
    const reduced = reduce(pixels.data, mask, width, window);
    const { width: wide, height: high, rgb, hole: padded } = pad(reduced);
    opened ??= open();
    const { ort, session } = await opened.catch((error) => {
      opened = null; // what was missing may be there the next time
      throw error;
    });
    const { completed } = await session.run({
      image: new ort.Tensor("uint8", rgb, [1, high, wide, 3]),
      hole_mask: new ort.Tensor("uint8", padded, [1, high, wide]),
    });
    composite(blendSeam(completed.data, wide, reduced), reduced, pixels.data, mask, width, window);
    context.putImageData(pixels, 0, 0);
  }
  return canvas.convertToBlob({ type: "image/png" });
}

/** @param {Blob} file */
async function read(file) {
  const bitmap = await createImageBitmap(file);
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  if (!context) throw new Error("The browser has no memory left for this photograph.");
  // PNG files of this page have no transparency.
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return { canvas, context, pixels: context.getImageData(0, 0, canvas.width, canvas.height) };
}

/** @param {Uint8ClampedArray} rgba */
function grey(rgba) {
  return Uint8Array.from({ length: rgba.length / 4 }, (_, index) => rgba[4 * index]);
}

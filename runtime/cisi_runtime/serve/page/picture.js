/** Decoded photographs, at full size and reduced by halves, so that drawing them costs what the screen shows. */

// The smallest reduction is about this long.
const SMALLEST = 900;
const THUMBNAIL = 144;

export class Picture {
  /** @param {ImageBitmap[]} levels each half as large as the one before */
  constructor(levels) {
    this.levels = levels;
    this.width = levels[0].width;
    this.height = levels[0].height;
  }

  /**
   * @param {number} scale screen pixels a pixel of the photograph
   * @returns {ImageBitmap} the smallest that is not enlarged
   */
  level(scale) {
    const index = Math.floor(Math.log2(1 / Math.max(scale, 1e-6)));
    return this.levels[Math.min(this.levels.length - 1, Math.max(0, index))];
  }

  close() {
    for (const level of this.levels) level.close();
  }
}

/**
 * @param {Blob} file
 * @returns {Promise<Picture>} upright. Rejects if the browser cannot read the format.
 */
export async function decodePicture(file) {
  const levels = [await createImageBitmap(file)];
  for (;;) {
    const last = levels[levels.length - 1];
    if (Math.max(last.width, last.height) <= 2 * SMALLEST) return new Picture(levels);
    const half = await createImageBitmap(last, {
      resizeWidth: Math.max(1, Math.round(last.width / 2)),
      resizeHeight: Math.max(1, Math.round(last.height / 2)),
      resizeQuality: "high",
    });
    // A browser that does not know these options gives the same picture again.
    if (half.width >= last.width) return new Picture(levels);
    levels.push(half);
  }
}

/**
 * @param {Picture} picture
 * @returns {Promise<string>} the address of a small square PNG
 */
export async function makeThumbnail(picture) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = THUMBNAIL;
  const context = canvas.getContext("2d");
  const scale = THUMBNAIL / Math.min(picture.width, picture.height);
  const [width, height] = [picture.width * scale, picture.height * scale];
  if (context) {
    context.imageSmoothingQuality = "high";
    context.drawImage(picture.level(scale), (THUMBNAIL - width) / 2, (THUMBNAIL - height) / 2, width, height);
  }
  const blob = await new Promise((resolve) => canvas.toBlob(resolve));
  return URL.createObjectURL(/** @type {Blob} */ (blob));
}

/** A fill's colours shifted so that it meets what is around the hole, as `cisi_runtime.inpainting.blending` does. */

/** @typedef {import("./fill_window.js").Reduced} Reduced */

// Of successive over-relaxation; enough for holes of 256 pixels to settle to a grey level.
const ROUNDS = 200;
const OVER_RELAXATION = 1.9;
const NEIGHBOURS = [[-1, -1], [0, -1], [1, -1], [-1, 0], [1, 0], [-1, 1], [0, 1], [1, 1]];
const NEAREST = [[-1, 0], [1, 0], [0, -1], [0, 1]];

/**
 * The hole's outermost pixels become the mean of their known neighbours. The difference is continued into the hole as
 * smoothly as possible, and added.
 *
 * @param {Uint8Array} fill RGB, `stride` pixels a row; what lies outside the hole does not matter
 * @param {number} stride
 * @param {Reduced} reduced what the network saw, without padding
 * @returns {Uint8Array} RGB of the size of `reduced`
 */
export function blendSeam(fill, stride, { width, height, rgb, hole }) {
  const shift = new Float32Array(width * height * 3);
  const blended = rgb.slice();
  /** @type {number[]} */
  const inside = [];
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const at = y * width + x;
      if (!hole[at]) continue;
      const known = around(x, y, NEIGHBOURS, width, height).filter((neighbour) => !hole[neighbour]);
      for (let band = 0; band < 3; band++) {
        const value = fill[3 * (y * stride + x) + band];
        blended[3 * at + band] = value;
        const sum = known.reduce((total, neighbour) => total + rgb[3 * neighbour + band], 0);
        if (known.length) shift[3 * at + band] = sum / known.length - value;
      }
      if (!known.length) inside.push(at);
    }
  }
  const neighbours = inside.map((at) => around(at % width, Math.floor(at / width), NEAREST, width, height));
  if (inside.length < hole.reduce((count, value) => count + (value ? 1 : 0), 0)) {
    for (let round = 0; round < ROUNDS; round++) {
      inside.forEach((at, index) => {
        for (let band = 0; band < 3; band++) {
          let sum = 0;
          for (const neighbour of neighbours[index]) sum += shift[3 * neighbour + band];
          const mean = sum / neighbours[index].length;
          shift[3 * at + band] += OVER_RELAXATION * (mean - shift[3 * at + band]);
        }
      });
    }
  }
  for (let i = 0; i < blended.length; i++) {
    if (hole[Math.floor(i / 3)]) blended[i] = Math.min(255, Math.max(0, Math.round(blended[i] + shift[i])));
  }
  return blended;
}

/**
 * @param {number} x
 * @param {number} y
 * @param {number[][]} steps
 * @param {number} width
 * @param {number} height
 * @returns {number[]} indices of the neighbours inside the picture
 */
function around(x, y, steps, width, height) {
  return steps
    .map(([dx, dy]) => [x + dx, y + dy])
    .filter(([column, row]) => column >= 0 && row >= 0 && column < width && row < height)
    .map(([column, row]) => row * width + column);
}

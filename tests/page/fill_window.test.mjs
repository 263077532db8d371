import assert from "node:assert/strict";
import test from "node:test";

import { composite, mirrored, pad, planWindow, reduce } from "../../runtime/cisi_runtime/serve/page/fill_window.js";
import { blendSeam } from "../../runtime/cisi_runtime/serve/page/membrane.js";
import { random } from "./random.mjs";

const whole = (width, height) => ({ left: 0, top: 0, right: width, bottom: height });

function photograph(width, height, seed) {
  const next = random(seed);
  const value = (_, i) => (i % 4 === 3 ? 255 : Math.floor(256 * next()));
  return Uint8ClampedArray.from({ length: width * height * 4 }, value);
}

test("a window is twice as long as the hole, at least 256, and inside the photograph", () => {
  const size = { width: 4000, height: 3000 };
  assert.deepEqual(planWindow({ left: 1000, top: 1000, right: 1400, bottom: 1100 }, size),
    { left: 800, top: 650, right: 1600, bottom: 1450 });
  assert.deepEqual(planWindow({ left: 0, top: 2990, right: 10, bottom: 3000 }, size),
    { left: 0, top: 2744, right: 256, bottom: 3000 });
  assert.deepEqual(planWindow({ left: 0, top: 0, right: 3900, bottom: 10 }, size), whole(4000, 3000));
  assert.deepEqual(planWindow({ left: 5, top: 5, right: 9, bottom: 9 }, { width: 100, height: 80 }), whole(100, 80));
});

test("small windows stay as they are, large ones are averaged over what is known", () => {
  const [width, height] = [512, 256];
  const rgba = photograph(width, height, 1);
  const mask = new Uint8Array(width * height);
  mask[0] = 255; // of the four pixels that become the first
  const reduced = reduce(rgba, mask, width, whole(width, height));
  assert.deepEqual([reduced.width, reduced.height], [256, 128]);
  assert.deepEqual([reduced.hole[0], reduced.hole[1]], [255, 0]);
  for (let band = 0; band < 3; band++) {
    const known = [rgba[4 + band], rgba[4 * width + band], rgba[4 * width + 4 + band]];
    assert.equal(reduced.rgb[band], Math.round((known[0] + known[1] + known[2]) / 3));
  }
  const small = reduce(rgba, mask, width, { left: 10, top: 20, right: 110, bottom: 90 });
  assert.deepEqual([small.width, small.height, small.rgb[3]], [100, 70, rgba[4 * (20 * width + 11)]]);
});

test("what lies under the hole has no influence", () => {
  const [width, height] = [600, 400];
  const mask = new Uint8Array(width * height);
  for (let y = 100; y < 200; y++) mask.fill(255, y * width + 100, y * width + 220);
  const [first, second] = [photograph(width, height, 1), photograph(width, height, 1)];
  for (let i = 0; i < mask.length; i++) if (mask[i]) second.fill(0, 4 * i, 4 * i + 3);
  const window = planWindow({ left: 100, top: 100, right: 220, bottom: 200 }, { width, height });
  assert.deepEqual(reduce(first, mask, width, window), reduce(second, mask, width, window));
});

test("padding is that of the contract", () => {
  assert.deepEqual(mirrored(80).length, 80);
  assert.deepEqual(mirrored(78).slice(76), [76, 77, 76, 75]);
  assert.deepEqual(mirrored(3).slice(0, 8), [0, 1, 2, 1, 0, 0, 0, 0]);
  assert.deepEqual(mirrored(3).length, 64);
  const [rgb, hole] = [new Uint8Array(65 * 2 * 3).fill(7), new Uint8Array(130).fill(255)];
  const padded = pad({ width: 65, height: 2, rgb, hole });
  assert.deepEqual([padded.width, padded.height], [80, 64]);
  assert.ok(padded.rgb.every((value) => value === 7) && padded.hole.every((value) => value === 255));
});

test("only the hole is written", () => {
  const [width, height] = [300, 300];
  const rgba = photograph(width, height, 4);
  const before = rgba.slice();
  const mask = new Uint8Array(width * height);
  for (let y = 50; y < 260; y++) mask.fill(255, y * width + 40, y * width + 250);
  const window = planWindow({ left: 40, top: 50, right: 250, bottom: 260 }, { width, height });
  const { width: wide, height: high } = reduce(rgba, mask, width, window);
  composite(new Uint8Array(wide * high * 3).fill(9), { width: wide, height: high }, rgba, mask, width, window);
  for (let i = 0; i < mask.length; i++) {
    const expected = mask[i] ? [9, 9, 9, 255] : [...before.subarray(4 * i, 4 * i + 4)];
    assert.deepEqual([...rgba.subarray(4 * i, 4 * i + 4)], expected);
  }
});

test("an even fill takes the colour of what is around it", () => {
  const [width, height] = [64, 64];
  const rgb = new Uint8Array(width * height * 3).fill(90);
  const hole = new Uint8Array(width * height);
  for (let y = 20; y < 44; y++) hole.fill(255, y * width + 20, y * width + 44);
  const blended = blendSeam(new Uint8Array(80 * height * 3).fill(140), 80, { width, height, rgb, hole });
  assert.ok(blended.every((value) => Math.abs(value - 90) <= 1));
  const everything = { width, height, rgb, hole: new Uint8Array(width * height).fill(255) };
  assert.ok(blendSeam(new Uint8Array(80 * height * 3).fill(140), 80, everything).every((value) => value === 140));
});

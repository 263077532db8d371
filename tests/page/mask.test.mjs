import assert from "node:assert/strict";
import test from "node:test";

import { Mask, growMask, holeBounds, invertMask, replaceMask } from "../../runtime/cisi_runtime/serve/page/mask.js";
import { fillOutline, fillRectangle, paintCapsule } from "../../runtime/cisi_runtime/serve/page/rasterise.js";
import { Undo } from "../../runtime/cisi_runtime/serve/page/undo.js";
import { random } from "./random.mjs";

const HARD = { radius: 5, hardness: 1, erases: false };
const bytesOf = (mask) => [...(mask.bytes ?? new Uint8Array(mask.width * mask.height))];

function randomMask(width, height, next) {
  const mask = new Mask(width, height);
  replaceMask(mask, Uint8Array.from({ length: width * height }, () => (next() < 0.1 ? Math.floor(256 * next()) : 0)));
  return mask;
}

/** What the brush does to one pixel, said in another way. */
function strength(x, y, from, to, { radius, hardness }) {
  let nearest = Infinity;
  for (let step = 0; step <= 4000; step++) {
    const at = [from.x + ((to.x - from.x) * step) / 4000, from.y + ((to.y - from.y) * step) / 4000];
    nearest = Math.min(nearest, Math.hypot(x + 0.5 - at[0], y + 0.5 - at[1]));
  }
  if (nearest <= hardness * radius) return 255;
  return nearest > radius ? 0 : (255 * (radius - nearest)) / (radius - hardness * radius);
}

test("a capsule is as strong as the distance from its line says", () => {
  const [from, to] = [{ x: 8.3, y: 9.1 }, { x: 21.7, y: 15.4 }];
  for (const hardness of [0, 0.5, 0.8, 1]) {
    const brush = { radius: 6.5, hardness, erases: false };
    const mask = new Mask(30, 25);
    paintCapsule(mask, from, to, brush);
    for (let y = 0; y < 25; y++) {
      for (let x = 0; x < 30; x++) {
        const expected = strength(x, y, from, to, brush);
        const actual = mask.bytes[y * 30 + x];
        assert.ok(Math.abs(actual - expected) <= 1 || hardness === 1 && [0, 255].includes(actual), `${x} ${y}`);
      }
    }
  }
});

test("a dot of one pixel paints one pixel", () => {
  const mask = new Mask(9, 9);
  paintCapsule(mask, { x: 4.5, y: 4.5 }, { x: 4.5, y: 4.5 }, { radius: 0.5, hardness: 0, erases: false });
  assert.deepEqual(holeBounds(mask.bytes, 9, mask.touched), { left: 4, top: 4, right: 5, bottom: 5 });
});

test("a stroke over itself changes nothing, and what the eraser takes is what the brush gave", () => {
  const [from, to] = [{ x: 3, y: 4 }, { x: 17, y: 12 }];
  const brush = { radius: 6, hardness: 0.4, erases: false };
  const mask = new Mask(24, 20);
  paintCapsule(mask, from, to, brush);
  const once = bytesOf(mask);
  paintCapsule(mask, to, from, brush);
  assert.deepEqual(bytesOf(mask).filter((value, i) => Math.abs(value - once[i]) > 1), []);
  const full = new Mask(24, 20);
  replaceMask(full, new Uint8Array(480).fill(255));
  paintCapsule(full, from, to, { ...brush, erases: true });
  assert.deepEqual(bytesOf(full), once.map((value) => 255 - value));
});

test("a stroke outside the photograph changes nothing, one across its edge is cut", () => {
  const mask = new Mask(10, 10);
  assert.equal(paintCapsule(mask, { x: -20, y: 5 }, { x: -10, y: 5 }, HARD), null);
  assert.equal(mask.bytes, null);
  assert.deepEqual(paintCapsule(mask, { x: 0, y: 0 }, { x: 0, y: 0 }, HARD), { left: 0, top: 0, right: 6, bottom: 6 });
});

test("a rectangle holds the pixels that its corners lie in, in any order", () => {
  for (const [a, b] of [[{ x: 2.9, y: 3.1 }, { x: 6, y: 5.5 }], [{ x: 6, y: 3.1 }, { x: 2.9, y: 5.5 }]]) {
    const mask = new Mask(10, 10);
    fillRectangle(mask, a, b);
    assert.deepEqual(mask.bounds(), { left: 2, top: 3, right: 7, bottom: 6 });
    assert.equal(bytesOf(mask).filter((value) => value === 255).length, 15);
  }
  assert.equal(fillRectangle(new Mask(4, 4), { x: -3, y: 1 }, { x: -1, y: 2 }), null);
});

test("an outline is filled by the even-odd rule", () => {
  const next = random(3);
  for (let round = 0; round < 20; round++) {
    const outline = Array.from({ length: 7 }, () => ({ x: 40 * next() - 5, y: 40 * next() - 5 }));
    const mask = new Mask(30, 30);
    fillOutline(mask, outline);
    for (let y = 0; y < 30; y++) {
      for (let x = 0; x < 30; x++) {
        let isInside = false;
        outline.forEach((a, i) => {
          const b = outline[(i + 1) % outline.length];
          const crosses = a.y > y + 0.5 !== b.y > y + 0.5;
          if (crosses && x + 0.5 < a.x + ((y + 0.5 - a.y) * (b.x - a.x)) / (b.y - a.y)) isInside = !isInside;
        });
        assert.equal((mask.bytes?.[y * 30 + x] ?? 0) === 255, isInside, `${round} ${x} ${y}`);
      }
    }
  }
});

test("growing is the largest value of a square, also at the edges", () => {
  const next = random(5);
  for (const pixels of [1, 2, 3, 7, 30]) {
    const mask = randomMask(23, 17, next);
    const before = bytesOf(mask);
    growMask(mask, pixels);
    const expected = before.map((_, i) => {
      const [x, y] = [i % 23, Math.floor(i / 23)];
      let largest = 0;
      for (let v = Math.max(0, y - pixels); v <= Math.min(16, y + pixels); v++) {
        for (let u = Math.max(0, x - pixels); u <= Math.min(22, x + pixels); u++) {
          largest = Math.max(largest, before[v * 23 + u]);
        }
      }
      return largest;
    });
    assert.deepEqual(bytesOf(mask), expected);
  }
  assert.equal(growMask(new Mask(5, 5), 3), null);
});

test("copies share their memory until one is painted on", () => {
  const mask = randomMask(20, 20, random(8));
  const copies = [mask.copy(), mask.copy()];
  assert.ok(copies.every((copy) => copy.bytes === mask.bytes));
  const before = bytesOf(mask);
  invertMask(copies[0]);
  fillRectangle(mask, { x: 0, y: 0 }, { x: 19, y: 19 });
  assert.deepEqual(bytesOf(copies[0]), before.map((value) => 255 - value));
  assert.deepEqual(bytesOf(copies[1]), before);
  assert.ok(bytesOf(mask).every((value) => value === 255));
});

test("the hole begins at 128", () => {
  const mask = new Mask(4, 1);
  replaceMask(mask, Uint8Array.of(0, 127, 128, 0));
  assert.deepEqual(mask.bounds(), { left: 2, top: 0, right: 3, bottom: 1 });
  assert.equal(mask.hasHole(), true);
  replaceMask(mask, Uint8Array.of(127, 127, 127, 127));
  assert.equal(mask.hasHole(), false);
  assert.equal(mask.bounds(), null);
});

test("undo and redo give every state back", () => {
  const next = random(13);
  const mask = new Mask(300, 200);
  const undo = new Undo(mask);
  const states = [bytesOf(mask)];
  for (let step = 0; step < 8; step++) {
    const [from, to] = [0, 1].map(() => ({ x: 300 * next(), y: 200 * next() }));
    undo.begin();
    undo.touch({ left: 0, top: 0, right: 300, bottom: 200 });
    paintCapsule(mask, from, to, { radius: 20, hardness: 0.5, erases: step % 3 === 2 });
    undo.commit();
    states.push(bytesOf(mask));
  }
  for (let step = 7; step >= 0; step--) {
    undo.undo();
    assert.deepEqual(bytesOf(mask), states[step]);
  }
  assert.equal(undo.undo(), null);
  for (let step = 1; step <= 8; step++) {
    undo.redo();
    assert.deepEqual(bytesOf(mask), states[step]);
  }
  assert.equal(undo.redo(), null);
});

test("a step that is cancelled or changes nothing leaves no trace", () => {
  const mask = new Mask(50, 50);
  const undo = new Undo(mask);
  undo.begin();
  undo.touch({ left: 0, top: 0, right: 50, bottom: 50 });
  fillRectangle(mask, { x: 3, y: 3 }, { x: 9, y: 9 });
  undo.cancel();
  assert.equal(mask.hasHole(), false);
  undo.begin();
  undo.touch({ left: 0, top: 0, right: 50, bottom: 50 });
  assert.equal(undo.commit(), false);
  assert.deepEqual([undo.canUndo, undo.canRedo, undo.size], [false, false, 0]);
});

test("undo keeps what changed, and no more than its limit", () => {
  const mask = new Mask(1000, 1000);
  const undo = new Undo(mask, 25_000);
  for (let step = 0; step < 10; step++) {
    undo.begin();
    undo.touch({ left: 0, top: 0, right: 1000, bottom: 1000 });
    fillRectangle(mask, { x: 100, y: 90 * step }, { x: 199, y: 90 * step + 79 });
    undo.commit();
  }
  assert.ok(undo.size <= 25_000 && undo.size >= 16_000, String(undo.size));
  undo.begin();
  undo.touch({ left: 0, top: 0, right: 1000, bottom: 1000 });
  invertMask(mask);
  undo.commit();
  assert.equal(undo.canUndo, true); // the last step is kept, however large
  assert.equal(undo.size, 1_000_000);
});

test("a new step ends what could be done again", () => {
  const mask = new Mask(10, 10);
  const undo = new Undo(mask);
  const paint = (at) => {
    undo.begin();
    undo.touch({ left: 0, top: 0, right: 10, bottom: 10 });
    fillRectangle(mask, { x: at, y: at }, { x: at, y: at });
    undo.commit();
  };
  paint(1);
  undo.undo();
  paint(2);
  assert.equal(undo.canRedo, false);
});

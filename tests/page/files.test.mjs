import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import test from "node:test";
import { inflateSync } from "node:zlib";

import { derivedName, greyOf } from "../../runtime/cisi_runtime/serve/page/files.js";
import { shadeHole } from "../../runtime/cisi_runtime/serve/page/overlay.js";
import { Mask, replaceMask } from "../../runtime/cisi_runtime/serve/page/mask.js";
import { crc32, encodeGrey } from "../../runtime/cisi_runtime/serve/page/png.js";
import { random } from "./random.mjs";

test("a mask's PNG holds its bytes, and is the same every time", async () => {
  const next = random(2);
  const grey = Uint8Array.from({ length: 37 * 23 }, () => Math.floor(256 * next()));
  const [png, again] = [await encodeGrey(grey, 37, 23), await encodeGrey(grey, 37, 23)];
  const bytes = Buffer.from(await png.arrayBuffer());
  assert.equal(png.type, "image/png");
  assert.ok(bytes.equals(Buffer.from(await again.arrayBuffer())));
  const chunks = {};
  for (let at = 8; at < bytes.length; ) {
    const length = bytes.readUInt32BE(at);
    const name = bytes.toString("latin1", at + 4, at + 8);
    chunks[name] = bytes.subarray(at + 8, at + 8 + length);
    assert.equal(bytes.readUInt32BE(at + 8 + length), crc32(bytes.subarray(at + 4, at + 8 + length)));
    at += 12 + length;
  }
  assert.deepEqual(Object.keys(chunks), ["IHDR", "IDAT", "IEND"]);
  assert.deepEqual([...chunks.IHDR], [0, 0, 0, 37, 0, 0, 0, 23, 8, 0, 0, 0, 0]);
  const rows = inflateSync(chunks.IDAT);
  for (let y = 0; y < 23; y++) {
    assert.equal(rows[y * 38], 0);
    assert.deepEqual([...rows.subarray(y * 38 + 1, (y + 1) * 38)], [...grey.subarray(y * 37, (y + 1) * 37)]);
  }
});

test("CRC-32 is the usual one", () => {
  assert.equal(crc32(Buffer.from("123456789")), 0xcbf43926);
});

const rgba = (...pixels) => Uint8ClampedArray.from(pixels.flat());

test("a mask's grey is read, and what is no mask is refused in words", () => {
  assert.deepEqual([...greyOf(rgba([0, 0, 0, 255], [255, 255, 255, 255], [130, 130, 130, 255]))], [0, 255, 130]);
  assert.throws(() => greyOf(rgba([0, 0, 0, 255], [1, 1, 1, 255])), /only the values 0 and 1/);
  assert.throws(() => greyOf(rgba([0, 0, 0, 255], [127, 127, 127, 255])), /no hole/);
  assert.throws(() => greyOf(rgba([255, 0, 0, 255])), /colours/);
  assert.throws(() => greyOf(rgba([255, 255, 255, 90])), /transparent/);
});

test("results are named after their photograph", () => {
  assert.equal(derivedName("beach.jpeg", "inpainted", "JPEG"), "beach.inpainted.jpeg");
  assert.equal(derivedName("beach.JPG", "inpainted", "JPEG"), "beach.inpainted.JPG");
  assert.equal(derivedName("beach.jpg", "inpainted", "WEBP"), "beach.inpainted.webp");
  assert.equal(derivedName("scan.tiff", "inpainted", "TIFF"), "scan.inpainted.tiff");
  assert.equal(derivedName("a.b", "mask", "PNG"), "a.mask.png");
  assert.equal(derivedName("nothing", "mask", "PNG"), "nothing.mask.png");
});

test("the overlay shows the hole with its edge, enlarged and reduced", () => {
  const mask = new Mask(20, 20);
  const grey = new Uint8Array(400);
  for (let y = 5; y < 9; y++) grey.fill(200, y * 20 + 5, y * 20 + 9);
  grey[15 * 20 + 15] = 128; // one pixel, which must not vanish when the mask is shown at a third of its size
  replaceMask(mask, grey);
  const show = (scale, size) => {
    const pixels = new Uint32Array(size * size);
    const area = { left: 0, top: 0, right: size, bottom: size };
    shadeHole(mask, { scale, x: 0, y: 0 }, area, pixels, { inside: 1, edge: 2 });
    return (x, y) => pixels[y * size + x];
  };
  const plain = show(1, 20);
  assert.deepEqual([plain(4, 5), plain(5, 5), plain(6, 6), plain(8, 8), plain(9, 9)], [0, 2, 1, 2, 0]);
  const enlarged = show(3, 60);
  assert.deepEqual([enlarged(14, 15), enlarged(15, 15), enlarged(20, 20)], [0, 2, 1]);
  assert.notEqual(show(1 / 3, 7)(5, 5), 0);
});

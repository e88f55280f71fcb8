"use strict";
// Masks as the service sends them, as bitmaps, as layers to draw, and as run lengths again.

// COCO's compressed run lengths: columns, zeros first; six bits a character, differences from the fourth on.
function decodeRuns(text) {
  const runs = [];
  for (let at = 0; at < text.length;) {
    let value = 0, shift = 0, code;
    do {
      code = text.charCodeAt(at++) - 48;
      value |= (code & 31) << shift;
      shift += 5;
    } while (code & 32);
    if (code & 16 && shift < 32) value |= -1 << shift;
    runs.push(runs.length > 2 ? value + runs[runs.length - 2] : value);
  }
  return runs;
}

// PaddleX rounds halves to even, as Python does.
function rounded(x) {
  const low = Math.floor(x);
  return x - low === 0.5 ? low + (low % 2) : Math.round(x);
}

/** With the corner of the picture where it belongs. */
function bitmapOf({ bbox, mask }) {
  const [height, width] = mask.size;
  const bits = new Uint8Array(height * width);
  let at = 0;
  decodeRuns(mask.rleResult).forEach((run, number) => {
    if (number % 2) {
      for (let i = at; i < at + run; i++) bits[(i % height) * width + Math.floor(i / height)] = 1;
    }
    at += run;
  });
  return { bits, height, width, x: rounded(bbox[0]), y: rounded(bbox[1]) };
}

function bitAt({ bits, height, width, x, y }, column, row) {
  const inside = column >= x && column < x + width && row >= y && row < y + height;
  return inside ? bits[(row - y) * width + column - x] : 0;
}

/** Run lengths of a mask laid into a bitmap of the picture's size, not compressed. */
function fullRuns(bitmap, width, height) {
  const counts = [];
  let value = 0, run = 0;
  for (let column = 0; column < width; column++) {
    for (let row = 0; row < height; row++) {
      if (bitAt(bitmap, column, row) === value) run++;
      else { counts.push(run); value = 1 - value; run = 1; }
    }
  }
  counts.push(run);
  return { size: [height, width], counts };
}

// ---- colours

const SATURATION = 0.8, LIGHTNESS = 0.5;
const hue = (number) => (number * 137.5) % 360;
const colour = (number) => `hsl(${hue(number)}, ${100 * SATURATION}%, ${100 * LIGHTNESS}%)`;

/** Black or white, whichever has more contrast on the colour (WCAG's luminance). */
function inkOn(number) {
  const channel = (offset) => {
    const k = (offset + hue(number) / 30) % 12;
    const value = LIGHTNESS - SATURATION * Math.min(LIGHTNESS, 1 - LIGHTNESS) * Math.max(-1, Math.min(k - 3, 9 - k, 1));
    return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  };
  return 0.2126 * channel(0) + 0.7152 * channel(8) + 0.0722 * channel(4) > 0.179 ? "#000" : "#fff";
}

function layerOf({ number, bitmap: { bits, height, width } }) {
  const layer = document.createElement("canvas");
  layer.width = Math.max(width, 1);
  layer.height = Math.max(height, 1);
  const context = layer.getContext("2d");
  context.fillStyle = colour(number);
  context.fillRect(0, 0, width, height);
  const image = context.getImageData(0, 0, layer.width, layer.height);
  for (let i = 0; i < bits.length; i++) image.data[4 * i + 3] = bits[i] ? 255 : 0;
  context.putImageData(image, 0, 0);
  return layer;
}

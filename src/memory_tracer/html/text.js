"use strict";
// Elements and numbers. Text from the capture becomes text nodes, here and everywhere.

function byId(id) {
  return document.getElementById(id);
}

function element(name, className, ...children) {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

function seconds(nanoseconds, digits = 6) {
  return (nanoseconds / 1e9).toFixed(digits) + " s";
}

function count(number, noun, plural = noun + "s") {
  return `${number.toLocaleString("en")} ${number === 1 ? noun : plural}`;
}

function protectionName(bits) {
  if (bits < 0) return "gone";
  return (bits & 1 ? "r" : "-") + (bits & 2 ? "w" : "-") + (bits & 4 ? "x" : "-");
}

const COLOURS = [
  ["rwx", "writable and executable"], ["rx", "executable"], ["x", "execute only"],
  ["data", "not executable"], ["none", "no access"],
];

// The name of the colour in the style sheet.
function colourOf(bits) {
  if (bits & 4) return bits & 2 ? "rwx" : bits & 1 ? "rx" : "x";
  return bits ? "data" : "none";
}

let palette = {};

function readPalette() {
  const style = getComputedStyle(document.documentElement);
  const names = ["back", "panel", "line", "text", "dim", "accent", "mark", ...COLOURS.map(([name]) => name)];
  palette = Object.fromEntries(names.map((name) => [name, style.getPropertyValue("--" + name).trim()]));
}

// From 0 (blue) over 4 (green) and 6 (yellow, as code has) to 8 bits per byte (red, as noise has).
function entropyColour(bits) {
  return `hsl(${Math.round(225 * (1 - Math.min(bits, 8) / 8))} 70% 52%)`;
}

// Sizes a canvas for the screen's pixels and returns what to draw on, in CSS pixels.
function prepare(canvas) {
  const ratio = window.devicePixelRatio || 1;
  const width = canvas.clientWidth, height = canvas.clientHeight;
  if (canvas.width !== Math.round(width * ratio)) canvas.width = Math.round(width * ratio);
  if (canvas.height !== Math.round(height * ratio)) canvas.height = Math.round(height * ratio);
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return [context, width, height];
}

function drawStrip(canvas, strip) {
  const [context, width, height] = prepare(canvas);
  strip.forEach(([, bits], index) => {
    const left = Math.floor((index * width) / strip.length);
    const right = Math.floor(((index + 1) * width) / strip.length);
    context.fillStyle = entropyColour(bits);
    context.fillRect(left, 0, Math.max(1, right - left - (right - left > 5 ? 1 : 0)), height);
  });
}

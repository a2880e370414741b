// The address space over time. Each stretch of memory without a hole is a lane; what lies between lanes
// is left out. Lanes grow with the logarithm of their size, and within one addresses are to scale.

const GUTTER = 128, AXIS = 20, LANE_GAP = 3, TITLE = 16;

class Timeline {
  constructor(canvas, tooltip, choose) {
    this.canvas = canvas;
    this.tooltip = tooltip;
    this.choose = choose;
    this.bands = [];
    this.titles = [];
    this.chosen = null;
    this.queued = false;
    this.width = this.bottom = 1;
    canvas.addEventListener("wheel", (event) => this.onWheel(event), { passive: false });
    canvas.addEventListener("pointerdown", (event) => this.onDown(event));
    canvas.addEventListener("pointermove", (event) => this.onMove(event));
    canvas.addEventListener("pointerup", (event) => this.onUp(event));
    canvas.addEventListener("pointerleave", () => { this.tooltip.hidden = true; });
    canvas.addEventListener("dblclick", () => this.fit());
    canvas.addEventListener("keydown", (event) => this.onKey(event));
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  // Takes regions ordered by process and address; end is where bands end that nothing has ended.
  show(regions, end, titleOf) {
    this.bands = [];
    this.titles = [];
    let y = 0, process = null, lane = null;
    const close = () => {
      if (!lane) return;
      const pages = Number((lane.end - lane.start) >> 12n) || 1;
      const height = 9 + 2.5 * Math.log2(pages);
      for (const band of lane.bands) {
        const size = Number(lane.end - lane.start) || 1;
        const from = Number(band.start - lane.start) / size, to = Number(band.end - lane.start) / size;
        [band.top, band.bottom] = [y + from * height, y + to * height];
      }
      y += height + LANE_GAP;
      lane = null;
    };
    for (const region of regions) {
      if (process !== region.process && titleOf) {
        close();
        this.titles.push({ top: y, text: titleOf(region) });
        y += TITLE;
      }
      const start = BigInt("0x" + region.start), stop = BigInt("0x" + region.end);
      if (process !== region.process || !lane || start > lane.end) {
        close();
        lane = { start, end: stop, bands: [] };
      }
      process = region.process;
      if (stop > lane.end) lane.end = stop;
      const band = { region, start, end: stop, spans: spansOf(region, end) };
      lane.bands.push(band);
      this.bands.push(band);
    }
    close();
    this.height = Math.max(y, 1);
    const times = this.bands.flatMap((band) => [band.spans[0].from, band.spans[band.spans.length - 1].to]);
    this.from = times.reduce((least, time) => Math.min(least, time), Infinity);
    this.to = times.reduce((most, time) => Math.max(most, time), -Infinity);
    if (!this.bands.length) [this.from, this.to] = [0, 1e6];
    if (this.to - this.from < 1000) [this.from, this.to] = [this.from - 500, this.to + 500];
    this.canvas.style.height = Math.round(Math.min(330, Math.max(120, this.height * 2.2 + AXIS))) + "px";
    this.fit();
  }

  fit() {
    const margin = (this.to - this.from) * 0.01;
    this.view = { left: this.from - margin, right: this.to + margin, top: -LANE_GAP, bottom: this.height };
    this.draw();
  }

  x(time) {
    const { left, right } = this.view;
    return GUTTER + ((time - left) / (right - left)) * (this.width - GUTTER);
  }

  y(place) {
    const { top, bottom } = this.view;
    return ((place - top) / (bottom - top)) * this.bottom;
  }

  draw() {
    if (this.queued || !this.view) return;
    this.queued = true;
    requestAnimationFrame(() => { this.queued = false; this.drawNow(); });
  }

  drawNow() {
    const [context, width, height] = prepare(this.canvas);
    const bottom = height - AXIS;
    // Asking the canvas takes much longer than drawing a band does.
    [this.width, this.bottom] = [width, bottom];
    context.save();
    context.beginPath();
    context.rect(GUTTER, 0, width - GUTTER, bottom);
    context.clip();
    let drawn = 0;
    for (const band of this.bands) drawn += this.drawBand(context, band, width, bottom);
    if (this.chosen) this.outline(context, this.chosen);
    context.restore();
    this.drawLabels(context, width, bottom);
    this.drawAxis(context, width, bottom);
    this.canvas.dataset.drawn = drawn;
  }

  drawBand(context, band, width, bottom) {
    // Whole pixels have no edges to be blended.
    const top = Math.round(this.y(band.top)), height = Math.max(1, Math.round(this.y(band.bottom)) - top);
    if (top > bottom || top + height < 0) return 0;
    context.globalAlpha = band.region.plain ? 0.45 : 1;
    let drawn = 0;
    for (const span of band.spans) {
      const left = Math.max(Math.round(this.x(span.from)), GUTTER - 9);
      const right = Math.min(Math.round(this.x(span.to)), width + 9);
      if (left > width || right < GUTTER) continue;
      context.fillStyle = palette[colourOf(span.protection)];
      context.fillRect(left, top, Math.max(2, right - left), height);
      drawn = 1;
    }
    if (height >= 3) {
      context.fillStyle = palette.mark;
      for (const [time] of band.region.marks) context.fillRect(this.x(time) - 0.75, top, 1.5, height);
    }
    context.globalAlpha = 1;
    return drawn;
  }

  outline(context, band) {
    const left = this.x(band.spans[0].from), right = this.x(band.spans[band.spans.length - 1].to);
    const top = this.y(band.top), bottom = this.y(band.bottom);
    context.strokeStyle = palette.text;
    context.lineWidth = 2;
    context.strokeRect(left - 2, top - 2, Math.max(2, right - left) + 4, Math.max(1, bottom - top) + 4);
  }

  drawLabels(context, width, bottom) {
    context.font = "11px ui-monospace, monospace";
    context.textBaseline = "middle";
    let free = -Infinity;
    for (const title of this.titles) {
      const y = this.y(title.top + TITLE / 2);
      if (y < free || y < 0 || y > bottom) continue;
      context.fillStyle = palette.panel;
      context.fillRect(0, y - 7, width, 14);
      context.fillStyle = palette.text;
      context.fillText(title.text, 6, y);
      free = y + 13;
    }
    context.fillStyle = palette.dim;
    free = -Infinity;
    for (const band of this.bands) {
      const y = Math.max(this.y(band.top), 0) + 6;
      if (y < free || y > bottom - 4 || this.y(band.bottom) < 0) continue;
      if (this.titles.some((title) => Math.abs(this.y(title.top + TITLE / 2) - y) < 12)) continue;
      context.fillText("0x" + band.region.start, 6, y);
      free = y + 12;
    }
  }

  drawAxis(context, width, bottom) {
    const { left, right } = this.view;
    const rough = (right - left) / Math.max(2, (width - GUTTER) / 110);
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
    const digits = Math.min(9, Math.max(0, 9 - Math.floor(Math.log10(step))));
    context.fillStyle = palette.dim;
    context.strokeStyle = palette.line;
    context.lineWidth = 1;
    context.beginPath();
    context.moveTo(0, bottom + 0.5);
    context.lineTo(width, bottom + 0.5);
    for (let tick = Math.ceil(left / step) * step; tick <= right; tick += step) {
      const x = Math.round(this.x(tick)) + 0.5;
      context.moveTo(x, bottom);
      context.lineTo(x, bottom + 4);
      const text = seconds(tick, digits);
      if (x + context.measureText(text).width < width) context.fillText(text, x + 3, bottom + 11);
    }
    context.stroke();
  }

  // Of bands that lie on each other the last, which is the smallest, is the one that can be seen.
  at(event) {
    const { offsetX, offsetY } = event;
    if (offsetX < GUTTER || offsetY > this.bottom) return null;
    for (let index = this.bands.length - 1; index >= 0; index--) {
      const band = this.bands[index], top = this.y(band.top);
      if (offsetY < top - 1 || offsetY > Math.max(top + 1, this.y(band.bottom)) + 1) continue;
      const span = band.spans.find((each) => offsetX >= this.x(each.from) - 1 && offsetX <= this.x(each.to) + 2);
      if (span) return { band, span };
    }
    return null;
  }

  zoom(across, down, x, y) {
    const view = this.view;
    const time = view.left + ((x - GUTTER) / (this.width - GUTTER)) * (view.right - view.left);
    const place = view.top + (y / this.bottom) * (view.bottom - view.top);
    if ((view.right - view.left) * across < 50) across = 1; // nanoseconds
    if ((view.bottom - view.top) * down < 0.01) down = 1;
    this.view = {
      left: time + (view.left - time) * across, right: time + (view.right - time) * across,
      top: place + (view.top - place) * down, bottom: place + (view.bottom - place) * down,
    };
    this.draw();
  }

  zoomBoth(factor) {
    this.zoom(factor, factor, (this.width + GUTTER) / 2, this.bottom / 2);
  }

  move(dx, dy) {
    const view = this.view;
    const time = (dx / (this.width - GUTTER)) * (view.right - view.left);
    const place = (dy / this.bottom) * (view.bottom - view.top);
    this.view = {
      left: view.left - time, right: view.right - time, top: view.top - place, bottom: view.bottom - place,
    };
    this.draw();
  }

  onWheel(event) {
    event.preventDefault();
    const factor = Math.exp(Math.max(-1, Math.min(1, (event.deltaY || event.deltaX) / 400)));
    this.zoom(event.shiftKey ? 1 : factor, event.shiftKey ? factor : 1, Math.max(GUTTER, event.offsetX), event.offsetY);
  }

  onDown(event) {
    this.canvas.setPointerCapture(event.pointerId);
    this.drag = { x: event.offsetX, y: event.offsetY, moved: false };
  }

  onMove(event) {
    if (this.drag) {
      const dx = event.offsetX - this.drag.x, dy = event.offsetY - this.drag.y;
      if (!this.drag.moved && Math.hypot(dx, dy) < 4) return;
      this.move(dx, dy);
      this.drag = { x: event.offsetX, y: event.offsetY, moved: true };
    }
    this.hover(this.drag ? null : this.at(event), event);
  }

  onUp(event) {
    const found = this.drag && !this.drag.moved ? this.at(event) : null;
    this.drag = null;
    if (found) this.choose(found.band.region);
  }

  onKey(event) {
    const moves = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 40], ArrowDown: [0, -40] };
    if (moves[event.key]) this.move(...moves[event.key]);
    else if (event.key === "+" || event.key === "-") this.zoomBoth(event.key === "+" ? 0.7 : 1.4);
    else if (event.key === "0") this.fit();
    else return;
    event.preventDefault();
  }

  hover(found, event) {
    this.tooltip.hidden = !found;
    if (!found) return;
    const { region } = found.band;
    this.tooltip.textContent = [
      `0x${region.start}-0x${region.end}  ${protectionName(found.span.protection)}  ${region.size}`,
      `${seconds(found.span.from)} to ${seconds(found.span.to)}`,
      `${region.comm} (${region.pid}), ${region.backing}`,
      `${count(region.generations, "generation")}, ${region.events.join(", ")}`,
    ].join("\n");
    const left = this.canvas.offsetLeft + event.offsetX + 14, top = this.canvas.offsetTop + event.offsetY + 14;
    const right = this.canvas.offsetLeft + this.canvas.clientWidth - this.tooltip.offsetWidth;
    this.tooltip.style.left = Math.max(0, Math.min(left, right)) + "px";
    this.tooltip.style.top = top + "px";
  }
}

// The times between changes of protection; what is gone is left out.
function spansOf(region, end) {
  const spans = [];
  region.steps.forEach(([from, protection], index) => {
    const following = region.steps[index + 1];
    const to = Math.max(from, following ? following[0] : end);
    if (protection >= 0) spans.push({ from, to, protection });
  });
  return spans.length ? spans : [{ from: 0, to: 0, protection: 0 }];
}

// The page: what is shown of the capture, and how its parts act on each other.
// An address ending in #region=3&generation=2&address=0x7f00&form=hex&process=0&search=text opens it like that.

const COLUMNS = [
  ["TIME", 88, (region) => seconds(region.steps.length ? region.steps[0][0] : 0).slice(0, -2), "right", "time"],
  ["PID", 58, (region) => String(region.pid), "right", "pid"],
  ["ADDRESS", 108, (region) => "0x" + region.start, "", "address"],
  ["SIZE", 76, (region) => region.size, "right", "size"],
  ["PROT", 32, (region) => (region.rwx ? "rwx" : region.protection), "", "protection"],
  ["GEN", 46, (region) => region.generations.toLocaleString("en"), "right", "generations"],
  ["PAGES", 52, (region) => region.pages.toLocaleString("en"), "right", "pages"],
  ["ENTROPY", 80, null, "", "entropy"],
  ["BACKING", 0, (region) => region.backing, "", "backing"],
];

const SORT_KEYS = {
  time: (region) => (region.steps.length ? region.steps[0][0] : 0),
  pid: (region) => region.pid,
  address: (region) => region.start.padStart(16, "0"),
  size: (region) => Number(BigInt("0x" + region.end) - BigInt("0x" + region.start)),
  protection: (region) => (region.rwx ? "rwx" : region.protection),
  generations: (region) => -region.generations,
  pages: (region) => -region.pages,
  entropy: (region) => -Math.max(0, ...region.strip.map(([, bits]) => bits)),
  backing: (region) => region.backing,
};

class Page {
  constructor(data) {
    this.data = data;
    this.regions = data.regions;
    this.regions.forEach((region, number) => {
      region.number = number;
      region.words = [
        "0x" + region.start, "0x" + region.end, region.comm, region.pid, region.backing, region.caller, region.runtime,
        region.asked_by, region.protection, region.rwx ? "rwx" : "", region.looks_like, ...region.events, ...region.executed,
      ].join(" ").toLowerCase();
    });
    const times = this.regions.flatMap((region) => [...region.steps, ...region.marks].map(([time]) => time));
    const ends = data.processes.map((process) => process.ended ?? 0);
    this.end = [...times, ...ends].reduce((most, time) => Math.max(most, time), 1);
    this.process = null;
    this.sorting = null;
    this.timeline = new Timeline(byId("bands"), byId("tooltip"), (region) => this.choose(region));
    this.details = new Details();
    this.table = new List(byId("rows"), 22, (index) => this.makeRow(index));
    byId("plain").checked = this.regions.every((region) => region.plain);
    byId("plain").addEventListener("change", () => this.update());
    byId("search").addEventListener("input", () => this.update());
    byId("rows").addEventListener("keydown", (event) => this.onKey(event));
    byId("fit").addEventListener("click", () => this.timeline.fit());
    byId("zoom-in").addEventListener("click", () => this.timeline.zoomBoth(0.6));
    byId("zoom-out").addEventListener("click", () => this.timeline.zoomBoth(1 / 0.6));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.repaint());
  }

  start() {
    readPalette();
    this.showHeading();
    this.showTabs();
    this.showColumns();
    const wanted = new URLSearchParams(location.hash.slice(1));
    byId("search").value = wanted.get("search") ?? "";
    if (wanted.has("process")) this.process = Number(wanted.get("process"));
    if (wanted.has("form")) this.details.form = wanted.get("form");
    else if (this.data.processes.length === 1) this.process = 0;
    const region = this.regions[Number(wanted.get("region") ?? 0)];
    if (wanted.has("region") && region?.plain) byId("plain").checked = true;
    this.update();
    const address = wanted.get("address") ?? "";
    const place = /^0x[0-9a-f]{1,16}$/i.test(address) ? BigInt(address) : null;
    if (region) this.choose(region, Number(wanted.get("generation") ?? 0), place);
  }

  showHeading() {
    const { title, capture, facts, complete, losses, left_out: leftOut } = this.data;
    document.title = `${title} - memory-tracer`;
    byId("title").textContent = title;
    byId("facts").textContent = [capture, ...facts].join(" \u00b7 ");
    const list = (sentences) => element("ul", "", ...sentences.map((each) => element("li", "", each)));
    byId("losses").className = complete ? "complete" : "";
    if (complete) byId("losses").textContent = "COMPLETE: nothing was lost";
    else byId("losses").replaceChildren(element("strong", "", "INCOMPLETE:"), list(losses));
    if (leftOut.length) {
      byId("left-out").replaceChildren(element("strong", "", "Left out of this page:"), list(leftOut));
    }
    const legend = COLOURS.map(([name, meaning]) => {
      const box = element("i", "");
      box.style.background = `var(--${name})`;
      return element("li", "", box, meaning);
    });
    const mark = element("i", "");
    mark.style.cssText = "background: var(--mark); width: 2px";
    byId("legend").replaceChildren(...legend, element("li", "", mark, "new generation"));
  }

  showTabs() {
    const regions = new Map();
    for (const region of this.regions) regions.set(region.process, (regions.get(region.process) ?? 0) + 1);
    const tab = (number, text, title) => {
      const button = element("button", "", text);
      button.type = "button";
      button.setAttribute("role", "tab");
      button.title = title;
      button.addEventListener("click", () => { this.process = number; this.update(); });
      return [number, button];
    };
    this.tabs = [tab(null, `All processes (${this.data.processes.length})`, "")];
    this.data.processes.forEach((process, number) => {
      const indent = "\u203a ".repeat(Math.min(process.depth, 4));
      const text = `${indent}${process.comm} ${process.pid} (${regions.get(number) ?? 0})`;
      this.tabs.push(tab(number, text, `${process.command} ${process.ending}`));
    });
    byId("tabs").replaceChildren(...this.tabs.map(([, button]) => button));
  }

  showColumns() {
    const titles = COLUMNS.map(([name, width, , side, key]) => {
      const cell = element("span", side || (width ? "" : "rest"), name);
      if (width) cell.style.width = width + "px";
      cell.title = "Sort";
      cell.addEventListener("click", () => { this.sorting = this.sorting === key ? null : key; this.update(); });
      return cell;
    });
    byId("columns").replaceChildren(...titles);
  }

  // Shows the regions that the tab, the search and the box let through, in the table and the timeline.
  update() {
    for (const [number, button] of this.tabs) button.setAttribute("aria-selected", number === this.process);
    const process = this.data.processes[this.process];
    byId("process").textContent = process
      ? `${process.command || process.comm} ${process.ending}`
      : count(this.data.processes.length, "process", "processes");
    const words = byId("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const here = this.regions.filter((region) => !process || region.process === this.process);
    const plain = here.filter((region) => region.plain).length;
    byId("plain-label").textContent = `programs and libraries (${plain.toLocaleString("en")})`;
    this.shown = here.filter((region) =>
      (byId("plain").checked || !region.plain) && words.every((word) => region.words.includes(word)));
    byId("count").textContent = `${this.shown.length.toLocaleString("en")} of ${count(here.length, "region")}`;
    const key = SORT_KEYS[this.sorting];
    if (key) {
      const keyed = this.shown.map((region) => [key(region), region]);
      keyed.sort(([left], [right]) => (left < right ? -1 : left > right ? 1 : 0));
      this.shown = keyed.map(([, region]) => region);
    }
    this.table.show(this.shown.length);
    const titleOf = process ? null : (region) => `${region.comm} ${region.pid}`;
    this.timeline.chosen = null;
    this.timeline.show(byAddress(this.shown), this.end, titleOf);
    this.outline();
  }

  makeRow(index) {
    const region = this.shown[index];
    const cells = COLUMNS.map(([, width, text, side]) => {
      const cell = element("span", side || (width ? "" : "rest"), text ? text(region) : "");
      if (width) cell.style.width = width + "px";
      if (text && text(region) === "rwx") cell.classList.add("rwx");
      if (!text) cell.append(smallStrip(region.strip, width));
      return cell;
    });
    const row = element("div", region === this.chosen ? "chosen" : "", ...cells);
    row.title = `${region.comm} (${region.pid})\n${region.caller ? "called from " + region.caller : ""}`;
    row.addEventListener("click", () => this.choose(region));
    return row;
  }

  choose(region, generation = 0, address = null) {
    this.chosen = region;
    this.details.show(region, this.data.views[region.number] ?? [], region.number, generation, address);
    const place = this.shown.indexOf(region);
    if (place >= 0) this.table.scrollTo(place);
    this.table.draw();
    this.outline();
  }

  outline() {
    this.timeline.chosen = this.timeline.bands.find((band) => band.region === this.chosen) ?? null;
    this.timeline.draw();
  }

  repaint() {
    readPalette();
    this.timeline.draw();
  }

  onKey(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const next = this.shown[this.shown.indexOf(this.chosen) + step];
    if (next) this.choose(next);
  }
}

function smallStrip(strip, width) {
  const canvas = element("canvas", "");
  [canvas.width, canvas.height] = [width, 10];
  const context = canvas.getContext("2d");
  strip.forEach(([, bits], index) => {
    const left = Math.floor((index * width) / strip.length);
    context.fillStyle = entropyColour(bits);
    context.fillRect(left, 0, Math.max(1, Math.floor(width / strip.length)), 10);
  });
  return canvas;
}

// By process and address, the larger first where two begin at the same place.
function byAddress(regions) {
  const keyed = regions.map((region) => ({
    region, process: region.process ?? -1, start: region.start.padStart(16, "0"), end: region.end.padStart(17, "0"),
  }));
  keyed.sort((left, right) =>
    left.process - right.process || compare(left.start, right.start) || compare(right.end, left.end));
  return keyed.map(({ region }) => region);
}

function compare(left, right) {
  return left < right ? -1 : left > right ? 1 : 0;
}

const page = new Page(JSON.parse(byId("data").textContent));
page.start();

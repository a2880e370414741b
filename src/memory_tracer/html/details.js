// One region: what is known of it, its entropy, and its bytes or instructions.

class Details {
  constructor() {
    this.lines = [];
    this.list = new List(byId("listing"), 17, (index) => this.makeLine(index));
    byId("form-code").addEventListener("click", () => this.setForm("code"));
    byId("form-hex").addEventListener("click", () => this.setForm("hex"));
    new ResizeObserver(() => { if (this.region) drawStrip(byId("strip"), this.region.strip); }).observe(byId("strip"));
    this.form = "code";
  }

  // Opens a generation (otherwise the last known) at an address (otherwise at its beginning).
  show(region, views, number, generation, address) {
    this.region = region;
    this.views = views;
    this.number = number;
    byId("details").hidden = false;
    byId("region").textContent = `0x${region.start}-0x${region.end}`;
    byId("facts-of-region").replaceChildren(...factsOf(region).flatMap(([name, value]) => [
      element("dt", "", name), element("dd", "", value),
    ]));
    drawStrip(byId("strip"), region.strip);
    byId("strip-text").textContent = stripText(region);
    this.makeButtons();
    const wanted = views.findIndex((view) => view.generation === generation);
    this.open(Math.max(0, wanted), address);
  }

  makeButtons() {
    const order = this.views.map((view, place) => [view, place]);
    order.sort(([left], [right]) => left.generation - right.generation || left.time - right.time);
    this.buttons = order.map(([view, place]) => {
      const button = element("button", "", place ? String(view.generation) : `last (${view.generation})`);
      button.type = "button";
      button.title = `Generation ${view.generation}, after ${view.event} at ${seconds(view.time, 9)}`;
      button.addEventListener("click", () => this.open(place));
      return [button, place];
    });
    byId("generations").replaceChildren("Generation ", ...this.buttons.map(([button]) => button));
  }

  async open(place, address) {
    const view = this.views[place];
    this.lines = [];
    for (const [button, other] of this.buttons) button.setAttribute("aria-pressed", other === place);
    if (!view) {
      byId("view").textContent = this.region.pages
        ? "Its bytes did not fit into this page. memory-tracer show has them."
        : "None of its bytes are in the capture: nothing to see, or recorded by reference to the file.";
      this.runs = [];
      this.fill();
      return;
    }
    // Looks at larger ranges can bring some that the region's own events did not.
    const all = Math.max(this.region.generations, this.views[0].generation);
    const left = all - new Set(this.views.map((each) => each.generation)).size;
    const sentences = [
      `Generation ${view.generation}, after ${view.event} at ${seconds(view.time, 9)}, ${view.protection}.`,
      view.more ? `${count(view.more, "more page")} left out.` : "",
      left > 0 ? `${count(left, "generation")} left out; memory-tracer show --generation has them.` : "",
    ];
    byId("view").textContent = sentences.filter(Boolean).join(" ");
    try {
      this.runs = await unpack(byId(`view-${this.number}-${place}`).textContent);
    } catch (error) {
      this.runs = [];
      byId("view").textContent = `This browser cannot unpack the bytes: ${error}`;
    }
    const lost = this.runs.reduce((sum, run) => sum + (run.lost ? run.size : 0), 0);
    if (lost) byId("view").append(` ${count(lost, "byte")} missing.`);
    this.fill(address);
  }

  setForm(form) {
    this.form = form;
    this.fill();
  }

  fill(address = null) {
    const hasCode = this.runs.every((run) => run.missing || run.code);
    const form = hasCode ? this.form : "hex";
    byId("form-code").disabled = !hasCode;
    byId("form-code").title = hasCode ? "" : "There are none in this page";
    byId("form-code").setAttribute("aria-pressed", form === "code");
    byId("form-hex").setAttribute("aria-pressed", form === "hex");
    this.lines = this.runs.flatMap((run) => linesOf(run, form));
    const place = address === null ? 0 : this.lines.findIndex((line) => BigInt(line.address) >= address);
    this.list.show(this.lines.length);
    this.list.scrollTo(Math.max(0, place));
  }

  makeLine(index) {
    const { address, text, kind } = this.lines[index];
    return element("div", "", element("span", "dim", address + "  "), element("span", kind, text));
  }
}

function factsOf(region) {
  const traits = [
    region.plain ? "program or library" : "", region.rwx ? "was writable and executable at once" : "",
    region.unlinked ? "unlinked file" : "", region.shared ? "shared" : "",
  ].filter(Boolean);
  const missing = region.missing ? `, ${region.missing.toLocaleString("en")} missing` : "";
  const facts = [
    ["Process", `${region.comm} (${region.pid})`],
    ["Memory", `${region.size}, ${region.backing}, in the end ${region.protection}`],
    ["Made by", `${region.events.join(", ")}, ${count(region.flips, "call")}`],
    ["Called from", region.caller || "not known"],
    ["Asked by", [region.runtime, region.asked_by].filter(Boolean).join(", ") || "not known"],
    ["Bytes", `${count(region.pages, "page")}${missing} in ${count(region.generations, "generation")}`],
    ["Executed", region.executed.length ? `yes: ${region.executed.join(", ")}` : "not seen executing"],
  ];
  if (region.looks_like) facts.push(["Looks like", `${region.looks_like}; starts with ${region.first_bytes}`]);
  if (traits.length) facts.push(["Note", traits.join(", ")]);
  if (region.more_steps) facts.push(["Timeline", "later changes of protection are not drawn"]);
  return facts;
}

function stripText(region) {
  if (!region.strip.length) return "";
  const bits = region.strip.map(([, value]) => value);
  const some = region.strip.length < region.strip_pages ? `${region.strip.length} of ` : "";
  const range = `${Math.min(...bits).toFixed(1)} to ${Math.max(...bits).toFixed(1)} bits per byte`;
  return `Entropy of ${some}${count(region.strip_pages, "page")}: ${range} (blue 0, green 4, red 8)`;
}

// Deflated JSON in base64: the runs of bytes, and of bytes that are missing.
async function unpack(text) {
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return JSON.parse(await new Response(stream).text());
}

function linesOf(run, form) {
  const base = BigInt("0x" + run.address);
  const line = (offset, text, kind) => {
    const address = "0x" + (base + BigInt(offset)).toString(16).padStart(12, "0");
    return { address, text, kind };
  };
  if (run.missing) return [line(0, `${run.size.toLocaleString("en")} bytes: ${run.missing}`, "gap")];
  const bytes = Uint8Array.from(atob(run.bytes), (character) => character.charCodeAt(0));
  const hex = (from, to) => Array.from(bytes.subarray(from, to), (byte) => byte.toString(16).padStart(2, "0")).join(" ");
  const lines = [];
  if (form === "code") {
    let offset = 0;
    for (const [size, text] of run.code) {
      const zeros = text.endsWith("zero bytes");
      lines.push(line(offset, zeros ? text : hex(offset, offset + size).padEnd(33) + text, zeros ? "dim" : ""));
      offset += size;
    }
    return lines;
  }
  for (let offset = 0; offset < bytes.length; offset += 16) {
    const row = bytes.subarray(offset, offset + 16);
    const ascii = Array.from(row, (byte) => (byte >= 32 && byte < 127 ? String.fromCharCode(byte) : ".")).join("");
    lines.push(line(offset, `${hex(offset, offset + 16).padEnd(49)}|${ascii}|`, ""));
  }
  return lines;
}

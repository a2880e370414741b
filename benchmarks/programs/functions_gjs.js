// functions.js for gjs, that is SpiderMonkey: functions_gjs.js FUNCTIONS DUMP
// Writes, after every hundredth function and for each page of executable memory of no file that has changed
// since, its address and bytes to DUMP, but for pages of one byte repeated.
const { Gio, GLib } = imports.gi;

const memory = Gio.File.new_for_path("/proc/self/mem").read(null);
const out = Gio.File.new_for_path(ARGV[1]).replace(null, false, Gio.FileCreateFlags.NONE, null);
const pages = new Map();

function dump() {
  const maps = new TextDecoder().decode(GLib.file_get_contents("/proc/self/maps")[1]);
  for (const line of maps.split("\n")) {
    const [range, protection, , , inode, name] = line.split(/ +/);
    if (!protection || !protection.includes("x") || inode != "0" || name) continue;
    const [start, end] = range.split("-").map((text) => parseInt(text, 16));
    memory.seek(start, GLib.SeekType.SET, null);
    for (let address = start; address < end; address += 4096) {
      const page = memory.read_bytes(4096, null).toArray();
      const text = Array.from(page, (byte) => byte.toString(16).padStart(2, "0")).join("");
      if (pages.get(address) == text || page.every((byte) => byte == page[0])) continue;
      pages.set(address, text);
      out.write(`${address.toString(16)} ${text}\n`, null);
    }
  }
}

let sum = 0;
for (let number = 1; number <= Number(ARGV[0]); number++) {
  const compiled = new Function("n", `let s = ${number}; for (let i = 1; i <= n; i++) s = (s * 31 + i) % 65521; return s`);
  for (let call = 0; call < 20; call++) sum = (sum + compiled(1000)) % 65521;
  if (number % 100 == 0) dump();
}
out.close(null);
print(sum);

// A list of any length: only the rows that can be seen are in the page.

class List {
  constructor(container, rowHeight, makeRow) {
    this.container = container;
    this.rowHeight = rowHeight;
    this.makeRow = makeRow;
    this.room = element("div", "room");
    this.length = 0;
    container.replaceChildren(this.room);
    container.addEventListener("scroll", () => this.draw());
    new ResizeObserver(() => this.draw()).observe(container);
  }

  show(length, top = 0) {
    this.length = length;
    this.room.style.height = length * this.rowHeight + "px";
    this.container.scrollTop = top;
    this.draw();
  }

  scrollTo(index) {
    const top = index * this.rowHeight, height = this.container.clientHeight;
    if (top < this.container.scrollTop || top + this.rowHeight > this.container.scrollTop + height) {
      this.container.scrollTop = top - height / 2;
    }
    this.draw();
  }

  draw() {
    const first = Math.max(0, Math.floor(this.container.scrollTop / this.rowHeight));
    const last = Math.min(this.length, first + Math.ceil(this.container.clientHeight / this.rowHeight) + 1);
    const rows = [];
    for (let index = first; index < last; index++) {
      const row = this.makeRow(index);
      row.classList.add("row");
      row.style.top = index * this.rowHeight + "px";
      row.style.height = row.style.lineHeight = this.rowHeight + "px";
      rows.push(row);
    }
    this.room.replaceChildren(...rows);
  }
}

// The history of a camera: three lanes over one axis of time, and a mark for each dense frame.
import { decimal, element, milliseconds, percent, setText } from "./words.js";

const LANES = [
  { name: "estimate", title: "estimated error", least: 0.05, show: decimal },
  { name: "share", title: "computed, share of dense", least: 0.1, show: percent },
  { name: "latency_ms", title: "latency", least: 5, show: milliseconds },
];
const HEIGHT = 76; // of a lane, in pixels
const GAP = 22;
const TOP = 30;
const LEFT = 52;
const RIGHT = 10;
const TICKS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600];

function svg(tag, attributes = {}, text = "") {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.textContent = text;
  return made;
}

// The next of 1, 2, 5 times a power of ten.
function round(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return power * [1, 2, 5, 10].find((step) => step * power >= value * 0.999);
}

export class Plot {
  constructor(place) {
    this.place = place;
    this.readout = element("p", { className: "readout", role: "status" });
    this.frame = element("div", { className: "lanes", tabIndex: 0, role: "img" });
    place.append(this.frame, this.readout);
    this.history = null;
    this.at = null; // the time that is read, or null for the latest
    new ResizeObserver(() => this.history && this.draw(this.history)).observe(place);
    this.frame.addEventListener("pointermove", (event) => this.point(event));
    this.frame.addEventListener("pointerleave", () => this.read(null));
    this.frame.addEventListener("keydown", (event) => this.key(event));
  }

  clear() {
    this.history = null;
    this.at = null;
    this.frame.replaceChildren();
    this.readout.textContent = "";
  }

  draw(history) {
    this.history = history;
    const { time } = history;
    if (!time.length) {
      setText(this.readout, "no frames yet");
      return;
    }
    this.width = Math.max(200, this.frame.clientWidth);
    this.from = time[0];
    this.until = Math.max(time.at(-1), this.from + 1);
    const height = TOP + LANES.length * (HEIGHT + GAP);
    const root = svg("svg", { width: this.width, height, viewBox: `0 0 ${this.width} ${height}` });
    this.axis(root, height);
    this.marks(root);
    LANES.forEach((lane, position) => this.lane(root, lane, TOP + position * (HEIGHT + GAP) + 16));
    this.cursor = svg("line", { class: "cursor", y1: 12, y2: height - GAP });
    root.append(this.cursor);
    this.frame.replaceChildren(root);
    this.read(this.at);
    const dense = history.kind.filter((kind) => kind === "dense").length;
    this.frame.setAttribute("aria-label",
      `History of ${time.length} frames over ${Math.round(this.until - this.from)} seconds, ${dense} of them dense. ` +
      "Arrow keys read single frames.");
  }

  x(time) {
    return LEFT + ((this.width - LEFT - RIGHT) * (time - this.from)) / (this.until - this.from);
  }

  axis(root, height) {
    const span = this.until - this.from;
    const most = Math.max(2, Math.floor(this.width / 90));
    const step = TICKS.find((each) => span / each <= most) ?? span;
    for (let back = 0; back <= span; back += step) {
      const x = this.x(this.until - back);
      const anchor = back === 0 ? "end" : "middle";
      root.append(
        svg("line", { class: "grid", x1: x, x2: x, y1: TOP, y2: height - GAP }),
        svg("text", { x: back === 0 ? this.width - RIGHT : x, y: height - 6, "text-anchor": anchor },
          back === 0 ? "latest" : `−${back} s`));
    }
  }

  marks(root) {
    const { time, kind } = this.history;
    root.append(svg("text", { x: 0, y: 12 }, "dense ▾"));
    const path = time.filter((_, position) => kind[position] === "dense")
      .map((each) => `M${this.x(each).toFixed(1)} 12l-4 -8h8z`).join("");
    root.append(svg("path", { class: "dense", d: path }));
  }

  lane(root, { name, title, least, show }, top) {
    const values = this.history[name];
    const most = round(Math.max(least, ...values.filter((value) => value !== null)));
    const y = (value) => top + HEIGHT - 16 - ((HEIGHT - 16) * value) / most;
    let path = "";
    let gap = true;
    values.forEach((value, position) => {
      if (value !== null) path += `${gap ? "M" : "L"}${this.x(this.history.time[position]).toFixed(1)} ${y(value).toFixed(1)}`;
      gap = value === null;
    });
    const base = y(0);
    root.append(
      svg("text", { class: "title", x: LEFT, y: top - 5 }, title),
      svg("text", { x: LEFT - 6, y: y(most) + 4, "text-anchor": "end" }, show(most)),
      svg("text", { x: LEFT - 6, y: base + 4, "text-anchor": "end" }, "0"),
      svg("line", { class: "grid", x1: LEFT, x2: this.width - RIGHT, y1: y(most), y2: y(most) }),
      svg("line", { class: "base", x1: LEFT, x2: this.width - RIGHT, y1: base, y2: base }),
      svg("path", { class: `line ${name}`, d: path }));
  }

  point(event) {
    if (!this.history?.time.length) return;
    const x = event.clientX - this.frame.getBoundingClientRect().left;
    this.read(this.from + ((this.until - this.from) * (x - LEFT)) / (this.width - LEFT - RIGHT));
  }

  key(event) {
    if (!this.history?.time.length) return;
    const { time } = this.history;
    const here = this.at === null ? time.length - 1 : this.nearest(this.at);
    const to = { ArrowLeft: here - 1, ArrowRight: here + 1, PageUp: here + 25, PageDown: here - 25, Home: 0, End: time.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    const kept = Math.min(time.length - 1, Math.max(0, to));
    this.read(kept === time.length - 1 ? null : time[kept]);
  }

  nearest(at) {
    const { time } = this.history;
    let best = 0;
    time.forEach((each, position) => {
      if (Math.abs(each - at) < Math.abs(time[best] - at)) best = position;
    });
    return best;
  }

  // Say one frame's figures: of the time given, or of the latest.
  read(at) {
    this.at = at;
    if (!this.history?.time.length || !this.cursor) return;
    const { time, kind, estimate, share, latency_ms: latency } = this.history;
    const here = at === null ? time.length - 1 : this.nearest(at);
    const x = this.x(time[here]);
    this.cursor.setAttribute("x1", x);
    this.cursor.setAttribute("x2", x);
    this.cursor.setAttribute("visibility", at === null ? "hidden" : "visible");
    const when = at === null ? "latest" : `${(this.until - time[here]).toFixed(1)} s before`;
    setText(this.readout,
      `${when}: ${kind[here]}, error ${decimal(estimate[here], 3)}, computed ${percent(share[here])}, latency ${milliseconds(latency[here])}`);
  }
}

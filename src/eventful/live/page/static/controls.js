// Two sliders, of which one holds: the budget or the error.
import { ask } from "./api.js";
import { decimal, percent, setText } from "./words.js";

const SPAN = 50; // from least to most, on a scale of logarithms
const KINDS = {
  auto: { id: "budget", least: 0.02, show: percent, says: (value) => `holds a budget of ${percent(value)}` },
  error: { id: "error", least: 0.01, show: decimal, says: (value) => `holds an error of ${decimal(value)}` },
};
const note = document.getElementById("policy");
let policy = ""; // as the server has it
let touched = -Infinity; // when a slider was last moved
let wanted = null;
let sending = false;

const toValue = (kind, position) => Number((kind.least * SPAN ** (position / 100)).toPrecision(2));
const toPosition = (kind, value) =>
  Math.min(100, Math.max(0, Math.round((100 * Math.log(value / kind.least)) / Math.log(SPAN))));

function read(text) {
  const [name, number = ""] = text.split(":");
  const [value, worst] = number.split("/").map(Number);
  return { name, value, worst };
}

function draw(kind, value) {
  const slider = document.getElementById(kind.id);
  setText(document.getElementById(`${kind.id}-value`), kind.show(value));
  slider.setAttribute("aria-valuetext", kind.show(value));
}

function mark(text) {
  const { name, value } = read(text);
  for (const [each, kind] of Object.entries(KINDS)) {
    document.getElementById(`${kind.id}-control`).classList.toggle("holds", each === name);
  }
  note.classList.toggle("unseen", name in KINDS); // the sliders show it
  setText(note, name in KINDS ? KINDS[name].says(value) : `holds ${text}; move a slider to change it`);
}

// What the server holds, unless somebody is moving a slider.
export function show(text) {
  if (sending || performance.now() - touched < 1500) return;
  policy = text;
  const { name, value } = read(text);
  for (const [each, kind] of Object.entries(KINDS)) {
    const slider = document.getElementById(kind.id);
    if (each === name) slider.value = toPosition(kind, value);
    draw(kind, each === name ? value : toValue(kind, slider.value));
  }
  mark(text);
}

// One request at a time; of the positions passed meanwhile only the last counts.
async function send() {
  if (sending) return;
  sending = true;
  while (wanted !== null) {
    const text = wanted;
    wanted = null;
    try {
      policy = (await (await ask("PUT", "/api/policy", { policy: text })).json()).policy;
      if (wanted === null) mark(policy);
    } catch (error) {
      note.classList.remove("unseen");
      setText(note, error.type ? error.message : "the server does not answer");
      touched = -Infinity;
    }
  }
  sending = false;
}

for (const [name, kind] of Object.entries(KINDS)) {
  document.getElementById(kind.id).addEventListener("input", (event) => {
    const value = toValue(kind, event.target.value);
    const { name: old, worst } = read(policy);
    const keeps = name === "auto" && old === "auto" && worst; // a share that no frame may exceed
    touched = performance.now();
    draw(kind, value);
    wanted = `${name}:${value}${keeps ? `/${Math.max(worst, value)}` : ""}`;
    send();
  });
}
document.getElementById("controls").addEventListener("submit", (event) => event.preventDefault());

// The figures of a camera, as a list of terms.
import { count, decimal, element, milliseconds, percent, rate, setText, times } from "./words.js";

const FEW = [
  ["error", "estimated error", (camera) => decimal(camera.estimate)],
  ["rate", "results", (camera) => rate(camera.rate)],
  ["share", "computed", (camera) => percent(camera.recent)],
  ["saved", "operations saved", (camera) => times(camera.share)],
  ["dropped", "dropped", (camera) => count(camera.dropped)],
  ["reconnects", "reconnects", (camera) => count(camera.reconnects)],
];
const MORE = [
  ["latency", "latency", (camera) => milliseconds(camera.latency_ms)],
  ["age", "frames since a dense one", (camera) => count(camera.age)],
  ["processed", "processed", (camera) => count(camera.processed)],
  ["failed", "failed", (camera) => count(camera.failed)],
  ["size", "size", (camera) => (camera.size ? `${camera.size[1]} × ${camera.size[0]}` : "–")],
];

export function facts(list, camera, all = false) {
  for (const [name, term, value] of all ? [...FEW, ...MORE] : FEW) {
    let node = list.querySelector(`[data-fact="${name}"] dd`);
    if (!node) {
      node = element("dd");
      list.append(element("div", { "data-fact": name }, element("dt", { textContent: term }), node));
    }
    setText(node, value(camera));
  }
}

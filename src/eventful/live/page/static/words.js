// Figures in words, and small helpers to build elements without HTML.
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

// Writing the same text again would make screen readers speak.
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export const percent = (share) =>
  share == null ? "–" : `${share < 0.0995 ? (100 * share).toPrecision(2) : Math.round(100 * share)} %`;
export const times = (share) => (share ? `${(1 / share).toFixed(1)}×` : "–");
export const decimal = (value, digits = 2) => (value == null ? "–" : value.toFixed(digits));
export const rate = (value) => `${value < 9.95 ? value.toFixed(1) : Math.round(value)}/s`;
export function milliseconds(value) {
  if (value == null) return "–";
  return value < 999.5 ? `${value < 10 ? value.toFixed(1) : Math.round(value)} ms` : `${(value / 1000).toFixed(1)} s`;
}
export const count = (value) => value.toLocaleString("en");

export function ago(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

// A sign beside each word, so that nothing is told by colour alone.
const SIGNS = { live: "●", connecting: "◌", waiting: "▲", ended: "■", paused: "❚❚" };
export function stateText(camera) {
  const sign = SIGNS[camera.state] ?? "?";
  const retry = camera.state === "waiting" && camera.retry_in != null;
  return `${sign} ${camera.state}${retry ? `, next try in ${Math.max(0, Math.round(camera.retry_in))} s` : ""}`;
}

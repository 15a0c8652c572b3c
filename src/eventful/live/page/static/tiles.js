// A tile a camera.
import { facts } from "./facts.js";
import { clear, forget, shot } from "./pictures.js";
import { element, setText, stateText } from "./words.js";

const list = document.getElementById("tiles");
const tiles = new Map(); // by the camera's name
const seeing = new IntersectionObserver((entries) => {
  for (const entry of entries) entry.target.shot.seen = entry.isIntersecting;
}, { rootMargin: "100px" });

export const hashOf = (name) => "#camera=" + encodeURIComponent(name);

function make(name) {
  const place = element("div", { className: "shot" });
  const kind = element("span", { className: "kind" });
  const link = element("a", { href: hashOf(name), textContent: name });
  const state = element("p", { className: "state" });
  const reason = element("p", { className: "reason" });
  const figures = element("dl");
  const node = element("li", { className: "tile" },
    place, element("div", { className: "head" }, element("h2", {}, link), state), reason, figures);
  const tile = { node, kind, state, reason, figures, camera: null };
  tile.shot = node.shot = shot(place, () => tile.camera && { name, frames: tile.camera.processed }, 640);
  place.append(kind);
  seeing.observe(node);
  return tile;
}

export function show(cameras) {
  const names = new Set(cameras.map((camera) => camera.name));
  for (const [name, tile] of tiles) {
    if (names.has(name)) continue;
    seeing.unobserve(tile.node);
    forget(tile.shot);
    tile.node.remove();
    tiles.delete(name);
  }
  cameras.forEach((camera, position) => {
    if (!tiles.has(camera.name)) tiles.set(camera.name, make(camera.name));
    const tile = tiles.get(camera.name);
    if (list.children[position] !== tile.node) list.insertBefore(tile.node, list.children[position] ?? null);
    if (camera.processed < (tile.camera?.processed ?? 0)) clear(tile.shot); // added again
    tile.camera = camera;
    tile.node.dataset.state = camera.state;
    setText(tile.state, stateText(camera));
    setText(tile.kind, camera.kind);
    tile.kind.hidden = !camera.kind;
    tile.kind.dataset.kind = camera.kind;
    setText(tile.reason, camera.reason);
    tile.reason.hidden = !camera.reason;
    facts(tile.figures, camera);
  });
  document.getElementById("none").hidden = cameras.length > 0;
}

// Arrows go from tile to tile, as the grid lies.
list.addEventListener("keydown", (event) => {
  const links = [...list.querySelectorAll("h2 a")];
  const here = links.indexOf(document.activeElement);
  if (here < 0 || event.altKey || event.ctrlKey || event.metaKey) return;
  const columns = getComputedStyle(list).gridTemplateColumns.split(" ").length;
  const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns };
  const to = { Home: 0, End: links.length - 1 }[event.key] ?? here + (steps[event.key] ?? NaN);
  if (!links[to]) return;
  event.preventDefault();
  links[to].focus();
});

export const focusTile = (name) => tiles.get(name)?.node.querySelector("a").focus();

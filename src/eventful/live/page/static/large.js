// One camera, large, with its history.
import { ask, cameraPath } from "./api.js";
import { facts } from "./facts.js";
import { clear, shot } from "./pictures.js";
import { Plot } from "./plot.js";
import { focusTile, hashOf } from "./tiles.js";
import { setText, stateText } from "./words.js";

const EVERY = 1000; // ms between two looks at the history
const MOST = 1000;
const byId = (id) => document.getElementById(id);
const dialog = byId("large");
const plot = new Plot(byId("plot"));
const picture = shot(byId("large-shot"), () => camera && { name: camera.name, frames: camera.processed }, 1280);
let cameras = [];
let camera = null;
let history = null;
let last = null; // the name of the camera that was large last

const named = () => {
  const [key, value = ""] = location.hash.slice(1).split("=");
  try {
    return key === "camera" ? decodeURIComponent(value) : null;
  } catch {
    return null;
  }
};

export function show(known) {
  cameras = known;
  follow();
}

function follow() {
  const found = cameras.find((each) => each.name === named()) ?? null;
  if (found?.name !== camera?.name) {
    clear(picture);
    history = null;
    plot.clear();
  }
  camera = found;
  if (camera === null) {
    if (dialog.open) dialog.close();
    return;
  }
  last = camera.name;
  draw();
  if (!dialog.open) {
    dialog.showModal();
    askHistory();
  }
}

function draw() {
  dialog.dataset.state = camera.state;
  setText(byId("large-name"), camera.name);
  setText(byId("large-state"), stateText(camera) + (camera.kind ? ` · last frame ${camera.kind}` : ""));
  setText(byId("large-reason"), camera.reason);
  byId("large-reason").hidden = !camera.reason;
  setText(byId("large-source"), camera.source);
  facts(byId("large-facts"), camera, true);
}

let asking = false;
async function askHistory() {
  if (asking || !camera || !dialog.open || document.hidden) return;
  asking = true;
  const { name } = camera;
  try {
    const since = history?.time.at(-1) ?? 0;
    const newer = await (await ask("GET", cameraPath(name, `/history?since=${since}`))).json();
    if (camera?.name === name) {
      delete newer.camera;
      const joined = Object.entries(newer).map(([key, list]) => [key, [...(history?.[key] ?? []), ...list].slice(-MOST)]);
      history = Object.fromEntries(joined);
      plot.draw(history);
    }
  } catch {
    // The next look comes soon, and the page says when the server is away.
  }
  asking = false;
}
setInterval(askHistory, EVERY);

function step(by) {
  const here = cameras.findIndex((each) => each.name === named());
  const next = cameras[(here + by + cameras.length) % cameras.length];
  if (next) location.replace(hashOf(next.name));
}

addEventListener("hashchange", () => {
  follow();
  askHistory();
});
dialog.addEventListener("close", () => {
  camera = null;
  if (named() !== null) window.history.pushState(null, "", location.pathname);
  focusTile(last);
  disarm();
});
dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
dialog.addEventListener("keydown", (event) => {
  if (event.target.closest("#plot")) return; // arrows move along the plot there
  if (event.key === "ArrowRight") step(1);
  if (event.key === "ArrowLeft") step(-1);
});
byId("previous").addEventListener("click", () => step(-1));
byId("next").addEventListener("click", () => step(1));
byId("close").addEventListener("click", () => dialog.close());

// A second press within some seconds removes: an answer to "really?" without another window.
const remove = byId("remove");
let armed = null;
const disarm = () => {
  clearTimeout(armed);
  armed = null;
  remove.textContent = "Remove this camera";
};
remove.addEventListener("click", async () => {
  if (armed === null) {
    remove.textContent = "Press again to remove it";
    armed = setTimeout(disarm, 4000);
    return;
  }
  disarm();
  try {
    await ask("DELETE", cameraPath(camera.name));
    dialog.close();
  } catch (error) {
    remove.textContent = error.message;
  }
});

// Fetches pictures, one at a time, of what can be seen and has changed.
import { cameraPath } from "./api.js";
import { element } from "./words.js";

const EVERY = 1000; // ms from one picture of a camera to the next
const shots = new Set();

// A place for a camera's picture; `wanted()` gives its name and the frames that it has had.
export function shot(place, wanted, width) {
  const image = element("img", { alt: "", draggable: false, hidden: true });
  const nothing = element("p", { className: "nothing", textContent: "no picture yet" });
  place.append(image, nothing);
  const made = { place, image, nothing, wanted, width, seen: true, shown: null, at: 0 };
  shots.add(made);
  return made;
}

export const forget = (made) => {
  shots.delete(made);
  clear(made);
};

export function clear(made) {
  if (made.image.src) URL.revokeObjectURL(made.image.src);
  made.image.removeAttribute("src");
  made.image.hidden = true;
  made.nothing.hidden = false;
  made.shown = null;
}

async function fetchOne(made) {
  const { name, frames } = made.wanted();
  const key = `${frames} ${name}`;
  if (made.shown === key || frames === 0) return false;
  made.at = performance.now();
  const answer = await fetch(cameraPath(name, `/picture?width=${made.width}`));
  if (answer.status === 404) made.shown = key; // there is none before the next frame
  if (!answer.ok || !shots.has(made)) return true;
  const next = URL.createObjectURL(await answer.blob());
  const old = made.image.src;
  made.image.src = next;
  await made.image.decode().catch(() => {});
  if (old) URL.revokeObjectURL(old);
  if (made.wanted().name !== name) return true; // another camera by now
  made.image.hidden = false;
  made.nothing.hidden = true;
  made.shown = key;
  return true;
}

async function turn() {
  const due = [...shots].filter((made) => made.seen && made.wanted() && performance.now() - made.at >= EVERY);
  due.sort((one, other) => one.at - other.at);
  let asked = false;
  for (const made of document.hidden ? [] : due) {
    try {
      asked = await fetchOne(made);
    } catch {
      asked = true; // the server is away; the page says so elsewhere
    }
    if (asked) break;
  }
  setTimeout(turn, asked ? 20 : 100);
}
turn();

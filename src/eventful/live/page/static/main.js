// Follows the state of all cameras and hands it to the parts of the page.
import { allowed } from "./adding.js";
import { ask } from "./api.js";
import * as controls from "./controls.js";
import * as large from "./large.js";
import * as tiles from "./tiles.js";
import { ago, decimal, element, percent, rate, setText, times } from "./words.js";

const link = document.getElementById("link");
const RECENT = 10; // seconds over which the share that was computed is taken
const past = []; // [time, {name: [operations, dense operations]}]

// Shares of the last seconds, from how counts have grown.
function addRecent(status) {
  const counts = Object.fromEntries(
    status.cameras.map((camera) => [camera.name, [camera.operations, camera.dense_operations]]));
  while (past.length > 1 && status.now - past[1][0] >= RECENT) past.shift();
  for (const camera of status.cameras) {
    const [operations, dense] = past.map(([, each]) => each[camera.name]).find((each) => each) ?? [0, 0];
    const grown = camera.dense_operations - dense;
    camera.recent = grown > 0 ? (camera.operations - operations) / grown : camera.share;
  }
  past.push([status.now, counts]);
}

const TOTALS = [
  ["cameras", (all) => `${all.filter((camera) => camera.state === "live").length} of ${all.length} live`],
  ["results", (all) => rate(sum(all, "rate"))],
  ["estimated error", (all) => decimal(mean(all.map((camera) => camera.estimate)))],
  ["computed", (all) => percent(mean(all.map((camera) => camera.recent)))],
  ["operations saved", (all) => times(sum(all, "operations") / sum(all, "dense_operations"))],
];
const sum = (all, name) => all.reduce((total, camera) => total + camera[name], 0);
const mean = (values) => {
  const known = values.filter((value) => value != null);
  return known.length ? known.reduce((total, value) => total + value, 0) / known.length : null;
};

function showTotals(all) {
  const list = document.getElementById("totals");
  TOTALS.forEach(([term, value], position) => {
    if (!list.children[position]) {
      list.append(element("div", {}, element("dt", { textContent: term }), element("dd")));
    }
    setText(list.children[position].lastChild, value(all));
  });
}

function show(status) {
  addRecent(status);
  setText(document.getElementById("model"), `${status.model}, for ${ago(status.now - status.started)}`);
  showTotals(status.cameras);
  controls.show(status.policy);
  tiles.show(status.cameras);
  large.show(status.cameras);
  const lost = status.cameras.filter((camera) => camera.state === "waiting").length;
  document.title = lost ? `(${lost} away) Live cameras` : "Live cameras";
}

const SILENT = 30; // seconds; `/healthz` says no longer that all is well then
const isSilent = ({ silent }) => silent === null || silent > SILENT;
function linkText(status) {
  if (status.silent === null) return "▲ the watch has ended";
  return isSilent(status) ? `▲ nothing computed for ${ago(status.silent)}` : "● connected";
}

// Open only while somebody can see it.
let stream = null;
function follow() {
  if (document.hidden) {
    stream?.close();
    stream = null;
    setText(link, "paused");
    return;
  }
  if (stream) return;
  stream = new EventSource("/api/events");
  stream.addEventListener("status", (event) => {
    const status = JSON.parse(event.data);
    setText(link, linkText(status));
    document.body.classList.toggle("away", isSilent(status));
    show(status);
  });
  stream.addEventListener("error", () => {
    setText(link, "▲ no connection; figures are old");
    document.body.classList.add("away");
    if (stream?.readyState !== EventSource.CLOSED) return;
    stream = null; // refused: as the log-in has ended, or as too many look
    setTimeout(follow, 3000);
    ask("GET", "/api/policy").catch(() => {});
  });
}

document.addEventListener("visibilitychange", follow);
const leave = document.getElementById("leave");
leave.addEventListener("click", async () => {
  await ask("DELETE", "/api/session");
  location.replace("/login");
});
ask("GET", "/api/status").then(async (answer) => {
  const status = await answer.json();
  allowed(status.allowed);
  leave.hidden = !status.token;
  show(status);
}).catch(() => {});
follow();

"use strict";
// Names of the model's author reach the page through textContent.
const data = JSON.parse(document.getElementById("data").textContent);
const $ = id => document.getElementById(id);
const marks = [...$("graph").querySelectorAll("g.op"), ...$("graph").querySelectorAll("g.parameter, g.leaf")];
const tabs = [...document.querySelectorAll(".tab")];
const whole = value => value.toLocaleString("en-US");
let replay, position, timer = 0;

function show() {
  const events = replay.events.slice(0, position), seen = new Set();
  let visits = 0, again = 0, last = false;
  for (const id of events) {
    last = seen.has(id);
    if (id < data.ops) { visits++; again += last; }
    seen.add(id);
  }
  marks.forEach((mark, id) => {
    mark.classList.toggle("seen", seen.has(id));
    mark.classList.toggle("now", events.length > 0 && id === events[position - 1]);
    mark.classList.toggle("again", last && id < data.ops && id === events[position - 1]);
  });
  $("visits").textContent = whole(visits);
  $("added").textContent = whole(position - visits);
  $("again").textContent = whole(again);
  const id = events[position - 1];
  $("now").textContent = id === undefined ? "Press step, or play."
    : id >= data.ops ? `A gradient is added into ${data.names[id]}.` : `${replay.name === "forward" ? "Value of" : "Rule of"} ${data.names[id]}${last ? "; computed before" : ""}.`;
  $("position").value = position;
  $("back").disabled = position === 0;
  $("step").disabled = position === replay.events.length;
}
function stop() { clearInterval(timer); timer = 0; $("play").textContent = "play"; }
function move(to) {
  position = Math.max(0, Math.min(replay.events.length, to));
  if (position === replay.events.length) stop();
  show();
}
function choose(k) {
  stop();
  replay = data.replays[k];
  tabs.forEach((tab, at) => tab.setAttribute("aria-pressed", at === k));
  $("position").max = replay.events.length;
  const all = replay.visits + replay.added;
  $("more").textContent = `In all: ${whole(replay.visits)} visits and ${whole(replay.added)} gradients added` +
    (all > replay.events.length ? `; the first ${whole(replay.events.length)} events are shown.` : ".");
  move(0);
}
tabs.forEach((tab, k) => tab.addEventListener("click", () => choose(k)));
$("back").addEventListener("click", () => { stop(); move(position - 1); });
$("step").addEventListener("click", () => { stop(); move(position + 1); });
$("position").addEventListener("input", event => { stop(); move(+event.target.value); });
$("play").addEventListener("click", () => {
  if (timer) return stop();
  if (position === replay.events.length) position = 0;
  $("play").textContent = "pause";
  timer = setInterval(() => move(position + 1), Math.max(60, Math.min(500, 12000 / replay.events.length)));
});
document.querySelector(".controls").hidden = false;
choose(1);

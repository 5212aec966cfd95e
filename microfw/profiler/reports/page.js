"use strict";
// Everything that comes from the model's author reaches the page through textContent or setAttribute of plain labels.
const view = JSON.parse(document.getElementById("data").textContent);
const K = Object.fromEntries(["site", ...view.numbers].map((name, k) => [name, k]));
const E = Object.fromEntries(view.keys.map((name, k) => [name, k]));
const MAX_ROWS = 200;
let chosen = -1; // an epoch's place, or -1 for all of them together

const $ = id => document.getElementById(id);
function make(space, tag, attributes, ...inside) {
  const made = space ? document.createElementNS(space, tag) : document.createElement(tag);
  for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
  for (const part of inside) made.append(part instanceof Node ? part : document.createTextNode(part));
  return made;
}
const el = (tag, attributes, ...inside) => make(null, tag, attributes, ...inside);
const svg = (tag, attributes, ...inside) => make("http://www.w3.org/2000/svg", tag, attributes, ...inside);
const put = (id, ...inside) => { $(id).replaceChildren(...inside); };

// Numbers

const whole = value => value < 1e12 ? Math.round(value).toLocaleString("en-US") : value.toExponential(2);
function short(value) {
  for (const [unit, size] of [["T", 1e12], ["G", 1e9], ["M", 1e6], ["k", 1e3]])
    if (value >= size) return +(value / size).toPrecision(3) + unit;
  return String(+value.toPrecision(3));
}
const unitOf = ns => [["s", 1e9], ["ms", 1e6], ["µs", 1e3]].find(([, size]) => ns >= size) || ["ns", 1];
function time(ns) {
  const [unit, size] = unitOf(ns);
  return `${+(ns / size).toPrecision(3)} ${unit}`;
}
const micro = ns => (ns / 1e3).toLocaleString("en-US", { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const percent = share => `${(100 * share).toFixed(1)}%`;
const proper = text => text.replaceAll(" x ", " × ");
const times = value => value < 1e6 ? whole(+value.toPrecision(3)) : short(value);
const layerName = k => view.names[k] === "" ? view.outside : view.names[k];
const titled = k => layerName(k) + (view.kinds[k] && view.kinds[k] !== view.names[k] ? " " + view.kinds[k] : "");

// What is described: an epoch, or all of them

const epoch = () => chosen < 0 ? view.total : view.epochs[chosen];
const rows = () => chosen < 0 || !view.rows ? view.all : view.rows[chosen];
const about = () => chosen < 0 || !view.rows
  ? (view.epochs.length === 1 ? "the only epoch" : `all ${view.epochs.length} epochs`) : `epoch ${epoch()[E.epoch]}`;
const described = () => chosen < 0 || !view.rows ? view.total : epoch();
const steps = () => described()[E.observed] || 1;

function summed(part) {
  const found = new Map();
  for (const row of rows()) {
    const key = view.sites[row[K.site]][part];
    if (!found.has(key)) found.set(key, row.map(() => 0));
    const sum = found.get(key);
    for (let k = 1; k < row.length; k++) sum[k] += row[k];
  }
  return found;
}
const untagged = phase => described()[E[`${phase}_ns`]] - rows().reduce((sum, row) => sum + row[K[`${phase}_ns`]], 0);

// Tables

const orders = {};
function table(id, columns, lines, last) {
  const order = orders[id] ||= { by: -1, down: true };
  if (order.by >= 0) {
    const key = line => line[order.by].sort ?? line[order.by].text;
    const way = order.down ? -1 : 1;
    lines = lines.map((line, k) => [line, k]).sort(([a, i], [b, j]) =>
      (key(a) < key(b) ? -way : key(a) > key(b) ? way : 0) || i - j).map(([line]) => line);
  }
  const head = el("tr", {}, ...columns.map((column, k) => {
    const cell = el("th", { scope: "col", class: column.class || "" });
    if (order.by === k) cell.setAttribute("aria-sort", order.down ? "descending" : "ascending");
    const button = el("button", { type: "button", title: column.says || "sort" }, ...[column.title].flat());
    button.addEventListener("click", () => {
      order.down = order.by === k ? !order.down : !column.words;
      order.by = k;
      draw();
      $(id).querySelectorAll("th button")[k].focus();
    });
    cell.append(button);
    return cell;
  }));
  const row = (line, kind) => el("tr", { class: kind }, ...line.map((cell, k) => {
    const made = el("td", { class: columns[k].class || "" }, ...(cell.nodes || [cell.text]));
    return made;
  }));
  const limit = order.all ? lines.length : MAX_ROWS;
  const body = el("tbody", {}, ...lines.slice(0, limit).map(line => row(line, "")), ...last.map(([line, kind]) => row(line, kind)));
  put(id, el("table", {}, el("thead", {}, head), body));
  if (lines.length > limit) {
    const more = el("button", { type: "button", class: "more" }, `Show all ${whole(lines.length)}`);
    more.addEventListener("click", () => { order.all = true; draw(); });
    $(id).append(more);
  }
}
const number = (value, text) => ({ text: value ? (text || short)(value) : "", sort: value });
function name(text, kind) {
  const made = el("bdi", { class: "name" }, text);
  made.title = text.length > 400 ? text.slice(0, 400) + "…" : text;
  return { nodes: kind ? [made, el("span", { class: "kind" }, kind)] : [made], sort: text };
}
function track(share, width) {
  return svg("svg", { width, height: 10, "aria-hidden": "true", class: "wide" }, svg("rect", { width, height: 10, rx: 2, class: "track" }),
    svg("rect", { width: Math.max(width * share, .5).toFixed(1), height: 10, rx: 2, class: "backward" }));
}
const share = value => ({ nodes: [percent(value), track(value, 48)], sort: value });

function drawLayers() {
  const n = steps(), backward = described()[E.backward_ns] || 1;
  const line = (first, row, size, weights, used = size) => [
    first, number(row[K.nodes] / n), number(size, whole), { text: micro(row[K.forward_ns] / n), sort: row[K.forward_ns] },
    { text: micro(row[K.backward_ns] / n), sort: row[K.backward_ns] }, share(row[K.backward_ns] / backward),
    number(row[K.flops_forward] / n), number(row[K.flops_backward] / n),
    number(used ? (row[K.flops_forward] + row[K.flops_backward]) / n / used : 0), number(weights ? row[K.products_weights] / 2 / n / weights : 0),
    number(row[K.saved_bytes] / n)];
  const columns = [
    { title: "layer", words: true }, { title: "nodes", class: "wide", says: "op nodes recorded in one step" },
    { title: "P", class: "wide", says: "trainable numbers of this layer" },
    { title: "forward µs", says: "time in the layer's ops" },
    { title: "backward µs", says: "time in the derivative rules of the layer's nodes" },
    { title: ["share", el("span", { class: "wide" }, ", bar 0–100%")], says: "of the backward pass" }, { title: "forward FLOP", class: "wide", says: "scalar operations, a multiply-add is 2" },
    { title: "backward FLOP", class: "wide" }, { title: "FLOP/P", class: "wide", says: "operations in one step for each trainable number that the layer uses, shared ones included" },
    { title: "reuse", class: "wide", says: "uses of each weight of the layer in products of one step: multiply-adds by weights" },
    { title: "saved bytes", class: "wide", says: "kept for backward" }];
  const lines = [...summed(0)].map(([k, row]) => line(name(layerName(k), view.kinds[k] !== view.names[k] ? view.kinds[k] : ""), row, view.sizes[k], view.weights[k], view.used[k]));
  const blank = { text: "" }, text = words => ({ text: words });
  const walk = [text("untagged"), blank, blank, text(micro(untagged("forward") / n)), text(micro(untagged("backward") / n)),
    share(untagged("backward") / backward), blank, blank, blank, blank, blank];
  const sum = rows().reduce((all, row) => all.map((v, k) => v + row[k]), view.numbers.reduce(a => [...a, 0], [0]));
  const total = line(text("total"), sum, described()[E.parameters]);
  total[3] = text(micro(described()[E.forward_ns] / n));
  total[4] = text(micro(described()[E.backward_ns] / n));
  total[5] = text("100.0%");
  table("layers", columns, lines, [[walk, "walk"], [total, "sum"]]);
  const part = described()[E.observed] !== described()[E.steps]
    ? `, sampled on ${whole(described()[E.observed])} of ${whole(described()[E.steps])} steps` : "";
  put("remarks", ...(chosen < 0 ? view.remarks.map(text => el("li", {}, `Epoch ${view.typical}, the median one: ${text}`)) : []));
  put("layers-note", `In one step, on average over ${about()}${part}. Untagged: time outside of ops and derivative rules. Reuse: uses of each weight in products. Layers and untagged time add up to the measured total exactly.`);
}

function drawOps() {
  const n = steps(), backward = described()[E.backward_ns] || 1;
  const columns = [{ title: "op", words: true }, { title: "nodes", class: "wide", says: "in one step" }, { title: "forward µs" }, { title: "backward µs" },
    { title: ["share", el("span", { class: "wide" }, ", bar 0–100%")], says: "of the backward pass" }, { title: "forward FLOP", class: "wide" }, { title: "backward FLOP", class: "wide" }];
  table("ops", columns, [...summed(1)].map(([k, row]) => [
    name(view.ops[k]), number(row[K.nodes] / n), { text: micro(row[K.forward_ns] / n), sort: row[K.forward_ns] },
    { text: micro(row[K.backward_ns] / n), sort: row[K.backward_ns] }, share(row[K.backward_ns] / backward),
    number(row[K.flops_forward] / n), number(row[K.flops_backward] / n)]), []);
}

// Epochs over time

const sampled = view.every > 1; // then a bar is one step
const PARTS = ["forward", "backward", "update", "data", ...(sampled ? [] : ["evaluation"]), "other",
  ...(sampled || !view.total[E.check_ns] ? [] : ["check"])];
const partName = part => part === "check" ? "comparing replays" : part;
function nice(most) {
  const size = 10 ** Math.floor(Math.log10(most || 1));
  const step = [1, 2, 5, 10].map(k => k * size / 5).find(step => most / step <= 5) || size;
  return Array.from({ length: Math.floor(most / step) + 1 }, (_, k) => k * step);
}
const mean = (bar, key) => bar.reduce((sum, e) => sum + e[E[key]], 0)
  / (sampled ? bar.reduce((sum, e) => sum + e[E.observed], 0) || 1 : bar.length);
function drawEpochs() {
  const n = view.epochs.length, width = $("epochs").clientWidth || 800, left = 52, high = 170, lossHigh = 64;
  const group = Math.ceil(n / Math.max(Math.floor((width - left) / 3), 1)); // at least 3 px a bar
  const bars = [];
  for (let k = 0; k < n; k += group) bars.push(view.epochs.slice(k, k + group));
  const stack = bar => PARTS.reduce((sum, part) => sum + mean(bar, `${part}_ns`), 0);
  const most = Math.max(...bars.map(stack), 1), unit = unitOf(most);
  const wide = (width - left) / bars.length, y = ns => 10 + high - high * ns / most;
  const hasLoss = view.losses.filter(v => v !== null).length > 1;
  const height = high + 34 + (hasLoss ? lossHigh + 26 : 0);
  const picture = svg("svg", { height, viewBox: `0 0 ${width} ${height}`, role: "slider", tabindex: 0, "aria-label": "Epoch to describe",
    "aria-valuemin": 0, "aria-valuemax": n, "aria-valuenow": chosen + 1, "aria-valuetext": about() });
  for (const tick of nice(most / unit[1])) {
    const at = y(tick * unit[1]);
    picture.append(svg("line", { x1: left, x2: width, y1: at, y2: at, class: "grid" }),
      svg("text", { x: left - 6, y: at + 4, "text-anchor": "end" }, `${+tick.toPrecision(3)}${tick ? "" : " " + unit[0]}`));
  }
  const every = Math.ceil(bars.length / Math.max(Math.floor((width - left) / 44), 1));
  bars.forEach((bar, k) => {
    let ns = 0;
    const x = left + k * wide, gap = wide > 6 ? Math.min(wide * .18, 6) : 0;
    for (const part of PARTS) {
      const more = mean(bar, `${part}_ns`);
      picture.append(svg("rect", { x: x + gap / 2, y: y(ns + more), width: Math.max(wide - gap, .5), height: Math.max(y(ns) - y(ns + more), 0), class: part }));
      ns += more;
    }
    if (k % every === 0) picture.append(svg("text", { x: x + wide / 2, y: high + 26, "text-anchor": "middle" }, bar[0][E.epoch]));
    if (chosen >= k * group && chosen < (k + 1) * group)
      picture.append(svg("rect", { x, y: y(ns) - 3, width: wide, height: y(0) - y(ns) + 4, class: "chosen" }));
  });
  if (hasLoss) {
    const values = view.losses.map((v, k) => [v, k]).filter(([v]) => v !== null);
    const top = Math.max(...values.map(([v]) => v)), low = Math.min(...values.map(([v]) => v), 0), base = height - 8;
    const point = ([v, k]) => `${left + (k + .5) / n * (width - left)},${base - lossHigh * (v - low) / (top - low || 1)}`;
    picture.append(svg("line", { x1: left, x2: width, y1: base, y2: base, class: "grid" }),
      svg("text", { x: left - 6, y: base - lossHigh + 8, "text-anchor": "end" }, +top.toPrecision(3)),
      svg("text", { x: left - 6, y: base, "text-anchor": "end" }, `${+low.toPrecision(3)}`),
      svg("text", { x: width, y: base - lossHigh, "text-anchor": "end" }, "loss"),
      svg("polyline", { points: values.map(point).join(" "), class: "loss" }));
  }
  bars.forEach((bar, k) => {
    const pick = svg("rect", { x: left + k * wide, y: 0, width: wide, height, class: "pick" });
    pick.addEventListener("click", () => choose(k * group));
    pick.addEventListener("mouseenter", () => put("epoch-says", says(k * group)));
    pick.addEventListener("mouseleave", () => put("epoch-says", says(chosen)));
    picture.append(pick);
  });
  picture.addEventListener("keydown", event => {
    const to = { ArrowRight: chosen + group, ArrowUp: chosen + group, ArrowLeft: chosen - group, ArrowDown: chosen - group, Home: 0, End: n - 1, Escape: -1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    choose(Math.max(-1, Math.min(n - 1, to)));
    $("epochs").firstChild.focus();
  });
  put("epochs", picture);
  put("epoch-says", says(chosen));
}
function says(k) {
  const e = k < 0 ? view.total : view.epochs[k];
  const parts = PARTS.map(part => `${partName(part)} ${time(mean([e], `${part}_ns`))}`);
  const loss = k >= 0 && view.losses[k] !== null ? `, loss ${+view.losses[k].toPrecision(4)}` : "";
  const metric = k >= 0 && view.metric && view.metrics[k] !== null ? `, ${view.metric} ${+view.metrics[k].toPrecision(4)}` : "";
  const of = sampled ? `${whole(e[E.observed])} of them observed${e[E.observed] ? `, in one of which ${parts.join(", ")}` : ""}` : parts.join(", ");
  return `${k < 0 ? (view.epochs.length > 1 ? "All epochs" : "The only epoch") : "Epoch " + e[E.epoch]}: ${whole(e[E.steps])} steps, ${of}; ${time(e[E.total_ns])} in all${loss}${metric}`;
}
const observed = k => !sampled || k < 0 || view.epochs[k][E.observed] > 0;
function choose(k) {
  const next = k < chosen ? -1 : 1;
  while (k < view.epochs.length && !observed(k)) k += next; // an epoch without an observed step has no numbers of a step
  if (k === view.epochs.length) return;
  chosen = k;
  $("epoch").value = String(k);
  draw();
}

// The flame graph: a tree of times, its root above

function tree() {
  const n = steps(), e = described();
  const root = { name: "one step", kind: "root", ns: 0, inside: [] };
  for (const phase of ["forward", "backward"]) {
    const top = { name: phase, kind: phase, ns: e[E[`${phase}_ns`]] / n, inside: [] };
    const layers = new Map();
    const layer = k => {
      if (k < 0 || view.names[k] === "") return top;
      if (!layers.has(k)) {
        const made = { name: titled(k), kind: phase, ns: 0, inside: [] };
        layers.set(k, made);
        layer(view.parents[k]).inside.push(made);
      }
      return layers.get(k);
    };
    for (const row of phase === "forward" ? rows() : rows().toReversed()) {
      const ns = row[K[`${phase}_ns`]] / n, [k, op] = view.sites[row[K.site]];
      if (!ns) continue;
      layer(k).inside.push({ name: view.ops[op], kind: phase, ns, inside: [] });
      for (let at = k; at >= 0 && view.names[at] !== ""; at = view.parents[at]) layer(at).ns += ns;
    }
    top.inside.push({ name: "untagged", kind: "rest", ns: untagged(phase) / n, inside: [] });
    root.inside.push(top);
  }
  root.inside.push({ name: "update", kind: "update", ns: e[E.update_ns] / n, inside: [] });
  root.ns = root.inside.reduce((sum, part) => sum + part.ns, 0);
  const link = (node, depth) => { node.depth = depth; for (const part of node.inside) { part.up = node; link(part, depth + 1); } };
  link(root, 0);
  return root;
}
let flame, zoomed, current;
function drawFlame(focus) {
  const width = $("flame").clientWidth || 800, row = 27;
  const boxes = [];
  const lay = (node, x, wide, depth) => {
    if (wide < .5) return;
    boxes.push({ node, x, wide, depth });
    const all = node.ns || 1;
    for (const part of node.inside) { const w = wide * part.ns / all; lay(part, x, w, depth + 1); x += w; }
  };
  const above = [];
  for (let node = zoomed.up; node; node = node.up) above.unshift(node);
  above.forEach((node, k) => boxes.push({ node, x: 0, wide: width, depth: k }));
  lay(zoomed, 0, width, above.length);
  const base = row * (Math.max(...boxes.map(box => box.depth)) + 1), height = base + 20;
  if (!boxes.some(box => box.node === current)) current = zoomed;
  const picture = svg("svg", { height, viewBox: `0 0 ${width} ${height}`, role: "tree", "aria-label": "Time of one step" });
  for (const { node, x, wide, depth } of boxes) {
    const g = svg("g", { role: "treeitem", tabindex: node === current ? 0 : -1, "aria-level": depth + 1, "aria-label": words(node) },
      svg("rect", { x, y: depth * row, width: wide, height: row, class: `${node.kind} deep${Math.min(node.depth, 3)}` }));
    const fits = Math.floor((wide - 8) / 7);
    if (fits >= 2) g.append(svg("text", { x: x + 5, y: depth * row + 18 }, node.name.length > fits ? node.name.slice(0, fits - 1) + "…" : node.name));
    g.addEventListener("mouseenter", () => put("flame-says", words(node)));
    g.addEventListener("focus", () => put("flame-says", words(node)));
    g.addEventListener("click", () => zoom(node));
    g.addEventListener("keydown", event => walk(event, node));
    node.box = g;
    picture.append(g);
  }
  const [unit, size] = unitOf(zoomed.ns), ticks = nice(zoomed.ns / size);
  for (const tick of ticks) {
    const x = width * tick * size / (zoomed.ns || 1);
    picture.append(svg("line", { x1: x, x2: x, y1: base, y2: base + 5, class: "grid" }));
    if (x < width - 30) picture.append(svg("text", { x, y: base + 17, class: "tick", "text-anchor": tick ? "middle" : "start" }, `${+tick.toPrecision(3)}${tick ? "" : " " + unit}`));
  }
  picture.addEventListener("mouseleave", () => put("flame-says", words(current)));
  put("flame", picture);
  put("flame-says", words(current));
  if (focus) current.box.focus();
}
function words(node) {
  const path = [];
  for (let at = node; at.up; at = at.up) path.unshift(at.name.length > 200 ? at.name.slice(0, 200) + "…" : at.name);
  return `${path.join(" › ") || "One step"}: ${time(node.ns)}, ${percent(node.ns / (flame.ns || 1))} of the step`
    + (node.up && node.up.up ? `, ${percent(node.ns / (node.up.ns || 1))} of ${node.up.name.slice(0, 60)}` : "");
}
function zoom(node) {
  zoomed = current = node;
  drawFlame(true);
}
function walk(event, node) {
  const beside = node.up ? node.up.inside.filter(part => part.box && part.box.isConnected) : [node];
  const at = beside.indexOf(node);
  const to = { ArrowUp: node.up, ArrowDown: node.inside.find(part => part.box && part.box.isConnected), ArrowLeft: beside[at - 1], ArrowRight: beside[at + 1], Home: flame, End: beside.at(-1) }[event.key];
  if (event.key === "Enter" || event.key === " ") zoom(node);
  else if (event.key === "Escape") zoom(zoomed.up || flame);
  else if (to) { current = to; drawFlame(true); }
  else if (!event.key.startsWith("Arrow")) return;
  event.preventDefault();
}

// The rest

function drawSaved() {
  const n = steps();
  const lines = [...summed(0)].map(([k, row]) => [k, row[K.saved_bytes] / n]).filter(([, bytes]) => bytes).sort((a, b) => b[1] - a[1]);
  if (!lines.length) return put("saved", el("p", {}, "Nothing was saved."));
  const width = $("saved").clientWidth || 400, row = 30, label = Math.min(150, width * .38), shown = lines.slice(0, 12);
  const most = shown[0][1], room = width - label - 64;
  const base = row * shown.length;
  const picture = svg("svg", { height: base + 20, viewBox: `0 0 ${width} ${base + 20}`, role: "img",
    "aria-label": shown.map(([k, bytes]) => `${titled(k).slice(0, 80)}: ${whole(bytes)} bytes`).join("; ") });
  shown.forEach(([k, bytes], at) => {
    const fits = Math.floor(label / 7), text = titled(k);
    picture.append(svg("text", { x: 0, y: at * row + 19 }, text.length > fits ? text.slice(0, fits - 1) + "…" : text),
      svg("rect", { x: label, y: at * row + 5, width: Math.max(room * bytes / most, 1), height: row - 10, rx: 3, class: "data" }),
      svg("text", { x: label + room * bytes / most + 6, y: at * row + 19 }, short(bytes)));
  });
  picture.append(svg("line", { x1: label, x2: label + room, y1: base, y2: base, class: "grid" }),
    svg("text", { x: label, y: base + 16 }, "0 bytes"), svg("text", { x: label + room, y: base + 16, "text-anchor": "middle" }, short(most)));
  put("saved", picture);
  $("saved").append(el("p", { class: "quiet" }, `Peak: ${whole(described()[E.saved_peak_bytes])} bytes, when a backward pass began.`));
  if (lines.length > 12) $("saved").append(el("p", { class: "quiet" }, `and ${lines.length - 12} layers with less`));
}
function countTable(id, rows, about) {
  const cell = value => el("td", {}, value === null ? "" : typeof value === "number" ? whole(value) : value);
  const head = el("tr", {}, ...[about, "in scalars", "in tensors"].map(text => el("th", { scope: "col" }, text)));
  put(id, el("table", {}, el("thead", {}, head), el("tbody", {}, ...rows.map(([word, scalars, tensors, text]) =>
    el("tr", {}, el("td", {}, el("b", {}, proper(word)), el("span", { class: "meaning" }, proper(text))), cell(scalars), cell(tensors))))));
}
function drawCounts() {
  const counts = (chosen >= 0 && view.epoch_counts?.[chosen]) || view.counts; // null: those of all epochs
  const line = Object.fromEntries(counts.map(([word, scalars]) => [word, scalars]));
  const { N, P, "backward steps": steps, "N x P": bound } = line;
  countTable("counts", counts, "in one step");
  put("law");
  put("bars-law");
  if (!steps) return;
  put("law", `One backward pass gives all ${whole(P)} derivatives in ${whole(steps)} steps, ${(steps / (N + P)).toFixed(2)} × (N + P). `
    + `Starting over for each parameter could take N × P = ${whole(bound)} visits, ${whole(bound / steps)} times as many.`);
  const bar = (text, value, kind) => [el("span", {}, text), el("div", { class: "track" },
    svg("svg", { width: "100%", height: 12, role: "img", "aria-label": `${text}: ${whole(value)}` },
      svg("rect", { width: `${Math.max(100 * value / bound, .1)}%`, height: 12, class: kind })))];
  put("bars-law", ...bar("steps", steps, "backward"), ...bar("N × P", bound, "rest"), el("span", {}), el("p", { class: "scale" }, el("span", {}, "0"), el("span", {}, whole(bound))));
}
function drawRatio() {
  const { operations, products, predicted, seconds, exact, says } = chosen < 0 ? view.ratio : view.ratios[chosen];
  const list = el("dl", {});
  const say = (value, digits, text) => { if (value !== null) list.append(el("dt", {}, value.toFixed(digits)), el("dd", {}, text)); };
  say(operations, 3, "in scalar operations");
  say(products, 3, "in matrix products alone");
  say(predicted, 3, `predicted for products by 3 − F₁/F: one more product for each factor that needs a gradient; F₁ counts factors that need none, such as data. ${says}`);
  say(seconds, 3, "in seconds");
  put("ratio", list);
  const two = value => ({ text: value === null ? "" : value.toFixed(2), sort: value });
  if (view.epochs.length > 1) table("ratios", [{ title: "epoch" }, { title: "in operations" }, { title: "in products" }, { title: "3F − F₁" }, { title: "in seconds" }],
    view.epochs.map((e, k) => [{ text: String(e[E.epoch]), sort: e[E.epoch] }, two(view.ratios[k].operations), two(view.ratios[k].products),
      { text: view.ratios[k].products === null ? "" : view.ratios[k].exact ? "equal" : "differs" }, two(view.ratios[k].seconds)]), []);
  put("why", `Published bounds on this ratio, which is 1 more than backward/forward, and what they count: ${view.bounds.join("; ")}. ${view.why}`);
}

// The law

function drawLaw() {
  const law = view.law;
  $("strategies").hidden = false;
  put("law-title", law.title);
  put("law-says", proper(law.says));
  put("law-legend", law.legend);
  put("law-note", law.note ? law.note[0].toUpperCase() + law.note.slice(1) + "." : "");
  countTable("law-counts", law.counts.map(([word, tensors, scalars, text]) => [word, scalars, tensors, text]), "");
  const most = Math.max(...law.ways.map(way => way.operations || 1), 10);
  const bar = value => track(value / most, 72);
  const cell = (value, text) => value === null ? { text: "" , sort: -1 } : { text: text(value), sort: value };
  const columns = [{ title: "strategy", words: true }, { title: "rule calls" }, { title: "losses", class: "wide" },
    { title: ["scalar ops", el("span", { class: "wide" }, `, bar 0 to ${short(most)}`)] }, { title: "seconds" }, { title: "peak bytes", class: "wide" }, { title: "difference", class: "wide" }];
  const margin = (made, way, what, write) => {  // from an extrapolated number to the end of its interval
    const half = way.margins[what];
    if (half === undefined) return made;
    const { text, nodes } = made;
    return { nodes: [...(nodes || [text]), el("span", { class: "kind" }, ` ± ${write(half)}`)], sort: made.sort };
  };
  const lines = law.ways.map(way => [
    name(way.name, `on ${way.graph}` + (way.sampled ? `, extrapolated from ${whole(way.done)} of ${whole(way.of)}` : way.note ? ", not run" : "")),
    margin(cell(way.rules, whole), way, "rules", value => whole(Math.round(value))), cell(way.rules === null ? null : way.forwards, whole),
    way.operations === null ? { text: "", sort: -1 } : margin({ nodes: [short(way.operations), bar(way.operations)], sort: way.operations }, way, "operations", short),
    margin(cell(way.seconds, value => time(1e9 * value)), way, "seconds", value => time(1e9 * value)), cell(way.peak_bytes, short), cell(way.difference, value => value ? value.toExponential(0) : "0")]);
  table("ways", columns, lines, []);
  for (const way of law.ways) if (way.note) $("ways").append(el("p", { class: "quiet" }, `${way.name}: ${way.note}.`));
  const layers = [{ title: "layer", words: true }, { title: "P" }, { title: "forward ops", class: "wide" }, { title: "backward ops", class: "wide" },
    { title: "ops per P and row" }, { title: "uses per P and row", says: "uses of each number by one row of data: 1 in a dense layer, one for each position in a convolution" }];
  const digits = value => value.toLocaleString("en-US", { minimumFractionDigits: 2, maximumFractionDigits: 2 });
  table("law-layers", layers, law.layers.map(([layer, kind, P, forward, backward, cost, uses]) => [
    name(layer || view.outside, kind), number(P, whole), number(forward, whole), number(backward, whole), cell(cost, digits), cell(uses, digits)]), []);
}
function drawTop() {
  put("title", el("bdi", {}, [view.name, view.model].filter(Boolean).join(", ") || "a model"));
  const facts = [`${view.epochs.length} epochs`, `${whole(view.total[E.steps])} steps`];
  if (view.trainable) facts.push(`${whole(view.trainable)} trainable parameters`);
  if (view.frozen) facts.push(`${whole(view.frozen)} frozen`);
  if (view.every > 1) facts.push(`sampled: ${whole(view.total[E.observed])} of ${whole(view.total[E.steps])} steps`);
  put("facts", [...facts, ...view.notes].join(" · "));
  $("epoch").append(el("option", { value: -1 }, view.epochs.length > 1 ? "all epochs together" : "the only epoch"));
  if (view.epochs.length > 1) view.epochs.forEach((e, k) => $("epoch").append(el("option", observed(k) ? { value: k } : { value: k, disabled: "" }, `epoch ${e[E.epoch]}`)));
  $("epoch").addEventListener("change", () => choose(Number($("epoch").value)));
  if (sampled) put("bars", "By epoch, the time of one observed step.");
  put("legend", ...PARTS.map(part => el("span", {}, el("i", { class: part }), partName(part))));
  const foot = Object.entries({ Python: "python", NumPy: "numpy", "": "system", " ": "machine", "BLAS threads:": "blas_threads" })
    .filter(([, key]) => view.environment[key]).map(([word, key]) => `${word.trim()} ${view.environment[key]}`.trim());
  if (view.overhead) foot.push(view.overhead);
  put("footer", foot.join(" · "));
}
function drawTiles() {
  const e = described(), n = steps();
  const tile = (big, small) => el("div", { class: "tile" }, el("b", {}, big), el("span", {}, small));
  const layers = [...summed(0)].sort((a, b) => b[1][K.backward_ns] - a[1][K.backward_ns]);
  const tiles = [tile(time(e[E.backward_ns] / n), "backward, in one step"),
    tile(e[E.forward_ns] ? (e[E.backward_ns] / e[E.forward_ns]).toFixed(2) : "–", "times as long as forward"),
    tile(short(e[E.parameters]), "derivatives in one pass")];
  if (layers.length) tiles.push(tile(percent(layers[0][1][K.backward_ns] / (e[E.backward_ns] || 1)), `of backward is ${titled(layers[0][0]).slice(0, 60)}`));
  put("tiles", ...tiles);
}
function draw() {
  if (view.law) drawLaw();
  if (!view.epochs.length) return;
  flame = zoomed = current = tree();
  for (const part of [drawTiles, drawCounts, drawEpochs, drawFlame, drawLayers, drawOps, drawSaved, drawRatio]) part();
}
function drawNone() {
  if (!view.law) return put("facts", "No epoch was recorded.");
  for (const section of document.querySelectorAll("main > section:not(#strategies), main > .two")) section.remove();
  put("facts", "");
  draw();
}
function start() {
  drawTop();
  if (!view.epochs.length) return drawNone();
  draw();
  let width = innerWidth;
  addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; drawEpochs(); drawFlame(); drawSaved(); } });
  for (const when of ["beforeprint", "afterprint"]) addEventListener(when, () => { drawEpochs(); drawFlame(); drawSaved(); });
}
start();

// The controls of the page on N + P. Without this script the page shows each figure in its last state.
// Visits, gradients and counts come from the build; nothing is computed here but their sums so far.
"use strict";

(() => {
  const data = JSON.parse(document.getElementById("law-page-data").textContent);
  const find = (root, selector) => root.querySelector(selector);
  const all = (root, selector) => [...root.querySelectorAll(selector)];
  const text = (x) => String(+x.toPrecision(6));
  const whole = (x) => x.toLocaleString("en-US");
  const reveal = (root) => all(root, "[hidden]").forEach((e) => (e.hidden = false));
  const calm = matchMedia("(prefers-reduced-motion: reduce)");

  function walk(figure) {
    const graph = data[figure.dataset.graph];
    const box = (name) => find(figure, `[data-name="${name}"]`);
    const says = find(figure, ".says");
    const form = find(figure, ".guess");
    const forward = graph.nodes.length;
    let story, done, timer;

    function choose(strategy) {
      story = graph.walks[strategy];
      go(0);
    }

    // Show the first `count` events: the values of forward, then the visits.
    function go(count) {
      clearTimeout(timer);
      done = Math.max(0, Math.min(count, forward + story.events.length));
      const visits = {}, total = {};
      let added = 0, last = null;
      if (done > forward) total[graph.nodes[forward - 1][0]] = 1;
      for (const event of story.events.slice(0, Math.max(0, done - forward))) {
        if (last && last.of !== event.of) {
          for (const [name] of graph.nodes) delete total[name];
          total[graph.nodes[forward - 1][0]] = 1;
        }
        visits[event.node] = (visits[event.node] || 0) + 1;
        for (const part of event.sends) {
          total[part.to] = part.total;
          added += part.leaf;
        }
        last = event;
      }
      for (const [name] of [...graph.parameters, ...graph.nodes])
        find(box(name), "[data-gradient]").textContent = name in total ? text(total[name]) : "";
      graph.nodes.forEach(([name, , value], k) => {
        const one = box(name), times = visits[name] || 0;
        find(one, "[data-value]").textContent = k < done ? text(value) : "";
        find(one, "[data-visits]").textContent = times;
        one.classList.toggle("visited", times > 0);
        one.classList.toggle("repeated", times > 1);
        one.classList.toggle("now", last ? last.node === name : k === done - 1 && done <= forward);
        one.classList.toggle("again", Boolean(last && last.node === name && last.again));
      });
      for (const edge of all(figure, ".edge"))
        edge.classList.toggle("live", Boolean(last && last.node === edge.dataset.to &&
          last.sends.some((part) => part.to === edge.dataset.from)));
      const count_of = { visits: last ? done - forward : 0, added };
      count_of.steps = count_of.visits + added;
      for (const [name, value] of Object.entries(count_of)) find(figure, `[data-count="${name}"]`).textContent = value;
      says.textContent = last ? last.says : done ? `Compute ${graph.nodes[done - 1][1]} = ${text(graph.nodes[done - 1][2])}.`
        : "Nothing is computed yet. Press Forward, or Next visit.";
      if (done === forward + story.events.length)
        says.textContent += " Done: " + Object.entries(story.found).map(([name, g]) => `g(${name}) = ${text(g)}`).join(", ") + ".";
      for (const button of all(figure, "[data-do]"))
        button.disabled = { restart: !done, forward: done >= forward, back: next() === undefined && done >= forward,
          step: next() === undefined && done >= forward }[button.dataset.do];
      if (form) {
        find(form, "[data-ask]").textContent = done >= forward && next() ? `g(${next().node})` : "the next g";
        find(form, "input").value = find(form, "[data-answer]").textContent = "";
        all(form, "input, button").forEach((e) => (e.disabled = done < forward || !next()));
      }
    }

    const next = () => story.events[done - forward];

    function play(end) {
      if (calm.matches) return go(end);
      go(done + 1);
      if (done < end) timer = setTimeout(() => play(end), 600);
    }

    const actions = {
      restart: () => go(0),
      forward: () => play(forward),
      back: () => (done < forward && go(forward), play(forward + story.events.length)),
      step: () => go(done + 1),
    };
    for (const button of all(figure, "[data-do]"))
      button.addEventListener("click", () => {
        actions[button.dataset.do]();
        if (button.disabled) (all(figure, "[data-do]").find((b) => !b.disabled) || button).focus();
      });
    for (const radio of all(figure, ".tabs input")) radio.addEventListener("change", () => choose(radio.value));
    for (const edge of all(figure, ".edge"))
      for (const when of ["mouseenter", "focus"])
        edge.addEventListener(when, () => (says.textContent = edge.getAttribute("aria-label")));
    if (form)
      form.addEventListener("submit", (event) => {
        event.preventDefault();
        const typed = find(form, "input").value.trim().replace(",", "."), g = next() && next().g;
        const right = typed !== "" && Math.abs(Number(typed) - g) < 1e-6;
        find(form, "[data-answer]").textContent = right ? "Right. Now press Next visit."
          : "Not yet: add up the contributions of its users, each g times the local derivative.";
      });
    const strategy = () => (find(figure, ".tabs input:checked") || { value: figure.dataset.strategy }).value;
    choose(strategy());
    let before;
    addEventListener("beforeprint", () => { before = done; go(Infinity); });
    addEventListener("afterprint", () => go(before));
  }

  function neuron(figure) {
    const button = find(figure, "button"), N = find(figure, "[data-count=N]"), nodes = N.textContent;
    function open(yes) {
      figure.classList.toggle("open", yes);
      button.textContent = yes ? "Close the neuron" : "Open the neuron";
      button.setAttribute("aria-expanded", yes);
      N.textContent = yes ? nodes : "?";
    }
    button.addEventListener("click", () => open(!figure.classList.contains("open")));
    find(figure, "svg").addEventListener("click", () => open(!figure.classList.contains("open")));
    open(false);
    addEventListener("beforeprint", () => open(true));
  }

  // Draw a value on a linear scale, `most` wide; return how long the bar would be, if it is cut.
  function draw(bar, value, most) {
    const track = find(bar, ".track");
    find(track, "i").style.width = `${Math.min((100 * value) / most, 100)}%`;
    find(bar, "b").textContent = whole(value);
    bar.classList.toggle("over", value > most);
    const metres = (value / most) * track.clientWidth * (0.0254 / 96);
    return value <= most ? "" : metres < 1 ? `${Math.round(100 * metres)} cm`
      : metres < 1000 ? `${whole(Math.round(metres))} m` : `${whole(Math.round(metres / 1000))} km`;
  }

  function doubling(figure) {
    const slider = find(figure, "input"), [nodes, paths] = all(figure, ".bar");
    function show() {
      const [n, , rules, count] = data.doublings[slider.value];
      find(figure, "output").textContent = n;
      slider.setAttribute("aria-valuetext", `n = ${n}: ${rules} visits, ${whole(count)} paths`);
      draw(nodes, rules, 64);
      const long = draw(paths, count, 64);
      find(figure, ".says").textContent = long ? `At this scale the bar of the paths is ${long} long.` : "";
    }
    slider.addEventListener("input", show);
    show();
  }

  function sliders(figure) {
    const most = Number(figure.dataset.most), bars = all(figure, ".bar");
    const [width, batch] = all(figure, "[data-slider]"), freeze = find(figure, "[data-freeze]");
    const value = (slider) => slider.dataset.values.split(",")[slider.value];
    function show() {
      const conv = find(figure, "[name=kind]:checked").value === "conv";
      width.disabled = conv;
      for (const slider of [width, batch]) {
        const shown = slider === width && conv ? "4 filters" : value(slider);
        find(slider.parentNode, "output").textContent = shown;
        slider.setAttribute("aria-valuetext", shown);
      }
      const [N, P, steps] = data.grid[[conv ? "conv 4" : `dense ${value(width)}`, value(batch), Number(freeze.checked)].join(" ")];
      const shown = { N: whole(N), P: whole(P), sum: whole(N + P), steps: whole(steps), ratio: (steps / (N + P)).toFixed(2) };
      for (const [name, count] of Object.entries(shown)) find(figure, `[data-count="${name}"]`).textContent = count;
      draw(bars[0], N + P, most);
      draw(bars[1], steps, most);
      const long = draw(bars[2], N * P, most);
      find(figure, ".says").textContent = long ? `At this scale the bar of N × P is ${long} long.` : "";
    }
    figure.addEventListener("input", show);
    show();
  }

  function checkpoint(figure) {
    const box = find(figure, "input"), parts = all(figure, "[data-with]");
    const show = () => parts.forEach((part) => (part.hidden = part.dataset.with !== String(box.checked)));
    box.addEventListener("change", show);
    show();
    addEventListener("beforeprint", () => parts.forEach((part) => (part.hidden = false)));
    addEventListener("afterprint", show);
  }

  // An op of the drawing opens its panel below.
  function drawing(figure) {
    const panels = all(document, ".zoom details"), ops = all(figure, ".op");
    ops.forEach((op, k) => {
      op.setAttribute("tabindex", "0");
      op.setAttribute("role", "button");
      op.setAttribute("aria-label", find(op, "title").textContent + ". Open.");
      const open = () => {
        panels[k].open = !panels[k].open;
        if (panels[k].open) panels[k].scrollIntoView({ block: "nearest" });
      };
      op.addEventListener("click", open);
      op.addEventListener("keydown", (event) => {
        if (event.key !== "Enter" && event.key !== " ") return;
        event.preventDefault();
        open();
      });
    });
  }

  const parts = { walk, neuron, doubling, sliders, checkpoint, drawing };
  for (const [name, start] of Object.entries(parts))
    for (const figure of all(document, `figure.${name}`)) {
      reveal(figure);
      start(figure);
    }
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = all(document, "article details:not([open])");
    for (const part of closed) part.removeAttribute("name"), (part.open = true);
  });
  addEventListener("afterprint", () => closed.forEach((part) => (part.open = false)));
})();

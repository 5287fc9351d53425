/* The explorers of the site: sliders, a picture drawn as SVG, and a sentence that sums up. Formulas: model.js; words: words.js. */
"use strict";
(() => {
  const model = window.specdecModel;
  const words = window.specdecWords.here;
  const SVG = "http://www.w3.org/2000/svg";
  let number = 0;

  function make(tag, attributes = {}, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...children);
    return node;
  }

  function draw(tag, attributes = {}, ...children) {
    const node = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...children);
    return node;
  }

  const label = (x, y, text, attributes = {}) => draw("text", { x, y, ...attributes }, String(text));
  const percent = share => `${(100 * share).toFixed(0)} %`;

  /* A frame with ticks on both axes; returns the two scales. */
  function axes(svg, { left = 46, top = 14, right = 10, bottom = 40, width, height, x, y, xTicks, yTicks, xName, yName }) {
    const across = at => left + ((at - x[0]) / (x[1] - x[0])) * (width - left - right);
    const up = at => height - bottom - ((at - y[0]) / (y[1] - y[0])) * (height - top - bottom);
    for (const tick of yTicks) {
      svg.append(draw("line", { class: "grid", x1: left, x2: width - right, y1: up(tick), y2: up(tick) }));
      svg.append(label(left - 7, up(tick) + 4, tick, { "text-anchor": "end" }));
    }
    for (const [at, text] of xTicks) svg.append(label(across(at), height - bottom + 18, text, { "text-anchor": "middle" }));
    svg.append(label((left + width - right) / 2, height - 5, xName, { "text-anchor": "middle", class: "name" }));
    svg.append(label(12, (top + height - bottom) / 2, yName,
      { "text-anchor": "middle", class: "name", transform: `rotate(-90 12 ${(top + height - bottom) / 2})` }));
    return { across, up };
  }

  function curve(svg, values, { across, up }, kind, from = 0) {
    const points = values.map((value, i) => [across(i + from), up(value)]);
    svg.append(draw("polyline", { class: `curve ${kind}`, points: points.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join(" ") }));
    for (const [x, y] of points) svg.append(draw("circle", { class: `dot ${kind}`, cx: x, cy: y, r: 3 }));
  }

  const step = most => (most <= 2.5 ? 0.5 : most <= 6 ? 1 : most <= 13 ? 2 : most <= 32 ? 5 : Math.ceil(most / 50) * 10);
  const ticks = most => Array.from({ length: Math.floor(most / step(most) + 1e-9) + 1 }, (_, i) => Number((i * step(most)).toFixed(2)));
  const roof = most => Math.max(1, Math.ceil(most / step(most)) * step(most));

  const overlap = {
    knobs: [
      { low: 0.2, high: 4, step: 0.1, value: 1.4 },
      { low: 0.2, high: 4, step: 0.1, value: 1.8 },
      { low: -4, high: 4, step: 0.25, value: 1 },
    ],
    compute: (...at) => model.overlap(...at),
    words: ({ alpha }) => [words.overlap.lead, make("b", {}, alpha.toFixed(3)), words.overlap.rest(alpha.toFixed(3), percent(1 - alpha))],
    alt: ({ alpha }) => words.overlap.alt(alpha.toFixed(2)),
    legend: ["p", "q", "common"],
    picture(svg, { p, q, common }, width) {
      const most = roof(Math.max(...p, ...q));
      const top = Math.max(...p, ...q) > 0.5 ? 1 : 0.5;
      const scale = axes(svg, { width, height: 260, x: [-0.6, 8.6], y: [0, most > 1 ? most : top],
        xTicks: [..."abcdefghi"].map((letter, i) => [i, letter]), yTicks: top === 1 ? [0, 0.25, 0.5, 0.75, 1] : [0, 0.1, 0.2, 0.3, 0.4, 0.5],
        xName: words.overlap.axes[0], yName: words.overlap.axes[1] });
      const bar = (i, value, from, width, kind) => svg.append(draw("rect", { class: kind, x: scale.across(i + from),
        width: scale.across(width) - scale.across(0), y: scale.up(value), height: Math.max(0, scale.up(0) - scale.up(value)) }));
      p.forEach((value, i) => {
        bar(i, value, -0.4, 0.38, "bar p");
        bar(i, q[i], 0.02, 0.38, "bar q");
        bar(i, common[i], -0.4, 0.8, "bar common");
      });
    },
  };

  const rate = {
    knobs: [
      { low: 0, high: 1, step: 0.01, value: 0.7 },
      { low: 0, high: 12, step: 1, value: 4 },
    ],
    compute(alpha, gamma) {
      const taus = Array.from({ length: 13 }, (_, length) => model.expectedTau(alpha, length));
      return { alpha, gamma, taus, tau: taus[gamma], rate: gamma ? (taus[gamma] - 1) / gamma : 0 };
    },
    words: ({ alpha, gamma, tau, rate: engines }) => [words.rate.lead(gamma), make("b", {}, tau.toFixed(2)),
      words.rate.rest + (gamma ? words.rate.engines(percent(engines)) : "") +
      (alpha < 1 ? words.rate.ceiling((1 / (1 - alpha)).toFixed(2)) : "")],
    alt: ({ alpha, gamma, tau }) => words.rate.alt(alpha.toFixed(2), tau.toFixed(2), gamma),
    legend: ["tau"],
    picture(svg, { taus, gamma, tau }, width) {
      const most = roof(Math.max(2, ...taus));
      const scale = axes(svg, { width, height: 260, x: [0, 12], y: [0, most], yTicks: ticks(most),
        xTicks: Array.from({ length: 13 }, (_, i) => [i, i]), xName: words.rate.axes[0], yName: words.rate.axes[1] });
      curve(svg, taus, scale, "tau");
      svg.append(draw("circle", { class: "mark tau", cx: scale.across(gamma), cy: scale.up(tau), r: 7 }));
    },
  };

  const tree = {
    knobs: [
      { low: 0.05, high: 0.95, step: 0.05, value: 0.6 },
      { low: 0, high: 0.9, step: 0.05, value: 0.4 },
      { low: 2, high: 20, step: 1, value: 10, unit: words.tree.unit },
      { low: 1, high: 5, step: 1, value: 3 },
      { low: 1, high: 8, step: 1, value: 4 },
    ],
    compute(first, next, nodes, width, depth) {
      const row = model.ranks(first, next, width), { parents, tau } = model.optimalTree(row, nodes, depth);
      const length = Math.min(nodes - 1, depth);
      return { row, parents, ...model.valued(parents, row), tau, length, chain: model.expectedTau(first, length) };
    },
    words: ({ parents, tau, length, chain }) => [words.tree.lead(parents.length), make("b", {}, tau.toFixed(2)),
      words.tree.rest(length, chain.toFixed(2))],
    alt: ({ parents, depths, tau }) => words.tree.alt(parents.length, Math.max(...depths), tau.toFixed(2)),
    legend: ["node"],
    picture(svg, { parents, values, depths }, width) {
      const children = parents.map(() => []);
      parents.forEach((parent, node) => parent >= 0 && children[parent].push(node));
      const place = [];
      let leaves = 0;
      const put = node => {
        children[node].forEach(put);
        place[node] = children[node].length ? (place[children[node][0]] + place[children[node].at(-1)]) / 2 : leaves++;
      };
      put(0);
      const deep = Math.max(...depths), high = 58 + 52 * deep;
      svg.setAttribute("viewBox", `0 0 ${width} ${high}`);
      const x = node => width / 2 + (place[node] - (leaves - 1) / 2) * Math.min(76, (width - 50) / Math.max(leaves - 1, 1));
      const y = node => 26 + 52 * depths[node];
      const size = Math.min(22, (width / 2.2) / Math.max(leaves, width / 45) + 2);
      parents.forEach((parent, node) => parent >= 0 &&
        svg.append(draw("line", { class: "edge", x1: x(parent), y1: y(parent), x2: x(node), y2: y(node), "stroke-width": 1 + 4 * values[node] })));
      parents.forEach((_, node) => {
        svg.append(draw("circle", { class: node ? "node" : "node root", cx: x(node), cy: y(node), r: size }));
        const text = node ? values[node].toFixed(2).replace(/^0/, "") : words.tree.root;
        svg.append(label(x(node), y(node) + 4, text, { "text-anchor": "middle", class: "inside" }));
      });
    },
  };

  const MOST = 10;
  const power = value => Math.round(2 ** value);
  const pays = {
    knobs: [
      { low: 0.05, high: 0.95, step: 0.05, value: 0.7 },
      { low: 0, high: 0.5, step: 0.01, value: 0.05 },
      { value: "H100",
        choices: [...Object.entries(model.GPUS).map(([key, [name]]) => [key, words.pays.gpu(name)]), ["lines", words.pays.lines]] },
      { low: 0, high: 11, step: 1, value: 8, read: power, only: kind => kind !== "lines" },
      { low: 6, high: 17, step: 1, value: 10, read: power, only: kind => kind !== "lines" },
      { low: 1, high: 8, step: 1, value: 2, only: kind => kind === "lines" },
      { low: 0, high: 1, step: 0.01, value: 0.1, only: kind => kind === "lines" },
    ],
    compute(alpha, c, kind, batch, context, flat, slope) {
      const v = kind === "lines" ? model.lines(flat, slope) : model.roofline(kind, batch, context);
      return { alpha, c, v5: v(5), ...model.pays(alpha, c, v, MOST) };
    },
    words({ best, speedup, speedups, v5 }) {
      const [draft, tokens, said, times, plain] = words.pays.yes(best, speedup.toFixed(2));
      return [
        ...(speedup < 1.05 || !best
          ? [make("b", {}, words.pays.no), words.pays.why(Math.max(...speedups.slice(1)).toFixed(2))]
          : [draft, make("b", {}, tokens), said, make("b", {}, times), plain]),
        words.pays.check(v5.toFixed(2))];
    },
    alt: ({ best, speedup }) => words.pays.alt(best, speedup.toFixed(2)),
    legend: ["tau", "price", "one"],
    picture(svg, { speedups, prices, best, speedup }, width) {
      const most = roof(Math.max(1.5, ...speedups, Math.min(Math.max(...prices), 4)));
      const scale = axes(svg, { width, height: 260, x: [0, MOST], y: [0, most], yTicks: ticks(most),
        xTicks: Array.from({ length: MOST + 1 }, (_, i) => [i, i]), xName: words.pays.axes[0], yName: words.pays.axes[1] });
      svg.append(draw("line", { class: "one", x1: scale.across(0), x2: scale.across(MOST), y1: scale.up(1), y2: scale.up(1) }));
      const seen = prices.filter(price => price <= most);
      curve(svg, prices.slice(0, seen.length), scale, "price");
      curve(svg, speedups, scale, "tau");
      if (best) svg.append(draw("circle", { class: "mark tau", cx: scale.across(best), cy: scale.up(speedup), r: 7 }));
    },
  };

  const EXPLORERS = { overlap, rate, tree, pays };

  function control(knob, [name, means], changed) {
    const id = `explorer-${++number}`;
    const meaning = make("span", { class: "meaning", id: `${id}-meaning` }, means);
    const output = make("output", { for: id });
    const input = knob.choices
      ? make("select", { id }, ...knob.choices.map(([value, text]) => make("option", { value }, text)))
      : make("input", { id, type: "range", min: knob.low, max: knob.high, step: knob.step });
    input.value = knob.value;
    input.setAttribute("aria-describedby", `${id}-meaning`);
    const read = () => (knob.choices ? input.value : (knob.read ?? (value => value))(Number(input.value)));
    const show = () => {
      if (knob.choices) return;
      output.textContent = `${words.tick(read())}${knob.unit ?? ""}`;
      input.setAttribute("aria-valuetext", output.textContent);
    };
    input.addEventListener("input", () => { show(); changed(); });
    show();
    const row = make("div", { class: "knob" }, make("label", { for: id }, name), input, ...(knob.choices ? [] : [output]), meaning);
    return { row, input, read, reset: () => { input.value = knob.value; show(); } };
  }

  function build(root) {
    const kind = EXPLORERS[root.dataset.explorer], said = words[root.dataset.explorer];
    const svg = draw("svg", { viewBox: "0 0 640 260", role: "img" });
    const summary = make("p", { class: "summary" });
    const spoken = make("p", { class: "visually-hidden", role: "status", "aria-live": "polite" });
    let waiting = 0;
    const controls = kind.knobs.map((knob, i) => control(knob, said.knobs[i], () => redraw(true)));
    const reset = make("button", { type: "button" }, words.reset);
    reset.addEventListener("click", () => { for (const one of controls) one.reset(); redraw(true); });
    function redraw(speak) {
      const values = controls.map(one => one.read());
      controls.forEach((one, i) => { one.row.hidden = Boolean(kind.knobs[i].only) && !kind.knobs[i].only(values[2]); });
      const result = kind.compute(...values);
      root.result = result;
      const width = root.clientWidth < 520 ? 360 : 640; // so that letters stay readable on a phone
      svg.setAttribute("viewBox", `0 0 ${width} 260`);
      svg.replaceChildren();
      kind.picture(svg, result, width);
      svg.setAttribute("aria-label", kind.alt(result));
      summary.replaceChildren(...kind.words(result));
      clearTimeout(waiting);
      if (speak) waiting = setTimeout(() => { spoken.textContent = summary.textContent; }, 400);
    }
    const legend = make("p", { class: "legend" }, ...kind.legend.flatMap((name, i) => [make("span", { class: `key ${name}` }), `${said.legend[i]} `]));
    root.replaceChildren(make("div", { class: "knobs", role: "group", "aria-label": said.title }, ...controls.map(one => one.row), reset),
      make("div", { class: "shown" }, summary, svg, legend), spoken);
    redraw(false);
    new ResizeObserver(() => redraw(false)).observe(root);
  }

  for (const root of document.querySelectorAll("[data-explorer]")) build(root);
})();

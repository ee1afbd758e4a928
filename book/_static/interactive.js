// Interactive figures: each reads the JSON beside it and draws SVG; no framework, no request. studies/interactive.py makes the data.
"use strict";

(() => {
  const SPACE = "http://www.w3.org/2000/svg";
  const MARGIN = { left: 58, right: 14, top: 12, bottom: 42 };
  const clamp = (x, low, high) => Math.min(high, Math.max(low, x));

  function element(parent, name, attributes = {}, text = "") {
    const made = name.startsWith("svg:") ? document.createElementNS(SPACE, name.slice(4)) : document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text) made.textContent = text;
    parent.append(made);
    return made;
  }

  const power = (x) => x.toString().replace("-", "−").replace(/\d|−/g, (c) => "⁰¹²³⁴⁵⁶⁷⁸⁹⁻"["0123456789−".indexOf(c)]);
  const short = (x) => (x === 0 ? "0" : x.toExponential(1).replace("e+", "e"));
  const whole = (x) => (x < 1e6 ? Math.round(x).toLocaleString("en") : x.toExponential(1).replace("e+", "e"));

  // A slider with its name and value.
  function slider(parent, label, options, show) {
    const row = element(parent, "label", { class: "control" });
    element(row, "span", {}, label);
    const input = element(row, "input", { type: "range", ...options });
    const value = element(row, "output");
    const update = () => { value.textContent = show(+input.value); input.setAttribute("aria-valuetext", value.textContent); };
    update();
    input.addEventListener("input", update);
    return { get value() { return +input.value; } };
  }

  function choice(parent, label, names) {
    const row = element(parent, "label", { class: "control" });
    element(row, "span", {}, label);
    const input = element(row, "select");
    names.forEach((name, i) => element(input, "option", { value: i }, name));
    return { get value() { return +input.value; } };
  }

  function ticks([low, high], log, most) {
    if (log) {
      const [a, b] = [Math.ceil(Math.log10(low) - 1e-9), Math.floor(Math.log10(high) + 1e-9)];
      const step = Math.ceil((b - a + 1) / most);
      return Array.from({ length: Math.floor((b - a) / step) + 1 }, (_, i) => [10 ** (a + i * step), "10" + power(a + i * step)]);
    }
    const raw = (high - low) / most, size = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map((m) => m * size).find((s) => s >= raw);
    const first = Math.ceil(low / step - 1e-9), count = Math.floor(high / step + 1e-9) - first;
    return Array.from({ length: count + 1 }, (_, i) => [(first + i) * step, (+((first + i) * step).toPrecision(6)).toString().replace("-", "−")]);
  }

  // Axes in a box of the width that there is. Returns functions that draw into it.
  function axes(parent, { x, y, logx, logy, xticks, xlabel, ylabel, height = 250, title }) {
    const width = Math.max(240, parent.clientWidth);
    const svg = element(parent, "svg:svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": title });
    const scale = (value, [low, high], log) => (log ? Math.log(value / low) / Math.log(high / low) : (value - low) / (high - low));
    const right = width - MARGIN.right, bottom = height - MARGIN.bottom;
    const px = (value) => MARGIN.left + scale(value, x, logx) * (right - MARGIN.left);
    const py = (value) => bottom - clamp(scale(value, y, logy), -0.02, 1.02) * (bottom - MARGIN.top);
    for (const [value, text] of ticks(y, logy, 5)) {
      element(svg, "svg:line", { class: "grid", x1: MARGIN.left, x2: right, y1: py(value), y2: py(value) });
      element(svg, "svg:text", { x: MARGIN.left - 6, y: py(value) + 4, "text-anchor": "end" }, text);
    }
    for (const [value, text] of ticks(x, logx, xticks || (width < 420 ? 4 : 7))) {
      element(svg, "svg:line", { class: "grid", x1: px(value), x2: px(value), y1: MARGIN.top, y2: bottom });
      element(svg, "svg:text", { x: px(value), y: bottom + 16, "text-anchor": "middle" }, text);
    }
    element(svg, "svg:text", { x: (MARGIN.left + right) / 2, y: height - 6, "text-anchor": "middle" }, xlabel);
    const middle = (MARGIN.top + bottom) / 2;
    element(svg, "svg:text", { x: 13, y: middle, transform: `rotate(-90 13 ${middle})`, "text-anchor": "middle" }, ylabel);
    return {
      line(xs, ys, colour, { wide = 2, dashed = "", faint = false } = {}) {
        const path = xs.map((value, i) => `${i ? "L" : "M"}${px(value).toFixed(1)} ${py(ys[i]).toFixed(1)}`).join("");
        element(svg, "svg:path", { d: path, class: `line ${colour}${faint ? " faint" : ""}`, "stroke-width": wide, "stroke-dasharray": dashed });
      },
      mark(value, height, colour) { element(svg, "svg:circle", { class: `dot ${colour}`, cx: px(value), cy: py(height), r: 5 }); },
      rule(value) { element(svg, "svg:line", { class: "rule", x1: px(value), x2: px(value), y1: MARGIN.top, y2: bottom }); },
      text(value, height, words, colour, anchor = "end") {
        element(svg, "svg:text", { class: `label ${colour}`, x: px(value), y: py(height) - 6, "text-anchor": anchor }, words);
      },
    };
  }

  function matrix(parent, title, values, size, most, width) {
    const cell = Math.floor(width / size), side = cell * size;
    const box = element(parent, "figure");
    const svg = element(box, "svg:svg", { width: side, height: side, role: "img", "aria-label": `${title}: ${size} by ${size} entries as colours` });
    values.forEach((value, i) => element(svg, "svg:rect", {
      x: (i % size) * cell, y: Math.floor(i / size) * cell, width: cell, height: cell,
      class: value < 0 ? "negative" : "positive", "fill-opacity": clamp(Math.abs(value) / most, 0, 1).toFixed(3),
    }));
    element(svg, "svg:rect", { class: "frame", x: 0.5, y: 0.5, width: side - 1, height: side - 1 });
    element(box, "figcaption", {}, title);
  }

  const norm = (x) => Math.sqrt(x.reduce((sum, value) => sum + value * value, 0));

  function drawSlider(root, data) {
    const terms = data.phi[0].length;
    const value = (i, r) => data.X[i].map((_, j) => { let sum = 0; for (let k = 0; k < r; k++) sum += data.phi[i][k] * data.core[k][j]; return sum; });
    const p = slider(root, "parameter p", { min: 0, max: data.p.length - 1, value: 30 }, (i) => data.p[i].toFixed(2));
    const rank = slider(root, "terms r", { min: 1, max: terms, value: 5 }, String);
    const said = element(root, "p", { class: "said", "aria-live": "polite" });
    const maps = element(root, "div", { class: "matrices" }), plot = element(root, "div");
    const largest = (rows) => Math.max(...rows.flat().map(Math.abs));
    const [mostA, mostX] = [largest(data.A), largest(data.X)];
    return () => {
      const [i, r] = [p.value, rank.value];
      const curve = data.p.map((_, j) => norm(value(j, r).map((v, k) => v - data.X[j][k])) / norm(data.X[j]));
      const shown = value(i, r), error = shown.map((v, k) => v - data.X[i][k]);
      said.textContent = `At p = ${data.p[i].toFixed(2)} the map with ${r} term${r > 1 ? "s" : ""} is wrong by ${short(curve[i])}, `
        + `at its worst parameter by ${short(Math.max(...curve))} (relative, Frobenius norm).`;
      maps.replaceChildren();
      const width = Math.min(150, maps.clientWidth / (maps.clientWidth < 520 ? 2 : 4) - 10);
      matrix(maps, "matrix A(p)", data.A[i], data.size, mostA, width);
      matrix(maps, "exact inverse", data.X[i], data.size, mostX, width);
      matrix(maps, `map of ${r} term${r > 1 ? "s" : ""}`, shown, data.size, mostX, width);
      matrix(maps, "error, 10 times", error, data.size, mostX / 10, width);
      plot.replaceChildren();
      const box = axes(plot, { x: [0, 1], y: [1e-5, 2], logy: true, xlabel: "parameter p", ylabel: "relative error", title: said.textContent });
      box.line(data.p, curve, "c1");
      box.rule(data.p[i]);
      box.mark(data.p[i], curve[i], "c2");
    };
  }

  function drawPieces(root, data) {
    const count = slider(root, "pieces", { min: 0, max: data.pieces.length - 1, value: 0 }, (i) => String(data.pieces[i]));
    const rank = slider(root, "terms in a piece r", { min: 1, max: data.limits[0].length, value: 8 }, String);
    const said = element(root, "p", { class: "said", "aria-live": "polite" }), plot = element(root, "div");
    return () => {
      const [c, r] = [count.value, rank.value], pieces = data.pieces[c], error = data.limits[c][r - 1];
      said.textContent = `The best map of ${pieces} piece${pieces > 1 ? "s" : ""} with ${r} term${r > 1 ? "s" : ""} each is wrong by `
        + `${error > 1e-9 ? short(error) : "less than 1e-9"}. It stores ${pieces * r} slices; a value costs ${r} multiply-add${r > 1 ? "s" : ""} an entry.`;
      plot.replaceChildren();
      const ranks = data.limits[0].map((_, i) => i + 1);
      const box = axes(plot, { x: [1, ranks.length], y: [1e-9, 2], logy: true, xlabel: "terms in a piece", ylabel: "relative error", height: 300, title: said.textContent });
      data.limits.forEach((line, i) => {
        box.line(ranks, line, i === c ? "c1" : "ink", { wide: i === c ? 3 : 1.5, faint: i !== c });
        const end = line.findIndex((value) => value < 3e-9);
        const at = end < 0 ? ranks.length - 1 : end - 1;
        box.text(ranks[at], line[at], String(data.pieces[i]), i === c ? "c1" : "ink", "end");
      });
      for (const fit of data.fits) {
        box.mark(fit.terms, fit.error, "c2");
        box.text(fit.terms, fit.error, `${fit.pieces}`, "c2", "start");
      }
      box.mark(r, error, "c1");
    };
  }

  function drawBreakEven(root, data) {
    const problem = choice(root, "channel", data.problems.map((entry) => entry.title));
    const map = choice(root, "map", data.problems[0].maps.map((entry) => entry.name));
    const count = slider(root, "matrices", { min: 10, max: 60, value: 25 }, (i) => whole(10 ** (i / 10)));
    const said = element(root, "p", { class: "said", "aria-live": "polite" }), plot = element(root, "div");
    const counts = Array.from({ length: 51 }, (_, i) => 10 ** (1 + i / 10));
    return () => {
      const shown = data.problems[problem.value], chosen = shown.maps[Math.min(map.value, shown.maps.length - 1)], n = 10 ** (count.value / 10);
      const total = (entry, many) => (entry.fit || 0) + many * entry.each;
      const fastest = shown.exact.reduce((a, b) => (b.each < a.each ? b : a));
      const ratio = total(fastest, n) / total(chosen, n);
      said.textContent = `For ${whole(n)} matrices the ${chosen.name}, its fit counted, takes ${(1 / ratio).toPrecision(2)} times as long as `
        + `the fastest exact method (${fastest.name}): ${ratio > 1 ? "it pays" : "it does not pay"}. Its error is ${short(chosen.error)}.`;
      plot.replaceChildren();
      const box = axes(plot, { x: [10, 1e6], y: [1, 1e6], logx: true, logy: true, xlabel: "number of matrices", ylabel: "inversions by NumPy", height: 300, title: said.textContent });
      shown.exact.forEach((entry, i) => box.line(counts, counts.map((m) => total(entry, m)), ["ink", "c3", "c4", "c2"][i], { wide: 1.5, dashed: ["", "6 3", "2 3", "9 2 2 2"][i] }));
      box.line(counts, counts.map((m) => total(chosen, m)), "c1", { wide: 3 });
      for (const entry of shown.exact) {
        const even = chosen.fit / (entry.each - chosen.each);
        if (even > 10 && even < 1e6) box.mark(even, even * entry.each, "c2");
      }
      box.rule(n);
      let key = root.querySelector(".key");
      if (!key) key = element(root, "p", { class: "key" });
      key.replaceChildren();
      [[chosen.name, "c1"], ...shown.exact.map((entry, i) => [entry.name, ["ink", "c3", "c4", "c2"][i]])]
        .forEach(([name, colour]) => element(key, "span", { class: `entry ${colour}` }, name));
      element(key, "span", {}, `Circles: break-even. Measured on ${data.machine}, ${data.date}.`);
    };
  }

  function drawTrack(root, data) {
    const gap = slider(root, "smallest distance", { min: 0, max: data.cases.length - 1, value: 3 }, (i) => String(data.cases[i].gap));
    const p = slider(root, "parameter p", { min: 0, max: data.p.length - 1, value: 80 }, (i) => data.p[i].toFixed(2));
    const said = element(root, "p", { class: "said", "aria-live": "polite" });
    const upper = element(root, "div"), lower = element(root, "div"), key = element(root, "p", { class: "key" });
    element(key, "span", { class: "entry c1" }, "the map");
    element(key, "span", { class: "entry c2" }, "LAPACK, parameter by parameter");
    return () => {
      const shown = data.cases[gap.value], i = p.value;
      said.textContent = `Distance ${shown.gap}: at p = ${data.p[i].toFixed(2)} the values are ${shown.values[0][i].toFixed(3)} and ${shown.values[1][i].toFixed(3)}. `
        + `The entry of the vector is ${shown.vector[i].toFixed(2)} in the map and ${shown.returned[i].toFixed(2)} from LAPACK. `
        + `The map took ${shown.solves} exact solves.`;
      upper.replaceChildren();
      lower.replaceChildren();
      const values = axes(upper, { x: [0, 1], y: [1.4, 2.6], xlabel: "parameter p", ylabel: "singular values", title: said.textContent });
      const vector = axes(lower, { x: [0, 1], y: [-1, 1], xlabel: "parameter p", ylabel: "entry of vector 1", title: "An entry of the first singular vector" });
      for (const k of [0, 1]) {
        values.line(data.p, shown.values[k], "c2", { wide: 5, faint: true });
        values.line(data.p, shown.followed[k], "c1");
        values.mark(data.p[i], shown.followed[k][i], "c1");
      }
      vector.line(data.p, shown.returned, "c2", { wide: 5, faint: true });
      vector.line(data.p, shown.vector, "c1");
      values.rule(data.p[i]);
      vector.rule(data.p[i]);
      vector.mark(data.p[i], shown.vector[i], "c1");
    };
  }

  const DRAW = { slider: drawSlider, pieces: drawPieces, "break-even": drawBreakEven, track: drawTrack };

  // For in_browser.js, which draws with the same means.
  window.interactive = { element, slider, axes, clamp, norm };

  for (const root of document.querySelectorAll(".interactive:not([data-surrogate])")) {
    const draw = DRAW[root.id](root, JSON.parse(root.querySelector("script").textContent));
    let width = 0;
    root.addEventListener("input", draw);
    new ResizeObserver(() => {
      // A page that is not laid out yet has no width to draw in.
      if (root.clientWidth > 200 && root.clientWidth !== width) {
        width = root.clientWidth;
        draw();
      }
    }).observe(root);
  }
})();

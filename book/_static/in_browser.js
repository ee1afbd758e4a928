// Surrogates that run on the page: onnxruntime-web evaluates the model; A(p), its inverse and the bound are computed here, in double
// precision. studies/in_browser.py makes the data. Matrices are arrays of pairs, row by row.
"use strict";

(() => {
  const { element, slider, axes, clamp, norm } = window.interactive;
  const EPS = 2 ** -52;

  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const unpacked = (text) => new Response(new Blob([bytes(text)]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
  const turn = () => new Promise((done) => setTimeout(done));

  // A page from a file may import no file and fetch none: the module comes from an address made of its text, the program as bytes.
  let loaded;
  async function start({ module, program }) {
    const address = URL.createObjectURL(new Blob([await unpacked(module)], { type: "text/javascript" }));
    const ort = await import(address);
    URL.revokeObjectURL(address);
    ort.env.logLevel = "error";
    ort.env.wasm.numThreads = 1;
    ort.env.wasm.wasmBinary = await unpacked(program);
    return ort;
  }
  const runtime = () => (loaded = loaded || start(window.onnxruntimeWeb));

  // C = A B, or A^H B, for matrices of so many rows of A, columns of A and columns of B.
  function product(A, B, m, k, n, adjoint = false) {
    const C = new Float64Array(2 * (adjoint ? k : m) * n);
    for (let i = 0; i < m; i++) for (let l = 0; l < k; l++) {
      const re = A[2 * (i * k + l)], im = adjoint ? -A[2 * (i * k + l) + 1] : A[2 * (i * k + l) + 1];
      const to = 2 * n * (adjoint ? l : i), from = 2 * n * (adjoint ? i : l);
      for (let j = 0; j < 2 * n; j += 2) {
        C[to + j] += re * B[from + j] - im * B[from + j + 1];
        C[to + j + 1] += re * B[from + j + 1] + im * B[from + j];
      }
    }
    return C;
  }

  // The inverse by Gauss and Jordan, with the largest pivot of each column.
  function inverse(given, n) {
    const width = 4 * n, W = new Float64Array(n * width);
    for (let i = 0; i < n; i++) {
      W.set(given.subarray(2 * n * i, 2 * n * (i + 1)), i * width);
      W[i * width + 2 * (n + i)] = 1;
    }
    for (let k = 0; k < n; k++) {
      const size = (i) => Math.hypot(W[i * width + 2 * k], W[i * width + 2 * k + 1]);
      let best = k;
      for (let i = k + 1; i < n; i++) if (size(i) > size(best)) best = i;
      const row = W.slice(best * width, (best + 1) * width), re = row[2 * k], im = row[2 * k + 1], square = re * re + im * im;
      W.copyWithin(best * width, k * width, (k + 1) * width);
      for (let j = 0; j < width; j += 2) {
        const [a, b] = [row[j], row[j + 1]];
        row[j] = (a * re + b * im) / square;
        row[j + 1] = (b * re - a * im) / square;
      }
      W.set(row, k * width);
      for (let i = 0; i < n; i++) {
        const [a, b] = [W[i * width + 2 * k], W[i * width + 2 * k + 1]];
        if (i === k || (a === 0 && b === 0)) continue;
        for (let j = 0, at = i * width; j < width; j += 2, at += 2) {
          W[at] -= a * row[j] - b * row[j + 1];
          W[at + 1] -= a * row[j + 1] + b * row[j];
        }
      }
    }
    const X = new Float64Array(2 * n * n);
    for (let i = 0; i < n; i++) X.set(W.subarray(i * width + 2 * n, (i + 1) * width), 2 * n * i);
    return X;
  }

  const FAMILIES = {
    // A(f) = H^H H + noise I with H(f) the sum of a_l exp(-2 pi j f tau_l).
    gram({ shape: [paths, m, n], delays, noise, coefficients }) {
      const a = new Float32Array(bytes(coefficients).buffer), count = 2 * m * n;
      return (f) => {
        const H = new Float64Array(count);
        for (let l = 0; l < paths; l++) {
          const angle = -2 * Math.PI * f * delays[l], c = Math.cos(angle), s = Math.sin(angle);
          for (let i = 0, at = l * count; i < count; i += 2, at += 2) {
            H[i] += a[at] * c - a[at + 1] * s;
            H[i + 1] += a[at] * s + a[at + 1] * c;
          }
        }
        const A = product(H, H, m, n, n, true);
        for (let i = 0; i < n; i++) A[2 * i * (n + 1)] += noise;
        return A;
      };
    },
    // A(p) = A_0 + p A_1 + p^2 A_2 + ...
    polynomial({ shape: [terms, n], coefficients }) {
      const a = new Float64Array(bytes(coefficients).buffer), count = 2 * n * n;
      return (p) => {
        const A = new Float64Array(count);
        for (let k = terms - 1; k >= 0; k--) for (let i = 0; i < count; i++) A[i] = A[i] * p + a[k * count + i];
        return A;
      };
    },
  };

  // What is known of X without the exact inverse, after the page on certificates: with R = I - A X and its norm rho < 1, the relative
  // error is at most rho, and at most b / (|X| - b) with b = |X R| / (1 - rho). What rounding does to the products is added.
  function judged(A, X, n) {
    const R = product(A, X, n, n, n).map((value) => -value);
    for (let i = 0; i < n; i++) R[2 * i * (n + 1)] += 1;
    const slack = 4 * (n + 4) * EPS, size = norm(X), unsure = slack * (norm(A) * size + Math.sqrt(n));
    const rho = norm(R) * (1 + slack) + unsure;
    if (!(rho < 1)) return { rho, bound: Infinity };
    const b = (norm(product(X, R, n, n, n)) * (1 + slack) + size * (unsure + slack * rho)) / (1 - rho);
    return { rho, bound: Math.min(rho, b < size ? b / (size - b) : Infinity) };
  }

  function judgedWithExact(A, X, n) {
    const exact = inverse(A, n), difference = exact.map((value, i) => X[i] - value);
    return { ...judged(A, X, n), exact, difference, error: norm(difference) / norm(exact) };
  }

  // Three digits, up: a bound stays one.
  function above(x) {
    if (!(x > 0 && x < Infinity)) return x === 0 ? "0" : "not known";
    const unit = 10 ** (Math.floor(Math.log10(x)) - 2);
    return (Math.ceil(x / unit - 1e-9) * unit).toExponential(2).replace("e+", "e");
  }

  // One pixel an entry, enlarged by the style sheet: real parts as colours, the roots of their sizes as strength.
  function painted(parent, title, n) {
    const box = element(parent, "figure");
    const canvas = element(box, "canvas", { width: n, height: n, role: "img", "aria-label": `${title}: ${n} by ${n} entries as colours` });
    element(box, "figcaption", {}, title);
    const context = canvas.getContext("2d");
    return (X, most, colours) => {
      context.clearRect(0, 0, n, n);
      for (let i = 0; i < n * n; i++) {
        context.globalAlpha = Math.sqrt(clamp(Math.abs(X[2 * i]) / most, 0, 1));
        context.fillStyle = colours[X[2 * i] < 0 ? 1 : 0];
        context.fillRect(i % n, Math.floor(i / n), 1, 1);
      }
    };
  }

  async function begin(root, data) {
    const ort = await runtime(), n = data.size;
    const session = await ort.InferenceSession.create(bytes(data.model), { executionProviders: ["wasm"], logSeverityLevel: 3 });
    const matrix = FAMILIES[data.family.kind](data.family), count = 2 * n * n;
    const { name, unit, scale, digits } = data.parameter, minus = (text) => text.replace("-", "−");
    const at = (i) => (i === data.steps ? data.upper : data.lower + ((data.upper - data.lower) * i) / data.steps);
    const number = (i) => minus((at(i) * scale).toFixed(digits)), label = (i) => number(i) + (unit && ` ${unit}`);
    // The values at some places of the slider, from one batch.
    async function values(places) {
      const p = new ort.Tensor("float64", Float64Array.from(places, at), [places.length, 1]);
      const { X } = await session.run({ p });
      return places.map((_, i) => Float64Array.from(X.data.subarray(i * count, (i + 1) * count)));
    }
    await values([0]);

    root.querySelector(".still").remove();
    const title = name + (unit && ` in ${unit}`);
    const p = slider(root, title, { min: 0, max: data.steps, value: Math.round(0.3 * data.steps) }, number);
    const said = element(root, "p", { class: "said", "aria-live": "polite" });
    const maps = element(root, "div", { class: "matrices" });
    const paint = ["surrogate X", "exact inverse", `difference, ${data.enlarged.toLocaleString("en")} times`]
      .map((words) => painted(maps, words, n));
    const plot = element(root, "div"), key = element(root, "p", { class: "key" });
    for (const [words, colour] of [["bound", "c1"], ["error", "c2"], ["norm of I − A X", "ink"]]) element(key, "span", { class: `entry ${colour}` }, words);

    let now = {}, asked = true, busy = false;
    const curve = [], places = Array.from({ length: Math.floor(data.steps / data.stride) + 1 }, (_, i) => i * data.stride);
    function drawn() {
      plot.replaceChildren();
      const low = data.lower * scale, high = data.upper * scale;
      const box = axes(plot, { x: [low, high], y: data.axis, logy: true, xticks: 5, xlabel: title, ylabel: "relative error", title: said.textContent });
      const xs = curve.map((_, i) => at(places[i]) * scale), floor = data.axis[0] / 2;
      const line = (field) => curve.map((value) => Math.max(value[field], floor));
      for (const edge of data.pieces.slice(1)) box.rule(edge * scale);
      box.line(xs, line("rho"), "ink", { wide: 1.5, dashed: "6 3" });
      box.line(xs, line("bound"), "c1", { wide: 5, faint: true });
      box.line(xs, line("error"), "c2");
      box.mark(at(now.place) * scale, Math.max(now.bound, floor), "c1");
      box.mark(at(now.place) * scale, Math.max(now.error, floor), "c2");
    }
    function shown() {
      const style = getComputedStyle(root), colours = ["--c1", "--c2"].map((colour) => style.getPropertyValue(colour).trim());
      const { X, exact, difference } = now;
      [X, exact].forEach((value, i) => paint[i](value, data.most, colours));
      paint[2](difference, data.most / data.enlarged, colours);
      drawn();
    }
    async function show() {
      const place = p.value, [X] = await values([place]);
      now = { place, X, ...judgedWithExact(matrix(at(place)), X, n) };
      const piece = data.pieces.filter((edge) => edge <= at(place)).length, all = data.pieces.length;
      const where = data.rational ? "The rational function" : `Piece ${piece} of ${all}`;
      said.textContent = `${where}, at ${label(place)}: the relative error is ${minus(now.error.toExponential(2))}. `
        + `Without the exact inverse the page knows that it is at most ${minus(above(now.bound))}.`;
      shown();
      Object.assign(root.dataset, { state: "ready", place, error: now.error, bound: now.bound });
    }
    // One evaluation at a time, the newest first; the curve grows in between.
    async function work() {
      if (busy) return;
      busy = true;
      while (asked || curve.length < places.length) {
        if (asked) {
          asked = false;
          await show();
        } else {
          const next = places.slice(curve.length, curve.length + 8), found = await values(next);
          curve.push(...found.map((X, i) => judgedWithExact(matrix(at(next[i])), X, n)).map(({ rho, bound, error }) => ({ rho, bound, error })));
          drawn();
        }
        await turn();
      }
      busy = false;
      root.dataset.curve = curve.length;
    }
    const failed = (error) => fails(root, error);
    root.addEventListener("input", () => { asked = true; work().catch(failed); });
    new MutationObserver(shown).observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
    let width = root.clientWidth;
    new ResizeObserver(() => {
      if (root.clientWidth > 200 && root.clientWidth !== width && now.X) drawn();
      width = root.clientWidth;
    }).observe(root);
    await work();
  }

  function fails(root, error) {
    const note = root.querySelector(".note") || element(root, "p", { class: "note" });
    note.textContent = `This browser could not run the surrogate: ${error.message || error}`;
    root.dataset.state = "failed";
  }

  for (const root of document.querySelectorAll("[data-surrogate]")) {
    if (!window.onnxruntimeWeb) continue;
    root.querySelector(".note").textContent = "Starting onnxruntime-web …";
    begin(root, JSON.parse(root.querySelector("script").textContent)).catch((error) => fails(root, error));
  }
})();

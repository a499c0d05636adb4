"use strict";
// Draws the charts of the report from the findings in the page. No library, no network.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const NS = "http://www.w3.org/2000/svg";
  const c = data.curve;
  const evals = data.evaluations;
  const axes = { step: "step", tokens: "tokens", seconds: "time" };
  const state = { x: "step", logX: false, logY: false };
  const charts = [];

  const curveX = (name) => c[name] || [];
  const pairs = (xs, ys) => xs.map((x, i) => [x, ys[i]]).filter((p) => p[0] !== null && p[1] !== null && p[1] !== undefined);
  const fromCurve = (name) => pairs(curveX(state.x), c[name]);
  const fromEvals = (name) => pairs(evals.map((e) => e[state.x]), evals.map((e) => e[name]));

  // What each chart shows: lines {cls, name, points, dots}, bands, and the words for a value.
  const CHARTS = {
    loss: () => {
      const sigma = data.noise.sigma;
      const val = fromEvals("val_loss");
      const low = fromCurve("low"), high = fromCurve("high");
      return {
        unit: "nats per " + data.source.val_per, logY: true,
        bands: [
          c.rows_per_point > 1 ? { cls: "train", low, high } : null,
          sigma ? { cls: "val", low: val.map(([x, y]) => [x, y - 2 * sigma]), high: val.map(([x, y]) => [x, y + 2 * sigma]) } : null,
        ].filter(Boolean),
        lines: [
          { cls: "train", name: "train, as logged", points: fromCurve("loss") },
          { cls: "val", name: "validation", points: val, dots: true },
        ],
        star: data.best ? evals.filter((e) => e.best).map((e) => [e[state.x], e.val_loss]) : [],
        focus: true,
      };
    },
    gap: () => ({
      unit: "val − train, nats", zero: true,
      lines: [{ cls: "val", name: "gap", points: fromEvals("gap"), dots: true }],
      bands: [{
        cls: "val",
        low: pairs(evals.map((e) => e[state.x]), evals.map((e) => (e.gap === null || e.gap_se === null ? null : e.gap - 2 * e.gap_se))),
        high: pairs(evals.map((e) => e[state.x]), evals.map((e) => (e.gap === null || e.gap_se === null ? null : e.gap + 2 * e.gap_se))),
      }],
    }),
    lr: () => ({ unit: "learning rate", zero: true, lines: [{ cls: "rate", name: "learning rate", points: fromCurve("lr") }], bands: [] }),
    norm: () => ({ unit: "gradient norm", zero: true, lines: [{ cls: "rate", name: "gradient norm", points: fromCurve("grad_norm") }], bands: [] }),
    speed: () => ({ unit: "tokens per second", zero: true, lines: [{ cls: "train", name: "tokens per second", points: fromCurve("tokens_per_s") }], bands: [] }),
  };

  const el = (name, attributes, parent) => {
    const node = document.createElementNS(NS, name);
    for (const key in attributes) node.setAttribute(key, attributes[key]);
    if (parent) parent.appendChild(node);
    return node;
  };

  const number = (v) => {
    const a = Math.abs(v);
    if (v === 0) return "0";
    if (a >= 1e9) return +(v / 1e9).toPrecision(3) + "G";
    if (a >= 1e6) return +(v / 1e6).toPrecision(3) + "M";
    if (a >= 1e4) return +(v / 1e3).toPrecision(3) + "k";
    if (a < 1e-2) return v.toExponential(1).replace("e-", "e−");
    return String(+v.toPrecision(4));
  };
  const exact = (v) => (Math.abs(v) < 1e-2 && v !== 0 ? v.toExponential(3) : Math.abs(v) >= 1000 ? Math.round(v).toLocaleString("en") : v.toFixed(4));
  const clock = (s) => (s < 60 ? +s.toFixed(1) + " s" : s < 3600 ? +(s / 60).toFixed(1) + " min" : +(s / 3600).toFixed(2) + " h");
  const xText = (v) => (state.x === "seconds" ? clock(v) : number(v));

  function ticks(low, high, count, log) {
    if (log) {
      const found = [];
      for (let p = Math.floor(Math.log10(low)); p <= Math.ceil(Math.log10(high)); p++)
        for (const m of [1, 2, 5]) { const t = m * 10 ** p; if (t >= low && t <= high) found.push(t); }
      if (found.length >= 3) return found.length > 2 * count ? found.filter((t) => Math.abs(Math.log10(t) % 1) < 1e-9) : found;
    }
    const raw = (high - low) / count || 1, base = 10 ** Math.floor(Math.log10(raw));
    const unit = [1, 2, 5, 10].map((m) => m * base).find((u) => u >= raw);
    const found = [];
    for (let t = Math.ceil(low / unit) * unit; t <= high + unit * 1e-9; t += unit) found.push(Math.abs(t) < unit * 1e-9 ? 0 : t);
    return found;
  }

  // The range of y: everything, or, with `focus`, without the steep start that hides the rest.
  function range(spec, logY) {
    const bands = spec.focus ? [] : spec.bands.flatMap((b) => [...b.low, ...b.high]);
    const ys = [...spec.lines.flatMap((l) => l.points), ...bands].map((p) => p[1]).filter((y) => !logY || y > 0);
    if (!ys.length) return null;
    let low = Math.min(...ys), high = Math.max(...ys);
    if (spec.focus && !logY && ys.length > 20) {
      const sorted = [...ys].sort((a, b) => a - b);
      const cut = sorted[Math.floor(sorted.length * 0.95)];
      if (high - low > 1.8 * (cut - low)) high = cut + 0.15 * (cut - low);
    }
    if (spec.zero) { low = Math.min(low, 0); high = Math.max(high, 0); }
    if (high === low) { high += Math.abs(high) * 0.05 || 1; low -= Math.abs(low) * 0.05 || 1; }
    if (logY) return [low / 1.02, high * 1.02];
    const room = (high - low) * 0.06;
    return [spec.zero && low === 0 ? 0 : low - room, high + room];
  }

  function draw(chart) {
    const spec = CHARTS[chart.kind]();
    const width = Math.max(300, Math.min(chart.figure.clientWidth || 640, 1000));
    const height = Math.round(Math.max(210, Math.min(340, width * 0.46)));
    const left = 52, right = 20, top = 22, bottom = 34;
    const logY = state.logY && spec.logY;
    const xs = spec.lines.flatMap((l) => l.points.map((p) => p[0])).filter((x) => !state.logX || x > 0);
    const ys = range(spec, logY);
    chart.holder.replaceChildren();
    if (!xs.length || !ys) { chart.holder.textContent = "Not logged on this axis."; return; }
    let x0 = Math.min(...xs), x1 = Math.max(...xs);
    if (x0 === x1) { x0 -= 1; x1 += 1; }
    const fx = state.logX ? Math.log : (v) => v, fy = logY ? Math.log : (v) => v;
    const X = (v) => left + ((fx(v) - fx(x0)) / (fx(x1) - fx(x0))) * (width - left - right);
    const Y = (v) => top + (1 - (fy(v) - fy(ys[0])) / (fy(ys[1]) - fy(ys[0]))) * (height - top - bottom);
    const svg = el("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": chart.caption });
    const clip = `clip-${chart.kind}`;
    el("rect", { x: left, y: top, width: width - left - right, height: height - top - bottom }, el("clipPath", { id: clip }, el("defs", {}, svg)));
    for (const t of ticks(ys[0], ys[1], 5, logY)) {
      el("line", { class: "grid", x1: left, x2: width - right, y1: Y(t), y2: Y(t) }, svg);
      el("text", { x: left - 6, y: Y(t) + 4, "text-anchor": "end" }, svg).textContent = number(t);
    }
    for (const t of ticks(x0, x1, width < 480 ? 4 : 8, state.logX)) {
      el("text", { x: X(t), y: height - bottom + 16, "text-anchor": "middle" }, svg).textContent = xText(t);
    }
    el("text", { x: width - right, y: height - 4, "text-anchor": "end" }, svg).textContent = axes[state.x];
    el("text", { x: 4, y: 12 }, svg).textContent = spec.unit;
    el("line", { class: "grid", x1: left, x2: width - right, y1: height - bottom, y2: height - bottom }, svg);
    const inside = el("g", { "clip-path": `url(#${clip})` }, svg);
    const ok = (p) => (!state.logX || p[0] > 0) && (!logY || p[1] > 0);
    const path = (points) => points.filter(ok).map((p, i) => `${i ? "L" : "M"}${X(p[0]).toFixed(1)} ${Y(p[1]).toFixed(1)}`).join("");
    for (const band of spec.bands) {
      const low = band.low.filter(ok), high = band.high.filter(ok);
      if (low.length < 2) continue;
      el("path", { d: path(high) + path([...low].reverse()).replace("M", "L") + "Z", fill: "currentColor", class: band.cls, opacity: 0.16 }, inside);
    }
    for (const line of spec.lines) {
      const points = line.points.filter(ok);
      el("path", { d: path(points), fill: "none", stroke: "currentColor", class: line.cls, "stroke-width": line.dots ? 2 : 1.3, "stroke-linejoin": "round" }, inside);
      if (line.dots && points.length <= 120) for (const p of points) el("circle", { cx: X(p[0]), cy: Y(p[1]), r: 2.6, fill: "currentColor", class: line.cls }, inside);
    }
    for (const p of spec.star || []) if (p[0] !== null && ok(p)) {
      el("circle", { cx: X(p[0]), cy: Y(p[1]), r: 6, fill: "none", stroke: "var(--star)", "stroke-width": 2.5 }, svg);
    }
    const cross = el("line", { class: "grid", y1: top, y2: height - bottom, visibility: "hidden" }, svg);
    const show = (event) => {
      const box = svg.getBoundingClientRect();
      const at = ((event.clientX - box.left) / box.width) * width;
      const parts = [];
      let shown = null;
      for (const line of spec.lines) {
        const points = line.points.filter(ok);
        if (!points.length) continue;
        const near = points.reduce((a, b) => (Math.abs(X(b[0]) - at) < Math.abs(X(a[0]) - at) ? b : a));
        if (shown === null || Math.abs(X(near[0]) - at) < Math.abs(X(shown) - at)) shown = near[0];
        parts.push(`${line.name} ${exact(near[1])}${state.x === "seconds" ? "" : " at " + Math.round(near[0]).toLocaleString("en")}`);
      }
      if (shown === null) return;
      cross.setAttribute("x1", X(shown)); cross.setAttribute("x2", X(shown)); cross.setAttribute("visibility", "visible");
      chart.readout.textContent = `${axes[state.x]} ${state.x === "seconds" ? clock(shown) : Math.round(shown).toLocaleString("en")}: ${parts.join("; ")}`;
    };
    svg.addEventListener("pointermove", show);
    svg.addEventListener("pointerdown", show);
    svg.addEventListener("pointerleave", () => { cross.setAttribute("visibility", "hidden"); chart.readout.textContent = ""; });
    chart.holder.appendChild(svg);
  }

  const redraw = () => charts.forEach(draw);

  function html(name, text, parent, className) {
    const node = document.createElement(name);
    if (text) node.textContent = text;
    if (className) node.className = className;
    parent.appendChild(node);
    return node;
  }

  function controls(parent, spec) {
    for (const line of spec.lines) if (line.points.length) html("span", line.name, parent, `key ${line.cls}`);
    const label = html("label", "axis ", parent);
    const select = html("select", "", label);
    for (const name in axes) {
      if (!curveX(name).some((v) => v !== null) && !evals.some((e) => e[name] !== null)) continue;
      const option = html("option", axes[name], select);
      option.value = name;
    }
    select.addEventListener("change", () => { state.x = select.value; sync(); });
    const boxes = [["log x", "logX"]].concat(spec.logY ? [["log y", "logY"]] : []);
    for (const [text, key] of boxes) {
      const holder = html("label", "", parent), box = html("input", "", holder);
      box.type = "checkbox"; box.dataset.key = key;
      holder.append(" " + text);
      box.addEventListener("change", () => { state[key] = box.checked; sync(); });
    }
    return select;
  }

  const selects = [];
  function sync() {
    selects.forEach((s) => { s.value = state.x; });
    document.querySelectorAll("input[data-key]").forEach((b) => { b.checked = state[b.dataset.key]; });
    redraw();
  }

  // "What was the learning rate at step N?"
  function lookup(parent) {
    const label = html("label", "at step ", parent), input = html("input", "", label), answer = html("output", "", parent);
    input.type = "number"; input.min = 0; input.placeholder = "step";
    input.addEventListener("input", () => {
      const step = Number(input.value), known = c.step.map((s, i) => [s, c.lr[i]]).filter((p) => p[1] !== null);
      if (input.value === "" || !known.length) { answer.textContent = ""; return; }
      const near = known.reduce((a, b) => (Math.abs(b[0] - step) < Math.abs(a[0] - step) ? b : a));
      const where = c.rows_per_point > 1 ? `mean of ${c.rows_per_point} rows about step` : "logged at step";
      answer.textContent = `${near[1].toPrecision(4)} (${where} ${near[0].toLocaleString("en")})`;
    });
  }

  for (const figure of document.querySelectorAll("figure[data-chart]")) {
    const caption = figure.querySelector("figcaption");
    for (const kind of figure.dataset.chart.split(" ")) add(figure, caption, kind);
  }
  function add(figure, caption, kind) {
    const spec = CHARTS[kind]();
    if (kind === "speed" || kind === "norm") if (!spec.lines[0].points.length) return;
    const bar = document.createElement("div"), holder = document.createElement("div"), readout = document.createElement("div");
    bar.className = "controls"; readout.className = "readout";
    figure.insertBefore(bar, caption); figure.insertBefore(holder, caption); figure.insertBefore(readout, caption);
    selects.push(controls(bar, spec));
    if (kind === "lr") lookup(bar);
    charts.push({ kind, figure, holder, readout, caption: caption.textContent });
  }
  redraw();
  let waiting = 0;
  window.addEventListener("resize", () => { cancelAnimationFrame(waiting); waiting = requestAnimationFrame(redraw); });
  window.addEventListener("beforeprint", () => { document.querySelectorAll("details").forEach((d) => { d.open = true; }); });
})();

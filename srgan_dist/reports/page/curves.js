// One plot for each logged value.

// An exponential moving average that begins without a bias, over the points that there are.
function smoothed(values, amount) {
  if (!amount) return values;
  let sum = 0, weight = 0;
  return values.map((value) => {
    if (!isNumber(value)) return null;
    sum = amount * sum + (1 - amount) * value;
    weight = amount * weight + (1 - amount);
    return sum / weight;
  });
}
function pointsOf(run, key) {
  const xs = run.series[state.axis], ys = run.series.values[key];
  if (!xs || !ys) return [[], []];
  const rows = [...xs.keys()].filter((row) => isNumber(xs[row]) && isNumber(ys[row]));
  return [rows.map((row) => xs[row]), rows.map((row) => ys[row])];
}
function at(xs, ys, x) {
  let low = 0, high = xs.length - 1;
  if (!xs.length || x < xs[0] || x > xs[high]) return null;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (xs[middle] <= x) low = middle; else high = middle;
  }
  const span = xs[high] - xs[low];
  return span ? ys[low] + ((x - xs[low]) / span) * (ys[high] - ys[low]) : ys[low];
}
// The lines of one plot: [label, run id for the colour, xs, ys, options].
function linesOf(curve) {
  const amount = curve.key.startsWith("val/") ? 0 : state.smoothing; // validations are few, and means already
  const isLog = state.scale === "log" || (state.scale === "auto" && curve.log);
  const clean = (ys) => (isLog ? ys.map((y) => (y > 0 ? y : null)) : ys);
  const lines = [];
  if (state.seeds === "mean") {
    for (const group of DATA.groups) {
      const of = group.runs.map((id) => RUNS[id]).filter((run) => !state.hidden.has(run.id))
        .map((run) => { const [xs, ys] = pointsOf(run, curve.key); return [xs, smoothed(ys, amount)]; }).filter(([xs]) => xs.length);
      if (!of.length) continue;
      const grid = of.reduce((longest, one) => (one[0].length > longest.length ? one[0] : longest), []);
      const rows = grid.map((x) => of.map(([xs, ys]) => at(xs, ys, x)).filter(isNumber));
      const mean = rows.map((row) => (row.length === of.length ? row.reduce((sum, y) => sum + y, 0) / row.length : null));
      const spread = rows.map((row, index) => (row.length > 1 && isNumber(mean[index]) ? Math.sqrt(row.reduce((sum, y) => sum + (y - mean[index]) ** 2, 0) / (row.length - 1)) : null));
      const id = group.runs[0];
      lines.push([group.name, id, grid, clean(mean), {}]);
      if (of.length > 1) {
        const edge = (sign) => clean(mean.map((y, index) => (isNumber(y) && isNumber(spread[index]) ? y + sign * spread[index] : null)));
        lines.push([null, id, grid, edge(1), { edge: "high" }], [null, id, grid, edge(-1), { edge: "low" }]);
      }
    }
    return [lines, isLog];
  }
  const runs = shown();
  for (const run of runs) {
    const [xs, ys] = pointsOf(run, curve.key);
    if (!xs.length) continue;
    if (amount && runs.length <= MOST_RAW) lines.push([null, run.id, xs, clean(ys), { faint: true }]);
    lines.push([run.name, run.id, xs, clean(smoothed(ys, amount)), {}]);
  }
  return [lines, isLog];
}

function plot(curve, box) {
  let chart = null;
  const read = box.querySelector(".read"), canvas = box.querySelector(".canvas");
  function draw() {
    chart?.destroy();
    chart = null;
    const [lines, isLog] = linesOf(curve);
    box.dataset.lines = String(lines.filter(([label]) => label !== null).length);
    read.textContent = lines.length ? " " : "no values of the runs that are shown";
    if (!lines.length) return;
    const data = uPlot.join(lines.map(([, , xs, ys]) => [xs, ys]));
    const values = lines.flatMap(([, , , ys]) => ys.filter(isNumber));
    const isSparse = lines.every(([, , xs]) => xs.length < 30);
    const series = lines.map(([label, id, , , options]) => ({
      label: label ?? "", stroke: () => colour(id) + (options.faint ? "40" : options.edge ? "00" : ""), width: options.faint ? 1 : 1.8,
      dash: dash(id), spanGaps: true, points: { show: isSparse && !options.faint && !options.edge, size: 5 },
    }));
    const bands = lines.flatMap(([, id, , , options], index) => (options.edge === "high" ? [{ series: [index + 1, index + 2], fill: () => `${colour(id)}2b` }] : []));
    const axis = { stroke: () => style("--soft"), grid: { stroke: () => style("--line"), width: 1 }, ticks: { show: false }, font: "12px system-ui" };
    chart = new uPlot({
      width: canvas.clientWidth, height: canvas.clientHeight, pxAlign: 1, legend: { show: false }, padding: [10, 12, 0, 0],
      scales: { x: { time: false }, y: isLog && values.length ? { distr: 3 } : {} },
      axes: [{ ...axis, values: (_, marks) => marks.map((mark) => (mark >= 1e4 ? `${mark / 1000}k` : brief(mark))), space: 60, size: 30 },
        { ...axis, size: 62, values: (_, marks) => marks.map((mark) => (mark === null ? "" : brief(mark))) }],
      cursor: { y: false, points: { size: 7 }, sync: { key: "curves" } },
      series: [{}, ...series], bands,
      hooks: { setCursor: [(self) => {
        const row = self.cursor.idx;
        if (row == null) { read.textContent = " "; return; }
        // Each line's nearest value at or before the cursor: the lines have their values at other places.
        const parts = lines.flatMap(([label, , , , options], index) => {
          if (label === null || options.faint) return [];
          let nearest = row;
          while (nearest >= 0 && data[index + 1][nearest] == null) nearest--;
          return nearest < 0 ? [] : [`${label} ${brief(data[index + 1][nearest])}`];
        });
        const where = state.axis === "hours" ? hours(data[0][row]) : whole(data[0][row]);
        read.textContent = `${where}: ${parts.join("   ")}`;
        read.title = read.textContent;
      }] },
    }, data, canvas);
  }
  new ResizeObserver(() => { if (chart && canvas.clientWidth) chart.setSize({ width: canvas.clientWidth, height: canvas.clientHeight }); }).observe(canvas);
  return draw;
}

function curves() {
  byId("curves").hidden = !DATA.curves.length;
  document.querySelector('nav a[href="#curves"]').hidden = !DATA.curves.length;
  if (!DATA.curves.length) return;
  const axes = Object.entries(AXES).filter(([axis]) => RUNS.some((run) => run.series[axis]?.some(isNumber)));
  if (!axes.some(([axis]) => axis === state.axis)) state.axis = axes[0]?.[0] ?? "step";
  const amount = make("input", { type: "range", min: 0, max: 0.99, step: 0.01, value: state.smoothing, id: "smoothing", "aria-label": "smoothing" });
  const value = make("output", { for: "smoothing" }, state.smoothing.toFixed(2));
  amount.addEventListener("input", () => {
    state.smoothing = Number(amount.value);
    value.textContent = state.smoothing ? state.smoothing.toFixed(2) : "off";
    drawAll();
  });
  const change = (name) => (key) => { state[name] = key; drawAll(); };
  byId("curve-controls").append(
    make("label", {}, "against", segments("horizontal axis", axes, state.axis, change("axis"))),
    make("label", {}, "scale", segments("vertical scale", [["auto", "as suits"], ["linear", "linear"], ["log", "log"]], state.scale, change("scale"))),
    make("label", {}, "smoothing", amount, value));
  if (DATA.groups.some((group) => group.runs.length > 1)) {
    byId("curve-controls").append(make("label", {}, "seeds", segments("seeds", [["each", "each"], ["mean", "mean ± sd"]], state.seeds, change("seeds"))));
  }
  for (const run of RUNS) {
    const chip = make("button", { type: "button", title: run.name, "data-run": run.id, onclick: () => setHidden(run.id, !state.hidden.has(run.id)) }, swatch(run.id), make("span", {}, run.name));
    redraws.add(() => chip.setAttribute("aria-pressed", String(!state.hidden.has(run.id))));
    byId("legend").append(chip);
  }
  // A plot is drawn when it comes into view: fifty runs have a million points.
  const draws = new Map(), stale = new Set(), visible = new Set();
  const seenNow = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      visible[isIntersecting ? "add" : "delete"](target);
      if (isIntersecting && stale.delete(target)) draws.get(target)();
    }
  }, { rootMargin: "200px" });
  for (const curve of DATA.curves) {
    const head = make("h3", {}, curve.label + direction(curve.key), curve.label === curve.key ? null : make("span", { class: "key" }, curve.key));
    const box = make("div", { class: "plot", "data-curve": curve.key }, head, make("div", { class: "canvas" }), make("p", { class: "read" }, " "));
    byId("plots").append(box);
    draws.set(box, plot(curve, box));
    stale.add(box);
    seenNow.observe(box);
  }
  function drawAll() {
    for (const [box, draw] of draws) {
      if (visible.has(box)) draw();
      else stale.add(box);
    }
  }
  redraws.add(drawAll);
  window.addEventListener("beforeprint", () => { // paper has no view to come into, and is white
    visible.clear();
    for (const box of draws.keys()) visible.add(box);
    drawAll();
  });
}

// Perception against distortion, a path over the validations for each run.

function ticks(low, high, count = 5) {
  const rough = (high - low) / count || 1, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((one) => one * power).find((one) => one >= rough);
  const found = [];
  for (let at = Math.ceil(low / step) * step; at <= high + step * 1e-9; at += step) found.push(at);
  return [found, Math.max(0, -Math.floor(Math.log10(step)))];
}
function tradeoff() {
  const distortions = measured.filter(({ better }) => better === "max"), perceptions = measured.filter(({ better }) => better === "min");
  byId("tradeoff").hidden = !distortions.length || !perceptions.length;
  document.querySelector('nav a[href="#tradeoff"]').hidden = byId("tradeoff").hidden;
  if (byId("tradeoff").hidden) return;
  let across = distortions[0].key, up = perceptions[0].key;
  const options = (all) => all.map(({ key, label }) => [key, label]);
  const controls = byId("tradeoff-controls");
  if (distortions.length > 1) controls.append(select("Distortion", options(distortions), across, (key) => { across = key; draw(); })[0]);
  if (perceptions.length > 1) controls.append(select("Perception", options(perceptions), up, (key) => { up = key; draw(); })[0]);
  const paths = () => shown().map((run) => {
    const { step, values } = run.series, xs = values[across] ?? [], ys = values[up] ?? [];
    return [run, step.map((at, row) => [xs[row], ys[row], at]).filter(([x, y]) => isNumber(x) && isNumber(y))];
  }).filter(([, points]) => points.length);
  function draw() {
    const all = paths(), base = DATA.baseline && [DATA.baseline[across], DATA.baseline[up]];
    const points = all.flatMap(([, path]) => path);
    if (!points.length) { byId("scatter").replaceChildren(make("p", { class: "empty" }, "No run that is shown was validated.")); return; }
    const wide = Math.max(300, byId("scatter").clientWidth), isSmall = wide < 600;
    const [high, left, right, top, bottom] = [isSmall ? 360 : 500, 62, 14, 18, 52];
    const range = (at) => {
      const values = points.map((point) => point[at]), least = Math.min(...values), most = Math.max(...values), margin = (most - least || Math.abs(most) || 1) * 0.08;
      return [least - margin, most + margin];
    };
    // Bicubic is drawn where it is not so far off that the runs would become a blot.
    const isNear = (at) => { const [low, high] = range(at); return base[at] > low - (high - low) / 2 && base[at] < high + (high - low) / 2; };
    const hasBase = base && base.every(isNumber) && isNear(0) && isNear(1);
    if (hasBase) points.push(base);
    const [x0, x1] = range(0), [y0, y1] = range(1);
    const px = (x) => left + ((x - x0) / (x1 - x0)) * (wide - left - right);
    const py = (y) => high - bottom - ((y - y0) / (y1 - y0)) * (high - top - bottom);
    const name = (key) => metric(key).label + (metric(key).unit ? ` (${metric(key).unit})` : "");
    const svg = drawn("svg", { viewBox: `0 0 ${wide} ${high}`, width: wide, height: high, role: "img", "aria-label": `${name(up)} against ${name(across)}, a path for each run` });
    const text = (content, attributes) => { const one = drawn("text", attributes); one.textContent = content; svg.append(one); return one; };
    const [xTicks, xDigits] = ticks(x0, x1, isSmall ? 4 : 7), [yTicks, yDigits] = ticks(y0, y1);
    for (const x of xTicks) {
      svg.append(drawn("line", { class: "axis", x1: px(x), x2: px(x), y1: top, y2: high - bottom }));
      text(x.toFixed(xDigits), { x: px(x), y: high - bottom + 18, "text-anchor": "middle" });
    }
    for (const y of yTicks) {
      svg.append(drawn("line", { class: "axis", x1: left, x2: wide - right, y1: py(y), y2: py(y) }));
      text(y.toFixed(yDigits), { x: left - 8, y: py(y) + 4, "text-anchor": "end" });
    }
    text(`${name(across)}: higher is better →`, { x: (left + wide - right) / 2, y: high - 10, "text-anchor": "middle" });
    text(`← ${name(up)}: lower is better`, { x: 0, y: 0, "text-anchor": "middle", transform: `translate(14 ${(top + high - bottom) / 2}) rotate(-90)` });
    text("both better ↘", { class: "better", x: wide - right - 8, y: high - bottom - 10, "text-anchor": "end" });
    if (hasBase) {
      const [x, y] = [px(base[0]), py(base[1])];
      svg.append(drawn("path", { class: "base", d: `M${x - 5} ${y - 5}l10 10m0 -10l-10 10` }));
      text("bicubic", { x: x + 9, y: y + 4 });
    }
    const taken = []; // by names: one that would lie on another is left to the pointer
    for (const [run, path] of all) {
      const at = path.map(([x, y]) => `${px(x).toFixed(1)},${py(y).toFixed(1)}`);
      svg.append(drawn("polyline", { points: at.join(" "), fill: "none", stroke: colour(run.id), "stroke-width": 1.5, "stroke-opacity": 0.65, "stroke-dasharray": dash(run.id).join(" ") }));
      path.forEach(([x, y, step], row) => {
        const last = row === path.length - 1, mark = drawn("circle", { cx: px(x), cy: py(y), r: (last ? 6 : 2.4) * (isSmall ? 0.7 : 1), fill: colour(run.id), "data-run": run.id });
        const title = drawn("title");
        title.textContent = `${run.name}, step ${whole(step)}: ${brief(x)}, ${brief(y)}`;
        mark.append(title);
        svg.append(mark);
      });
      const [x, y] = path.at(-1), onRight = px(x) < wide * 0.72, long = 7 * run.name.length;
      const box = [px(x) + (onRight ? 10 : -10 - long), py(y) - 7, long];
      if (taken.some(([left, top, size]) => Math.abs(top - box[1]) < 14 && left < box[0] + long && box[0] < left + size)) continue;
      taken.push(box);
      text(run.name, { class: "name", x: px(x) + (onRight ? 10 : -10), y: box[1], "text-anchor": onRight ? "start" : "end" });
    }
    byId("scatter").replaceChildren(svg);
  }
  redraws.add(draw);
  let wideBefore = 0;
  new ResizeObserver(([entry]) => {
    if (entry.contentRect.width === wideBefore) return;
    wideBefore = entry.contentRect.width;
    draw();
  }).observe(byId("scatter"));
}

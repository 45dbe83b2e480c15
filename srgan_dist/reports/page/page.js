// What the page does. Text enters the document by textContent only: names of runs and files are anybody's.
(() => {
  "use strict";

  const DATA = JSON.parse(document.getElementById("data").textContent);
  const RUNS = DATA.runs;
  // Okabe and Ito's palette, which the colour-blind can tell apart, darker or lighter as the page is; then dashes.
  const COLOURS = {
    light: ["#0072b2", "#d55e00", "#008f68", "#b0457f", "#8a6d00", "#4a3aa7", "#5f6b76", "#2a8fc0"],
    dark: ["#5db3e6", "#ff8a4c", "#3fc79a", "#e08bbb", "#e0c04a", "#a99cf5", "#aab4be", "#8fd0f0"],
  };
  const DASHES = [[], [7, 4], [2, 3], [9, 3, 2, 3]];
  const AXES = { step: "steps", images: "images", hours: "hours" };
  const MOST_RAW = 8; // runs beyond which the unsmoothed lines would hide the smoothed ones

  const state = {
    hidden: new Set(RUNS.filter((run) => run.state === "broken").map((run) => run.id)),
    image: 0, step: Infinity, zoom: 1, x: 0, y: 0, first: null, second: null, mode: "divider", gain: 4,
    axis: "step", smoothing: 0, scale: "auto", seeds: "each",
  };
  const redraws = new Set(); // what is drawn anew when runs are hidden or colours change

  // ---- small tools

  function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (value === true) element.setAttribute(name, "");
      else if (value !== false && value != null) element.setAttribute(name, value);
    }
    element.append(...children.filter((child) => child != null));
    return element;
  }
  function drawn(tag, attributes = {}, ...children) {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  }
  const byId = (id) => document.getElementById(id);
  const theme = () => document.documentElement.dataset.theme;
  const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const colour = (id) => COLOURS[theme()][id % COLOURS.light.length];
  const dash = (id) => DASHES[Math.floor(id / COLOURS.light.length) % DASHES.length];
  const shown = () => RUNS.filter((run) => !state.hidden.has(run.id));
  const isNumber = (value) => typeof value === "number" && Number.isFinite(value);
  const metric = (key) => DATA.metrics.find((one) => one.key === key);
  

  function fixed(value, digits) {
    return isNumber(value) ? value.toFixed(digits) : "–";
  }
  function whole(value) {
    return isNumber(value) ? Math.round(value).toLocaleString("en") : "–";
  }
  function brief(value) {
    if (!isNumber(value)) return "–";
    const size = Math.abs(value);
    if (size >= 1e5 || (size > 0 && size < 1e-3)) return value.toExponential(2);
    return String(Number(value.toPrecision(4)));
  }
  function hours(value) {
    if (!isNumber(value)) return "–";
    return value < 0.1 ? `${(value * 60).toFixed(1)} min` : `${value.toFixed(2)} h`;
  }
  function plain(value) {
    if (value === null || value === undefined) return "–";
    return typeof value === "object" ? JSON.stringify(value) : String(value);
  }
  function swatch(id) {
    const line = drawn("svg", { class: "swatch", viewBox: "0 0 22 10", "aria-hidden": "true" });
    const stroke = drawn("line", { x1: 0, y1: 5, x2: 22, y2: 5, "stroke-width": 4, "stroke-dasharray": dash(id).join(" ") });
    const paint = () => stroke.setAttribute("stroke", colour(id));
    paint();
    redraws.add(paint);
    line.append(stroke);
    return line;
  }
  function select(label, options, value, change) {
    const box = make("select", { onchange: () => change(box.value) });
    for (const [key, text] of options) box.append(make("option", { value: key }, text));
    box.value = String(value);
    return [make("label", {}, label, box), box];
  }
  function segments(label, options, value, change) {
    const group = make("span", { class: "segments", role: "group", "aria-label": label });
    for (const [key, text] of options) {
      const button = make("button", { type: "button", "aria-pressed": String(key === value), "data-value": key }, text);
      button.addEventListener("click", () => {
        for (const other of group.children) other.setAttribute("aria-pressed", String(other === button));
        change(key);
      });
      group.append(button);
    }
    return group;
  }
  function redraw() {
    for (const draw of redraws) draw();
  }
  function setHidden(id, hide) {
    state.hidden[hide ? "add" : "delete"](id);
    redraw();
  }
  function download(name, rows) {
    const cell = (value) => {
      const text = value === null || value === undefined ? "" : typeof value === "object" ? JSON.stringify(value) : String(value);
      return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
    };
    const file = new Blob([rows.map((row) => row.map(cell).join(",") + "\n").join("")], { type: "text/csv" });
    const link = make("a", { href: URL.createObjectURL(file), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  }

  // ---- the table of runs

  const measured = DATA.metrics.filter(({ key }) => RUNS.some((run) => isNumber(run.final[key]) || run.best[key]));

  function columns() {
    const unit = (one) => (one.unit ? ` (${one.unit})` : "");
    const of = (key, label, value, show, better) => ({ key, label, value, show, better });
    const found = [of("state", "state", (run) => run.state, null)];
    if (new Set(RUNS.map((run) => run.n)).size > 1) found.push(of("n", "n of n:1", (run) => run.n, (run) => plain(run.n)));
    for (const one of measured) {
      const best = (run) => run.best[one.key];
      found.push(of(`${one.key} last`, `${one.label}${unit(one)}, last`, (run) => run.final[one.key], (run) => fixed(run.final[one.key], one.digits), one.better));
      found.push(of(`${one.key} best`, `best`, (run) => best(run)?.value ?? null,
        (run) => (best(run) ? [fixed(best(run).value, one.digits), make("span", { class: "at" }, ` @ ${whole(best(run).step)}`)] : "–"), one.better));
    }
    found.push(of("step", "step", (run) => run.step, (run) => (isNumber(run.planned_steps) && run.planned_steps !== run.step ? `${whole(run.step)} of ${whole(run.planned_steps)}` : whole(run.step))));
    found.push(of("images", "images", (run) => run.images, (run) => whole(run.images)));
    found.push(of("hours", "time", (run) => run.hours, (run) => hours(run.hours)));
    found.push(of("parameters", "parameters", (run) => run.parameters, (run) => whole(run.parameters)));
    found.push(of("memory_gib", "memory (GiB)", (run) => run.memory_gib, (run) => fixed(run.memory_gib, 2)));
    for (const key of DATA.differing) found.push({ ...of(key, key, (run) => run.config[key] ?? null, (run) => plain(run.config[key])), isConfig: true });
    return found.filter((column) => column.isConfig || column.key === "state" || RUNS.some((run) => column.value(run) != null));
  }

  function runTable() {
    const table = byId("run-table"), all = columns(), body = make("tbody");
    const heads = [["name", "run", (run) => run.name], ...all.map((column) => [column.key, column.label, column.value, column.isConfig])];
    const row = make("tr");
    for (const [key, label, value, isConfig] of heads) {
      const button = make("button", { type: "button", class: isConfig ? "key" : null, title: key === label ? null : key }, label);
      const head = make("th", { scope: "col", class: key === "name" || key === "state" ? "text" : null }, button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        for (const other of row.children) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        sort(value, down ? -1 : 1);
      });
      row.append(head);
    }
    const rows = new Map();
    for (const run of RUNS) {
      const box = make("input", { type: "checkbox", "aria-label": `show ${run.name}` });
      box.addEventListener("change", () => setHidden(run.id, !box.checked));
      const name = make("th", { scope: "row", title: run.folder }, make("label", {}, box, swatch(run.id), make("span", { class: "name" }, run.name)));
      const line = make("tr", { "data-run": run.id }, name);
      for (const column of all) {
        if (column.key === "state") {
          line.append(make("td", { class: "text" }, make("span", { class: `state ${run.state}`, title: run.note }, run.state)));
          continue;
        }
        const shownValue = column.show(run);
        const values = RUNS.map(column.value).filter(isNumber);
        const top = column.better === "max" ? Math.max(...values) : Math.min(...values);
        const best = column.better && values.length > 1 && column.value(run) === top;
        line.append(make("td", { class: best ? "best" : null }, ...(Array.isArray(shownValue) ? shownValue : [shownValue])));
      }
      redraws.add(() => {
        box.checked = !state.hidden.has(run.id);
        line.classList.toggle("off", !box.checked);
      });
      rows.set(run.id, line);
      body.append(line);
    }
    function sort(value, sign) {
      const ordered = [...RUNS].sort((one, two) => {
        const [a, b] = [value(one), value(two)];
        if (a == null || b == null) return (a == null) - (b == null); // what is not known comes last either way
        return sign * (isNumber(a) && isNumber(b) ? a - b : plain(a).localeCompare(plain(b), "en", { numeric: true }));
      });
      body.append(...ordered.map((run) => rows.get(run.id)));
    }
    table.append(make("thead", {}, row), body);
    byId("csv-runs").addEventListener("click", () => {
      const facts = ["name", "folder", "state", "note", "seed", "n", "step", "planned_steps", "images", "hours", "parameters", "memory_gib"];
      const head = [...facts, ...measured.flatMap(({ key }) => [`${key} last`, `${key} best`, `${key} best step`]), ...DATA.differing];
      const line = (run) => [
        ...facts.map((fact) => run[fact]),
        ...measured.flatMap(({ key }) => [run.final[key], run.best[key]?.value, run.best[key]?.step]),
        ...DATA.differing.map((key) => run.config[key]),
      ];
      download("runs.csv", [head, ...RUNS.map(line)]);
    });
    byId("csv-curves").addEventListener("click", () => {
      const keys = DATA.curves.map((curve) => curve.key), rowsOut = [["run", "step", "images", "hours", ...keys]];
      for (const { name, series } of RUNS) {
        series.step.forEach((step, at) => {
          rowsOut.push([name, step, series.images?.[at], series.hours?.[at], ...keys.map((key) => series.values[key]?.[at])]);
        });
      }
      download("curves.csv", rowsOut);
    });
  }

  function seedTable() {
    const several = DATA.groups.filter((group) => group.runs.length > 1);
    byId("seeds").hidden = !several.length || !measured.length;
    document.querySelector('nav a[href="#seeds"]').hidden = byId("seeds").hidden;
    const heads = ["experiment", "seeds", ...measured.map((one) => one.label + (one.unit ? ` (${one.unit})` : ""))];
    const cells = heads.map((text, at) => make("th", { scope: "col", class: at ? null : "text" }, make("span", {}, text)));
    const best = new Map(measured.map(({ key, better }) => {
      const means = DATA.groups.map((group) => group.final[key]?.mean).filter(isNumber);
      return [key, means.length > 1 ? Math[better](...means) : null];
    }));
    const body = make("tbody");
    for (const group of DATA.groups) {
      if (!measured.some(({ key }) => isNumber(group.final[key]?.mean))) continue; // nothing to say of it
      const line = make("tr", {}, make("th", { scope: "row" }, group.name), make("td", {}, String(group.runs.length)));
      for (const { key, digits } of measured) {
        const of = group.final[key];
        const text = !of || !isNumber(of.mean) ? "–" : isNumber(of.sd) ? `${fixed(of.mean, digits)} ± ${fixed(of.sd, digits)}` : fixed(of.mean, digits);
        const count = of && of.count < group.runs.length ? make("span", { class: "at" }, ` of ${of.count}`) : null;
        line.append(make("td", { class: of && of.mean === best.get(key) ? "best" : null }, text, count));
      }
      body.append(line);
    }
    byId("seed-table").append(make("thead", {}, make("tr", {}, ...cells)), body);
  }

  // ---- the same crops of all runs

  const frames = new Set(); // that zoom together; each has a function that places its content

  function frame(image, label) {
    const box = make("div", { class: "frame" });
    box.style.setProperty("--ratio", `${image.width} / ${image.height}`);
    if (label) box.setAttribute("aria-label", label);
    return box;
  }
  function place() {
    for (const box of frames) {
      if (!box.isConnected) { frames.delete(box); continue; }
      box.classList.toggle("zoomed", state.zoom > 1);
      for (const content of box.querySelectorAll("img, canvas")) {
        content.style.transform = `scale(${state.zoom}) translate(${-100 * state.x}%, ${-100 * state.y}%)`;
      }
    }
    byId("zoom-value").textContent = `${state.zoom.toFixed(state.zoom < 10 ? 1 : 0)}×`;
  }
  // x and y are the left and top edge of what is shown, as fractions of the image.
  function zoomTo(zoom, atX = 0.5, atY = 0.5) {
    const before = state.zoom;
    state.zoom = Math.min(16, Math.max(1, zoom));
    state.x += atX * (1 / before - 1 / state.zoom);
    state.y += atY * (1 / before - 1 / state.zoom);
    pan(0, 0);
  }
  function pan(dx, dy) {
    const most = 1 - 1 / state.zoom;
    state.x = Math.min(most, Math.max(0, state.x + dx));
    state.y = Math.min(most, Math.max(0, state.y + dy));
    place();
  }
  function movable(box, { drags = true } = {}) {
    frames.add(box);
    const fingers = new Map();
    box.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.metaKey) return; // the page scrolls
      event.preventDefault();
      const area = box.getBoundingClientRect();
      zoomTo(state.zoom * Math.exp(-event.deltaY / 300), (event.clientX - area.left) / area.width, (event.clientY - area.top) / area.height);
    }, { passive: false });
    if (!drags) return;
    box.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      fingers.set(event.pointerId, event);
      if (state.zoom > 1 || fingers.size > 1) box.setPointerCapture(event.pointerId);
    });
    box.addEventListener("pointermove", (event) => {
      const last = fingers.get(event.pointerId);
      if (!last) return;
      const area = box.getBoundingClientRect(), other = [...fingers.values()].find((one) => one.pointerId !== event.pointerId);
      if (other) {
        const apart = (one) => Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY) || 1;
        zoomTo((state.zoom * apart(event)) / apart(last), (other.clientX - area.left) / area.width, (other.clientY - area.top) / area.height);
      } else if (state.zoom > 1) {
        pan((last.clientX - event.clientX) / area.width / state.zoom, (last.clientY - event.clientY) / area.height / state.zoom);
      }
      fingers.set(event.pointerId, event);
    });
    for (const end of ["pointerup", "pointercancel", "lostpointercapture"]) box.addEventListener(end, (event) => fingers.delete(event.pointerId));
  }

  const image = () => DATA.images[state.image];
  const cropsOf = (run) => run.crops[String(state.image)] ?? [];
  function cropAt(run, step) {
    return cropsOf(run).reduce((found, one) => (one[0] <= step ? one : found), null);
  }
  function stepsOf() {
    return [...new Set(RUNS.flatMap((run) => cropsOf(run).map(([step]) => step)))].sort((a, b) => a - b);
  }
  // What can be looked at: [key, label, asset or null, step or null].
  function sources() {
    const one = image(), fixedOnes = [["hr", "HR"], ["bicubic", "bicubic"], ["lr", "LR"]];
    const found = fixedOnes.filter(([key]) => one[key] != null).map(([key, label]) => [key, label, one[key], null]);
    for (const run of shown()) {
      const crop = cropAt(run, state.step);
      if (cropsOf(run).length) found.push([String(run.id), run.name, crop ? crop[1] : null, crop ? crop[0] : null]);
    }
    return found;
  }
  function picture(asset, label) {
    return make("img", { src: DATA.assets[asset], alt: label, decoding: "async", draggable: "false" });
  }

  function images() {
    byId("images").hidden = !DATA.images.length;
    document.querySelector('nav a[href="#images"]').hidden = !DATA.images.length;
    if (!DATA.images.length) return;
    const controls = byId("image-controls");
    const [chooser] = select("Image", DATA.images.map((one, at) => [at, one.name]), 0, (value) => {
      state.image = Number(value);
      newImage();
    });
    const scrubber = make("input", { type: "range", min: 0, step: 1, id: "scrubber", "aria-label": "training step" });
    const at = make("output", { for: "scrubber", id: "scrubber-step" });
    scrubber.addEventListener("input", () => { state.step = stepsOf()[Number(scrubber.value)]; refresh(); });
    const zoom = make("span", { class: "segments", role: "group", "aria-label": "zoom" },
      make("button", { type: "button", id: "zoom-out", "aria-label": "zoom out", onclick: () => zoomTo(state.zoom / 1.5) }, "−"),
      make("button", { type: "button", id: "zoom-in", "aria-label": "zoom in", onclick: () => zoomTo(state.zoom * 1.5) }, "+"),
      make("button", { type: "button", id: "zoom-reset", onclick: () => zoomTo(1) }, "Fit"));
    const value = make("output", { id: "zoom-value" });
    controls.append(chooser, make("label", {}, "Step", scrubber, at), make("span", { class: "controls" }, zoom, value));

    const modes = [["divider", "Divider"], ["blink", "Blink"], ["difference", "Difference"]];
    const pair = make("span", { class: "controls" });
    const gain = make("input", { type: "range", min: 1, max: 16, step: 1, value: state.gain, "aria-label": "amplification of the difference" });
    const gainValue = make("output", {}, `${state.gain}×`);
    gain.addEventListener("input", () => { state.gain = Number(gain.value); gainValue.textContent = `${state.gain}×`; stage(); });
    const gainLabel = make("label", {}, "amplified", gain, gainValue);
    const toggle = make("button", { type: "button", id: "blink", onclick: blink }, "Switch (B)");
    byId("versus-controls").append(segments("way of comparing", modes, state.mode, (mode) => { state.mode = mode; stage(); }), pair, toggle, gainLabel);
    let blinked = false, position = 50;

    function newImage() {
      const steps = stepsOf();
      scrubber.max = Math.max(0, steps.length - 1);
      scrubber.value = scrubber.max;
      scrubber.disabled = steps.length < 2;
      state.step = steps.at(-1) ?? Infinity;
      refresh();
      zoomTo(1);
    }
    function refresh() {
      const steps = stepsOf();
      at.textContent = steps.length ? whole(state.step) : "–";
      scrubber.setAttribute("aria-valuetext", `step ${at.textContent}`);
      const all = sources(), keys = all.map(([key]) => key), runs = all.filter(([, , , step]) => step != null).map(([key]) => key);
      if (!keys.includes(state.first)) state.first = runs.find((key) => key !== state.second) ?? keys[0];
      const isOther = (key) => key !== state.first && RUNS[Number(key)].group !== RUNS[Number(state.first)]?.group;
      if (!keys.includes(state.second)) state.second = runs.find(isOther) ?? keys.find((key) => key === "hr") ?? keys[0];
      const options = all.map(([key, label]) => [key, label]);
      const [one] = select("A", options, state.first, (key) => { state.first = key; stage(); });
      const [two] = select("B", options, state.second, (key) => { state.second = key; stage(); });
      pair.replaceChildren(one, two);
      grid(all);
      stage();
    }
    function grid(all) {
      byId("grid").replaceChildren(...all.map(([key, label, asset, step]) => {
        const box = frame(image(), label), isRun = !["hr", "bicubic", "lr"].includes(key);
        box.append(asset == null ? make("span", { class: "absent" }, "no crop yet at this step") : picture(asset, `${label}, ${image().name}`));
        movable(box);
        const caption = make("figcaption", {}, isRun ? swatch(Number(key)) : null, make("span", {}, label), step == null ? null : make("span", { class: "at" }, whole(step)));
        return make("figure", { "data-source": key }, box, caption);
      }));
      place();
    }
    function stage() {
      const all = sources(), of = (key) => all.find((one) => one[0] === key) ?? all[0];
      const [first, second] = [of(state.first), of(state.second)];
      const title = ([, label, , step]) => (step == null ? label : `${label} · ${whole(step)}`);
      const hints = {
        divider: "Drag the divider, or focus it and use the arrow keys, Home and End: A is on its left, B on its right.",
        blink: "Press B, or the button, to switch between A and B in place.",
        difference: "The absolute difference of A and B in each channel, amplified. Choose HR as one of them for the error.",
      };
      byId("versus-hint").textContent = hints[state.mode];
      toggle.hidden = state.mode !== "blink";
      gainLabel.hidden = state.mode !== "difference";
      const content = [];
      if (!first || !second || first[2] == null || second[2] == null) {
        const box = frame(image());
        box.append(make("span", { class: "absent" }, "no crop yet at this step"));
        content.push(box);
      } else if (state.mode === "divider") {
        content.push(divider(first, second, title));
      } else if (state.mode === "blink") {
        const box = frame(image()), now = blinked ? second : first;
        box.append(picture(now[2], title(now)), make("span", { class: "which", id: "blink-which", role: "status" }, `${blinked ? "B" : "A"}: ${title(now)}`));
        movable(box);
        content.push(box);
      } else {
        const box = frame(image()), canvas = make("canvas", { id: "difference", width: image().width, height: image().height, role: "img", "aria-label": `difference of ${title(first)} and ${title(second)}` });
        box.append(canvas, make("span", { class: "which" }, `|${title(first)} − ${title(second)}| × ${state.gain}`));
        movable(box);
        difference(canvas, first[2], second[2]);
        content.push(box);
      }
      byId("stage").replaceChildren(...content);
      place();
    }
    function divider(first, second, title) {
      const slider = make("img-comparison-slider", { value: position, tabindex: "0", role: "slider", "aria-label": "divider between A and B", "aria-valuemin": 0, "aria-valuemax": 100, "aria-valuenow": Math.round(position) });
      for (const [slot, one, side] of [["first", first, ""], ["second", second, " right"]]) {
        const box = frame(image());
        box.slot = slot;
        box.append(picture(one[2], title(one)), make("span", { class: `which${side}` }, title(one)));
        movable(box, { drags: false });
        slider.append(box);
      }
      const follow = () => {
        position = Number(slider.value);
        slider.setAttribute("aria-valuenow", String(Math.round(position)));
      };
      slider.addEventListener("slide", follow);
      slider.addEventListener("keydown", (event) => { // its own keys are the arrows
        const ends = { Home: 0, End: 100 };
        if (!(event.key in ends)) return;
        event.preventDefault();
        slider.value = ends[event.key];
        follow();
      });
      return slider;
    }
    function blink() {
      blinked = !blinked;
      stage();
    }
    document.addEventListener("keydown", (event) => {
      const isTyping = event.target.closest?.("select, input:not([type=range]):not([type=checkbox])");
      if (event.key.toLowerCase() !== "b" || event.repeat || isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
      if (state.mode !== "blink") byId("versus-controls").querySelector('[data-value="blink"]').click();
      else blink();
    });
    redraws.add(refresh);
    newImage();
  }

  async function difference(canvas, one, two) {
    const pixels = await Promise.all([one, two].map(async (asset) => {
      const source = new Image();
      source.src = DATA.assets[asset];
      await source.decode();
      const surface = make("canvas", { width: canvas.width, height: canvas.height }).getContext("2d", { willReadFrequently: true });
      surface.imageSmoothingEnabled = false; // of an LR crop
      surface.drawImage(source, 0, 0, canvas.width, canvas.height);
      return surface.getImageData(0, 0, canvas.width, canvas.height);
    }));
    const [a, b] = pixels.map((surface) => surface.data), gain = state.gain;
    for (let at = 0; at < a.length; at += 4) {
      for (let channel = at; channel < at + 3; channel++) a[channel] = Math.min(255, gain * Math.abs(a[channel] - b[channel]));
    }
    canvas.getContext("2d").putImageData(pixels[0], 0, 0);
    canvas.dataset.done = "true";
  }

  // ---- perception against distortion

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
      const [wide, high, left, right, top, bottom] = [820, 470, 66, 22, 22, 52];
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
      const svg = drawn("svg", { viewBox: `0 0 ${wide} ${high}`, role: "img", "aria-label": `${name(up)} against ${name(across)}, a path for each run` });
      const text = (content, attributes) => { const one = drawn("text", attributes); one.textContent = content; svg.append(one); return one; };
      const [xTicks, xDigits] = ticks(x0, x1), [yTicks, yDigits] = ticks(y0, y1);
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
          const last = row === path.length - 1, mark = drawn("circle", { cx: px(x), cy: py(y), r: last ? 6 : 2.4, fill: colour(run.id), "data-run": run.id });
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
    draw();
  }

  // ---- curves

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
      const series = lines.map(([label, id, xs, , options]) => ({
        label: label ?? "", stroke: () => colour(id) + (options.faint ? "40" : options.edge ? "00" : ""), width: options.faint ? 1 : 1.8,
        dash: dash(id), spanGaps: true, points: { show: xs.length < 30 && !options.faint && !options.edge, size: 5 },
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
    const amount = make("input", { type: "range", min: 0, max: 0.99, step: 0.01, value: 0, id: "smoothing", "aria-label": "smoothing" });
    const value = make("output", { for: "smoothing" }, "off");
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
      const head = make("h3", {}, curve.label, curve.label === curve.key ? null : make("span", { class: "key" }, curve.key));
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
  }

  // ---- notes, header, theme

  function notes() {
    const lines = [...DATA.notes];
    for (const run of RUNS) {
      if (run.note) lines.push(`${run.name}: ${run.note}`);
      for (const problem of run.problems) lines.push(`${run.name}: ${problem}`);
    }
    byId("notes").hidden = !lines.length;
    document.querySelector('nav a[href="#notes"]').hidden = !lines.length;
    byId("note-list").append(...lines.map((line) => make("li", {}, line)));
  }
  function setTheme(name) {
    document.documentElement.dataset.theme = name;
    byId("theme").textContent = name === "dark" ? "Light" : "Dark";
    byId("theme").setAttribute("aria-label", `${name === "dark" ? "light" : "dark"} colours`);
  }

  const preference = window.matchMedia("(prefers-color-scheme: dark)");
  setTheme(preference.matches ? "dark" : "light");
  byId("theme").addEventListener("click", () => { setTheme(theme() === "dark" ? "light" : "dark"); redraw(); });
  preference.addEventListener("change", ({ matches }) => { setTheme(matches ? "dark" : "light"); redraw(); });
  byId("title").textContent = DATA.title;
  const of = (state, count = RUNS.filter((run) => run.state === state).length) => (count ? `${count} ${state}` : null);
  byId("subtitle").textContent = ["finished", "running", "preempted", "crashed", "broken"].map((one) => of(one)).filter(Boolean).join(", ");
  byId("footer").textContent = `Made by srgan-dist ${DATA.version}, ${DATA.made.replace("T", " ").replace("Z", " UTC")}. Dividers by img-comparison-slider, curves by uPlot (MIT).`;
  runTable();
  seedTable();
  images();
  tradeoff();
  curves();
  notes();
  redraw();
  document.documentElement.dataset.ready = "true";
})();

// The same crops of all runs: side by side, behind a divider, in turns, or as their difference.

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
  return make("img", { src: DATA.assets[asset], alt: label, decoding: "async", draggable: "false", "data-asset": asset });
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
  byId("versus-controls").append(segments("way of comparing", modes, state.mode, (mode) => {
      state.mode = mode;
      // An error is what a difference is mostly wanted for.
      if (mode === "difference" && image().hr != null && state.first !== "hr") state.second = "hr";
      refresh();
    }), pair, toggle, gainLabel);
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
  // Figures are kept while the scrubber moves: new ones would flicker.
  function grid(all) {
    const old = new Map([...byId("grid").children].map((figure) => [figure.dataset.source, figure]));
    byId("grid").replaceChildren(...all.map(([key, label, asset, step]) => {
      const kept = old.get(key), isRun = !["hr", "bicubic", "lr"].includes(key);
      const at = make("span", { class: "at" }, step == null ? "" : whole(step));
      const figure = kept ?? make("figure", { "data-source": key }, frame(image(), label),
        make("figcaption", {}, isRun ? swatch(Number(key)) : null, make("span", {}, label), at));
      const box = figure.querySelector(".frame");
      box.style.setProperty("--ratio", `${image().width} / ${image().height}`);
      figure.querySelector(".at").textContent = at.textContent;
      if (!kept) movable(box);
      frames.add(box);
      const shownNow = box.querySelector("img"), alt = `${label}, ${image().name}`;
      if (asset == null) box.replaceChildren(make("span", { class: "absent" }, "no crop yet at this step"));
      else if (!shownNow) box.replaceChildren(picture(asset, alt));
      else if (shownNow.dataset.asset !== String(asset)) {
        shownNow.src = DATA.assets[asset];
        shownNow.alt = alt;
        shownNow.dataset.asset = asset;
      }
      return figure;
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
      difference: "The absolute difference of A and B in each channel, amplified; against HR it is the error. Black is no difference.",
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

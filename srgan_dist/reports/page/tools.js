// What the page does. Text enters the document by textContent only: names of runs and files are anybody's.
// The files of this folder are joined into one function: names are shared, and none is global.

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
  axis: "step", smoothing: 0.8, scale: "auto", seeds: "each",
};
const redraws = new Set(); // what is drawn anew when runs are hidden or colours change



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
// In a study, a colour is an experiment and a dash one of its seeds; otherwise each run has a colour as long as there are any.
const LOOKS = (() => {
  const readable = RUNS.filter((run) => run.state !== "broken");
  const groups = [...new Set(readable.map((run) => run.group))];
  const seeds = groups.map((group) => readable.filter((run) => run.group === group));
  const isStudy = groups.length <= COLOURS.light.length && seeds.every((runs) => runs.length <= DASHES.length);
  return new Map(RUNS.map((run) => {
    if (isStudy && groups.includes(run.group)) return [run.id, [groups.indexOf(run.group), seeds[groups.indexOf(run.group)].indexOf(run)]];
    const place = Math.max(0, readable.indexOf(run));
    return [run.id, [place % COLOURS.light.length, Math.floor(place / COLOURS.light.length)]];
  }));
})();
const colour = (id) => COLOURS[theme()][LOOKS.get(id)[0]];
const dash = (id) => DASHES[Math.max(0, LOOKS.get(id)[1]) % DASHES.length];
const shown = () => RUNS.filter((run) => !state.hidden.has(run.id));
const isNumber = (value) => typeof value === "number" && Number.isFinite(value);
const metric = (key) => DATA.metrics.find((one) => one.key === key);
const direction = (key) => ({ max: " ↑", min: " ↓" })[metric(key)?.better] ?? "";

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

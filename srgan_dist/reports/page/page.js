// Notes, header, theme; then everything is put together.

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

let onScreen = null;
window.addEventListener("beforeprint", () => { onScreen = theme(); setTheme("light"); redraw(); });
window.addEventListener("afterprint", () => { setTheme(onScreen ?? theme()); redraw(); });
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

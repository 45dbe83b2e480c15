// The tables of runs and of seeds, and what is saved of them.

const measured = DATA.metrics.filter(({ key }) => RUNS.some((run) => isNumber(run.final[key]) || run.best[key]));

function columns() {
  const unit = (one) => (one.unit ? ` (${one.unit})` : "");
  const of = (key, label, value, show, better) => ({ key, label, value, show, better });
  const found = [of("state", "state", (run) => run.state, null)];
  if (new Set(RUNS.map((run) => run.n)).size > 1) found.push(of("n", "n of n:1", (run) => run.n, (run) => plain(run.n)));
  for (const one of measured) {
    const best = (run) => run.best[one.key];
    found.push(of(`${one.key} last`, `${one.label}${unit(one)}${direction(one.key)} last`, (run) => run.final[one.key], (run) => fixed(run.final[one.key], one.digits), one.better));
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
  const heads = ["experiment", "seeds", ...measured.map((one) => one.label + (one.unit ? ` (${one.unit})` : "") + direction(one.key))];
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

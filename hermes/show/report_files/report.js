"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const { columns, rows, metrics } = data;
  const MOST_ROWS = 200, COLOURS = 8, GRID = 120;
  const BAD = new Set(["failed", "timeout", "lost"]);
  const NUMBER = new Intl.NumberFormat("en");
  const at = (id) => document.getElementById(id);

  // All that comes from jobs goes through here: as text, never as HTML
  function el(name, attributes = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes))
      if (key === "on") for (const [event, does] of Object.entries(value)) made.addEventListener(event, does);
      else if (value === true) made.setAttribute(key, "");
      else if (value !== false && value != null) made.setAttribute(key, value);
    made.append(...children.filter((each) => each != null && each !== ""));
    return made;
  }
  const bdi = (text) => el("bdi", {}, String(text));

  function shown(value) {
    if (value == null) return "";
    if (typeof value !== "number") return String(value);
    if (Number.isInteger(value)) return String(value);
    return String(Number(value.toPrecision(5)));
  }
  function seconds(value) {
    if (value == null || typeof value !== "number") return shown(value);
    if (value < 60) return `${Number(value.toFixed(1))} s`;
    const whole = Math.round(value), h = Math.floor(whole / 3600), m = Math.floor(whole / 60) % 60;
    return h ? `${h} h ${m} min` : `${m} min ${whole % 60} s`;
  }
  function size(bytes) {
    const units = ["B", "kB", "MB", "GB", "TB"];
    let unit = 0;
    while (bytes >= 1000 && unit < 4) { bytes /= 1000; unit++; }
    return `${Number(bytes.toPrecision(3))} ${units[unit]}`;
  }
  const cell = (row, i) => columns[i].name === "duration" && columns[i].kind === "meta"
    ? seconds(row.cells[i]) : shown(row.cells[i]);

  // ---- The table: what is filtered, sorted and hidden ----
  const state = { sort: null, down: false, all: false, open: new Set(), visible: new Set() };
  columns.forEach((column, i) => { if (column.shown) state.visible.add(i); });
  rows.forEach((row, i) => {
    row.place = i;
    row.text = [row.id, row.command, ...columns.map((_, c) => cell(row, c))].join("\n").toLowerCase();
  });
  const isNumber = columns.map((_, i) => rows.some((r) => typeof r.cells[i] === "number")
    && rows.every((r) => r.cells[i] == null || typeof r.cells[i] === "number"));
  const byName = new Map(columns.map((column, i) => [column.name.toLowerCase(), i]));

  function condition(word) {
    const found = /^([^<>=!]+)(<=|>=|!=|=|<|>)(.+)$/.exec(word);
    const i = found && byName.get(found[1]);
    if (i == null) return (row) => row.text.includes(word);
    const [, , operator, wanted] = found, number = Number(wanted);
    return (row) => {
      const value = row.cells[i];
      if (value == null) return false;
      const numeric = typeof value === "number" && !Number.isNaN(number);
      const same = numeric ? value === number : shown(value).toLowerCase() === wanted;
      switch (operator) {
        case "=": return same;
        case "!=": return !same;
        case "<": return numeric && value < number;
        case ">": return numeric && value > number;
        case "<=": return numeric && value <= number;
        default: return numeric && value >= number;
      }
    };
  }
  function chosen() {
    const all = at("filter").value.toLowerCase().split(/\s+/).filter(Boolean).map(condition);
    return rows.filter((row) => all.every((holds) => holds(row)));
  }
  function compare(a, b) {
    const i = state.sort;
    if (i == null) return a.place - b.place;
    const x = i < 0 ? a.id : a.cells[i], y = i < 0 ? b.id : b.cells[i];
    // What is not there comes last, in whichever direction
    if (x == null || y == null) return (x == null) - (y == null) || a.place - b.place;
    let order;
    if (typeof x === "number" && typeof y === "number") order = x - y;
    else if (typeof x === "number") order = -1;
    else if (typeof y === "number") order = 1;
    else order = String(x) < String(y) ? -1 : String(x) > String(y) ? 1 : 0;
    return (state.down ? -order : order) || a.place - b.place;
  }

  function heading(i) {
    const column = i < 0 ? { name: "experiment" } : columns[i];
    const active = state.sort === i;
    const arrow = active ? (state.down ? " \u25BC" : " \u25B2") : "";
    const button = el("button", { type: "button", title: "Sort", on: { click: () => {
      state.down = active ? !state.down : false;
      state.sort = i;
      draw(false);
      at("table").querySelector(`th[data-column="${i}"] button`).focus();
    } } }, bdi(column.name), arrow);
    return el("th", { scope: "col", "data-column": i, class: i >= 0 && isNumber[i] ? "number" : "",
      "aria-sort": active ? (state.down ? "descending" : "ascending") : "none" }, button);
  }

  function line(row, visible) {
    const open = state.open.has(row.place);
    const toggle = el("button", { type: "button", "aria-expanded": String(open), title: row.id, on: { click: () => {
      if (!state.open.delete(row.place)) state.open.add(row.place);
      draw();
      const again = at("table").querySelector(`tr[data-place="${row.place}"] button`);
      if (again) again.focus();
    } } }, row.short);
    const cells = visible.map((i) => {
      const text = cell(row, i);
      const name = columns[i].name === "status" && columns[i].kind === "meta" ? row.status : "";
      const type = isNumber[i] ? "number" : "text";
      return el("td", { class: `${type} ${name}`, title: text.length > 30 ? text : null }, bdi(text));
    });
    return el("tr", { class: "one", "data-place": row.place }, el("td", { class: "id" }, toggle), ...cells);
  }

  function described(pairs) {
    return el("dl", {}, ...pairs.filter(([, value]) => value != null && value !== "").flatMap(
      ([name, value]) => [el("dt", {}, name), el("dd", {}, value instanceof Node ? value : bdi(value))]));
  }
  const folder = (row, text) => row.href ? el("a", { href: row.href }, bdi(text)) : bdi(text);

  function files(row) {
    if (!row.files.length) return null;
    const rest = row.moreFiles ? el("li", {}, `and ${NUMBER.format(row.moreFiles)} more`) : null;
    return el("ul", { class: "files" }, ...row.files.map(([path, bytes, link]) =>
      el("li", {}, el("a", { href: `${row.href}/${link || path.split("/").map(encodeURIComponent).join("/")}` }, bdi(path)), el("span", { class: "soft" }, bytes == null ? "" : ` ${size(bytes)}`))), rest);
  }
  function provenance(shared) {
    const settings = Object.entries(shared.settings || {}).map(([k, v]) => `${k}: ${v}`).join("\n");
    const packages = data.packages[shared.packages];
    return el("div", {}, described([
      ["commit", shared.commit], ["branch", shared.branch],
      ["uncommitted changes", shared.dirty == null ? null : shared.dirty ? "yes" : "no"],
      ["about the code", shared.reason], ["host", shared.host], ["user", shared.user],
      ["working directory", shared.working_directory], ["hermes file", shared.hermes_file],
      ["run", shared.run_id], ["Python", shared.python], ["interpreter", shared.interpreter],
      ["program", shared.program], ["system", shared.platform], ["Hermes", shared.hermes],
    ]), settings ? el("details", {}, el("summary", {}, "settings"), el("pre", {}, settings)) : null,
    packages ? el("details", {}, el("summary", {}, `${packages.length} packages`), el("pre", {}, packages.join("\n"))) : null);
  }
  function details(row, width) {
    const tail = row.tail == null ? null : data.tails[row.tail];
    const shared = data.shared[row.shared];
    return el("tr", { class: "more" }, el("td", { colspan: width }, el("div", { class: "inside" },
      described([["experiment", folder(row, row.id)], ["command", el("code", {}, bdi(row.command))],
        ["comments", row.comments], ["ended", row.ended], ["problems", row.problems.join("\n")]]),
      tail ? el("div", {}, el("span", { class: "soft" }, `the end of ${tail.file}`), el("pre", {}, tail.text)) : null,
      files(row),
      shared ? el("details", {}, el("summary", {}, "provenance"), provenance(shared)) : null)));
  }

  let found = [];
  function draw(changes = true) {
    found = chosen().sort(compare);
    const visible = columns.map((_, i) => i).filter((i) => state.visible.has(i));
    const head = el("thead", {}, el("tr", {}, heading(-1), ...visible.map(heading)));
    const body = el("tbody");
    for (const row of state.all ? found : found.slice(0, MOST_ROWS)) {
      body.append(line(row, visible));
      if (state.open.has(row.place)) body.append(details(row, visible.length + 1));
    }
    at("table").replaceChildren(el("caption", { hidden: true }, "Experiments"), head, body);
    at("count").textContent = `${NUMBER.format(found.length)} of ${NUMBER.format(rows.length)} experiments`;
    at("rest").hidden = state.all || found.length <= MOST_ROWS;
    at("rest").textContent = `Show all ${NUMBER.format(found.length)}`;
    // Another order changes no curve
    if (changes) curves();
  }

  // ---- Curves ----
  const DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  const VALUE = new Map([...DIGITS].map((c, i) => [c, i]));
  const decoded = new Map();
  /** A curve as [steps, values]; both are stored as 12 bits between their least and greatest. */
  function curve(row, metric) {
    const stored = row.curves[metric];
    if (!stored) return null;
    if (decoded.has(stored)) return decoded.get(stored);
    const [x0, x1, y0, y1, text] = stored, xs = [], ys = [];
    const read = (i) => (VALUE.get(text[i]) * 64 + VALUE.get(text[i + 1])) / 4095;
    for (let i = 0; i < text.length; i += 4) {
      xs.push(x0 + (x1 - x0) * read(i));
      ys.push(y0 + (y1 - y0) * read(i + 2));
    }
    decoded.set(stored, [xs, ys]);
    return [xs, ys];
  }
  function valueAt([xs, ys], x) {
    if (!xs.length || x < xs[0] || x > xs[xs.length - 1]) return null;
    let low = 0, high = xs.length - 1;
    while (high - low > 1) { const mid = (low + high) >> 1; if (xs[mid] <= x) low = mid; else high = mid; }
    const width = xs[high] - xs[low];
    return width ? ys[low] + (ys[high] - ys[low]) * (x - xs[low]) / width : ys[high];
  }
  function ticks(low, high, count) {
    const span = high - low || 1, rough = span / count, power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((f) => f * power).find((f) => f >= rough) || rough;
    const all = [];
    for (let i = Math.ceil(low / step - 1e-9); i * step <= high + span * 1e-9 && all.length < 30; i++)
      all.push(Number((i * step).toPrecision(12)));
    return all;
  }
  function tick(value) {
    const size = Math.abs(value);
    if (size >= 1e6 || (size && size < 1e-3)) return value.toExponential().replace("e+", "e");
    return NUMBER.format(Number(value.toPrecision(6))) === "0" && value ? String(value) : String(Number(value.toPrecision(6)));
  }
  function svg(name, attributes, text) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text != null) made.textContent = text;
    return made;
  }
  const look = (i) => `s${i % COLOURS}${Math.floor(i / COLOURS) % 2 ? " dashed" : ""}`;

  function series(metric, by, members) {
    const groups = new Map();
    for (const row of members) {
      const key = row.cells[by] == null ? "(none)" : shown(row.cells[by]);
      if (!groups.has(key)) groups.set(key, []);
      groups.get(key).push(curve(row, metric));
    }
    const sorted = [...groups].sort(([a], [b]) => (Number(a) - Number(b)) || (a < b ? -1 : a > b ? 1 : 0));
    return sorted.map(([key, all]) => {
      const low = Math.min(...all.map((c) => c[0][0]));
      const high = Math.max(...all.map((c) => c[0][c[0].length - 1]));
      const xs = [], means = [], bands = [], counts = [];
      for (let i = 0; i <= GRID; i++) {
        const x = low + (high - low) * i / GRID;
        const values = all.map((c) => valueAt(c, x)).filter((v) => v != null);
        if (!values.length) continue;
        const mean = values.reduce((a, b) => a + b, 0) / values.length;
        const spread = values.length > 1
          ? Math.sqrt(values.reduce((a, b) => a + (b - mean) ** 2, 0) / (values.length - 1)) : 0;
        xs.push(x); means.push(mean); bands.push([mean - spread, mean + spread]); counts.push(values.length);
        if (low === high) break;
      }
      const thins = counts.some((n) => n !== all.length);
      return { name: `${columns[by].name} = ${key}`, n: all.length, thins, line: [xs, means], bands };
    });
  }

  function curves() {
    if (!metrics.length) return;
    const metric = at("metric").selectedIndex, by = Number(at("group").value);
    const unfinished = at("unfinished").checked;
    const having = found.filter((row) => row.curves[metric]);
    const members = having.filter((row) => unfinished || row.status === "finished");
    const grouped = by >= 0;
    let drawn, faint = [];
    if (grouped) drawn = series(metric, by, members);
    else {
      const one = (row) => ({ name: row.short, line: curve(row, metric), bands: [] });
      const marked = members.filter((row) => state.open.has(row.place));
      const few = members.length <= COLOURS;
      drawn = (few ? members : marked).map(one);
      if (!few) faint = members.filter((row) => !state.open.has(row.place)).map(one);
    }
    const notes = [];
    if (having.length > members.length) notes.push(`${having.length - members.length} that have not finished are left out.`);
    if (grouped) notes.push("Lines are means of curves that were thinned to fit, bands one standard deviation to each side (none where n is 1).");
    if (drawn.some((s) => s.thins)) notes.push("Some curves of a group are shorter: where they have ended, the mean is of the others.");
    if (faint.length) notes.push("Experiments that are opened in the table stand out.");
    if (data.leftOut) notes.push(data.leftOut);
    at("notes").textContent = notes.join(" ");
    at("legend").replaceChildren(...drawn.map((s, i) => el("li", {},
      el("span", { class: `key ${look(i)}` }), bdi(s.name), s.n ? ` (n=${s.n})` : "")));
    at("chart").replaceChildren(chart(metrics[metric], drawn, faint));
  }

  function chart(name, drawn, faint) {
    const all = [...drawn, ...faint].filter((s) => s.line && s.line[0].length);
    if (!all.length) return el("p", { class: "soft" }, "No experiment in the table has this curve.");
    let x0 = Infinity, x1 = -Infinity, y0 = Infinity, y1 = -Infinity;
    for (const s of all) {
      for (const x of s.line[0]) { x0 = Math.min(x0, x); x1 = Math.max(x1, x); }
      for (const y of s.line[1]) { y0 = Math.min(y0, y); y1 = Math.max(y1, y); }
      for (const [a, b] of s.bands) { y0 = Math.min(y0, a); y1 = Math.max(y1, b); }
    }
    if (x0 === x1) { x0 -= .5; x1 += .5; }
    if (y0 === y1) { const room = Math.abs(y0) / 2 || .5; y0 -= room; y1 += room; }
    const width = Math.max(280, Math.min(1150, at("chart").clientWidth || 800)), height = width < 600 ? 260 : 380;
    const left = 64, right = 12, top = 12, bottom = 40;
    const X = (x) => Number((left + (x - x0) / (x1 - x0) * (width - left - right)).toFixed(1));
    const Y = (y) => Number((height - bottom - (y - y0) / (y1 - y0) * (height - top - bottom)).toFixed(1));
    const made = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img",
      "aria-label": `${name} over steps, ${all.length} curves` });
    for (const y of ticks(y0, y1, 6)) {
      made.append(svg("line", { class: "grid", x1: left, x2: width - right, y1: Y(y), y2: Y(y) }));
      made.append(svg("text", { x: left - 6, y: Y(y) + 4, "text-anchor": "end" }, tick(y)));
    }
    for (const x of ticks(x0, x1, width < 600 ? 4 : 8))
      made.append(svg("text", { x: X(x), y: height - bottom + 17, "text-anchor": "middle" }, tick(x)));
    made.append(svg("text", { x: (left + width - right) / 2, y: height - 5, "text-anchor": "middle" }, "step"));
    const path = (xs, ys) => xs.map((x, i) => `${X(x)},${Y(ys[i])}`).join(" ");
    const one = (s, look) => {
      if (s.line[0].length > 1) return svg("polyline", { class: `line ${look}`, points: path(...s.line) });
      return svg("circle", { class: look, cx: X(s.line[0][0]), cy: Y(s.line[1][0]), r: 3 });
    };
    for (const s of faint) made.append(one(s, "faint s0"));
    drawn.forEach((s, i) => {
      if (!s.bands.length) return;
      const [xs] = s.line, there = path(xs, s.bands.map((b) => b[1]));
      const back = path([...xs].reverse(), s.bands.map((b) => b[0]).reverse());
      made.append(svg("polygon", { class: `band ${look(i)}`, points: `${there} ${back}` }));
    });
    drawn.forEach((s, i) => made.append(one(s, look(i + (faint.length ? 1 : 0)))));
    return made;
  }

  // ---- What does not change ----
  function failures() {
    const groups = new Map();
    for (const row of rows) {
      if (!BAD.has(row.status) && !row.problems.length) continue;
      const key = JSON.stringify([row.status, row.tail, row.ended, row.problems]);
      if (!groups.has(key)) groups.set(key, []);
      groups.get(key).push(row);
    }
    at("failures").hidden = !groups.size;
    for (const [i, members] of [...groups.values()].entries()) {
      const first = members[0], tail = first.tail == null ? null : data.tails[first.tail];
      const names = members.slice(0, 30).flatMap((row) => [folder(row, row.short), " "]);
      const title = members.length > 1 ? `${members.length} experiments` : first.short;
      at("failed").append(el("details", { open: i < 5 },
        el("summary", {}, el("strong", { class: first.status }, first.status), ` ${title} `,
          el("span", { class: "soft" }, bdi(first.ended || ""))),
        members.length > 1 ? el("p", {}, ...names, members.length > 30 ? "..." : "") : el("p", {}, el("code", {}, bdi(first.command))),
        ...first.problems.map((text) => el("p", {}, bdi(text))),
        tail ? el("p", { class: "soft" }, `the end of ${tail.file}`) : null, tail ? el("pre", {}, tail.text) : null));
    }
  }
  function origins() {
    const counts = new Map();
    for (const row of rows) if (row.shared != null) counts.set(row.shared, (counts.get(row.shared) || 0) + 1);
    at("provenance").hidden = !counts.size;
    for (const [i, count] of counts) {
      const shared = data.shared[i], commit = shared.commit ? shared.commit.slice(0, 10) : "no commit";
      at("origins").append(el("details", { open: counts.size === 1 }, el("summary", {},
        `${NUMBER.format(count)} experiment${count === 1 ? "" : "s"}: `,
        bdi(`${commit}${shared.dirty ? " with uncommitted changes" : ""}, ${shared.host}`)), provenance(shared)));
    }
  }
  function start() {
    at("choices").append(...columns.map((column, i) => el("label", {},
      el("input", { type: "checkbox", checked: state.visible.has(i), on: { change: (event) => {
        if (event.target.checked) state.visible.add(i); else state.visible.delete(i);
        draw();
      } } }), " ", bdi(column.name))));
    at("metric").append(...metrics.map((name) => el("option", {}, name)));
    at("group").append(el("option", { value: -1 }, "nothing"), ...columns.map((column, i) =>
      column.groups ? el("option", { value: i }, column.name) : null).filter(Boolean));
    at("curves").hidden = !metrics.length;
    for (const id of ["metric", "group", "unfinished"]) at(id).addEventListener("change", curves);
    at("filter").addEventListener("input", () => draw());
    at("rest").addEventListener("click", () => { state.all = true; draw(); });
    let width = innerWidth;
    addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; curves(); } });
    failures();
    origins();
    draw();
  }
  start();
})();

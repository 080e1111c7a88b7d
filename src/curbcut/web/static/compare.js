// Several runs beside each other: one chart of all, loss against money and energy, differing keys.
"use strict";
(() => {
  const { el, $, get } = Curbcut;
  const N = Curbcut.numbers, P = Curbcut.parts;
  const MOST = 100, LISTED = 200;
  const { AXES, along } = Curbcut.charts;
  let rows = [], chosen = new Set(new URLSearchParams(location.search).getAll("run").slice(0, MOST));
  let axis = "step", metric = "loss", smooth = 0, chart = null, cursor = "", series = new Map();
  let words = "", asked = "", runsCursor = "", metrics = new Map();

  // The colour of a run stays its own while others come and go.
  const places = new Map();
  function placeOf(name) {
    if (!places.has(name)) {
      const used = new Set([...places].filter(([other]) => chosen.has(other)).map(([, at]) => at));
      let free = 0;
      while (used.has(free)) free++;
      places.set(name, free);
    }
    return places.get(name);
  }

  function list() {
    const fits = rows.filter((row) => !words ||
      `${row.name} ${row.model} ${row.machine}`.toLowerCase().includes(words));
    fits.sort((a, b) => chosen.has(b.name) - chosen.has(a.name));
    const shown = fits.slice(0, LISTED);
    $("#list").replaceChildren(...shown.map((row) => {
      const mark = chosen.has(row.name) ? Curbcut.charts.mark(placeOf(row.name))
        : el("span", { class: "mark" });
      return el("li", {}, el("label", { class: "pick" },
        el("input", { type: "checkbox", checked: chosen.has(row.name), value: row.name,
          onchange: (event) => pick(row.name, event.target.checked) }), mark,
        el("span", { class: "break" }, row.name,
          el("span", { class: "under" }, `${P.machinery({ model: row.model })} · ${row.state}`))));
    }), shown.length < fits.length ? el("li", { class: "muted small" },
      `and ${N.whole(fits.length - shown.length)} more: find them by name`) : "");
  }

  function pick(name, on) {
    if (on && chosen.size >= MOST) {
      Curbcut.say(`At most ${MOST} runs at once.`);
      list();
      return;
    }
    if (on) chosen.add(name); else { chosen.delete(name); places.delete(name); }
    chosenAnew();
    const again = [...document.querySelectorAll("#list input")].find(({ value }) => value === name);
    again?.focus();
  }

  function chosenAnew() {
    const query = new URLSearchParams([...chosen].map((name) => ["run", name]));
    history.replaceState(null, "", `/compare${chosen.size ? `?${query}` : ""}`);
    list();
    counted();
    all();
  }

  const counted = () => { $("#counted").textContent = `${chosen.size} of ${N.whole(rows.length)}`; };

  function chooser() {
    $("#choose").replaceChildren(
      el("div", { class: "field" }, el("label", { for: "find" }, "Find"),
        el("input", { type: "search", id: "find", autocomplete: "off", oninput: (event) => {
          words = event.target.value.trim().toLowerCase();
          list();
        } })),
      el("div", { class: "tools small" },
        el("button", { type: "button", class: "plain", onclick: () => {
          chosen = new Set();
          places.clear();
          chosenAnew();
        } }, "Choose none")),
      el("ul", { class: "picks", id: "list", "aria-label": "Runs to compare" }));
    list();
  }

  function tools() {
    const select = el("select", { id: "metric", onchange: () => {
      metric = select.value;
      all(true);
    } }, [...metrics.values()].map(({ name, label }) => el("option", { value: name }, label)));
    $("#tools").append(el("label", { class: "inline" }, "Figure", select),
      ...along(axis, (value) => { axis = value; all(true); },
        (value) => { smooth = value; chart?.set({ smooth }); }));
  }

  function seriesPath() {
    const query = new URLSearchParams([...[...chosen].sort().map((name) => ["run", name]),
      ["metric", metric], ["x", axis]]);
    const path = `/api/series?${query}`;
    const more = cursor && asked === path;
    asked = path;
    if (!more) cursor = "";
    return more ? `${path}&after=${encodeURIComponent(cursor)}` : path;
  }

  const overlaid = Curbcut.oneAtATime(async () => {
    if (!chosen.size) {
      $("#overlay").replaceChildren(el("div", { class: "panel" }, P.empty("Choose runs to compare.",
        "Tick two or more in the list.")));
      chart = null;
      return;
    }
    const path = seriesPath(), plain = asked, after = Boolean(cursor);
    const answer = await get(path);
    if (plain !== asked) return;
    cursor = answer.cursor;
    if (!after) series = new Map();
    for (const one of answer.series) {
      const old = one.append && series.get(one.run);
      series.set(one.run, old ? { ...one, ...Curbcut.scales.thinned([...old.x, ...one.x],
        [...old.y, ...one.y], 3000) } : one);
    }
    const lines = [...chosen].sort().map((name) => ({ name, run: series.get(name) }))
      .filter(({ run }) => run?.x.length);
    if (!lines.length) {
      $("#overlay").replaceChildren(el("div", { class: "panel" }, P.empty("None recorded that.",
        `No chosen run has a record of ${metrics.get(metric).label} along this axis.`)));
      chart = null;
      return;
    }
    if (!chart || chart.metric !== metric) {
      chart = Curbcut.charts.line({ title: metrics.get(metric).label, unit: lines[0].run.unit, height: 400,
        file: `compare-${metric}` });
      chart.metric = metric;
      $("#overlay").replaceChildren(chart);
      chart.set({ smooth });
    }
    chart.draw(lines.map(({ name, run }) => ({ name, x: run.x, y: run.y, index: placeOf(name),
      band: lines.length === 1 ? run.promised : null })), AXES[axis]);
  });

  const loss = (row) => (row.bits_per_byte !== null ? row.bits_per_byte : null);
  const differing = Curbcut.oneAtATime(async () => {
    if (!chosen.size) {
      $("#points").replaceChildren();
      $("#keys").replaceChildren(P.empty("Nothing to compare yet.",
        "Keys of the configuration that differ appear here."));
      return;
    }
    const query = new URLSearchParams([...chosen].map((name) => ["run", name]));
    const answer = await get(`/api/compare?${query}`);
    pointed(answer.rows);
    keyed(answer);
  });

  const scatters = {};
  function pointed(found) {
    const held = found.some((row) => loss(row) !== null);
    const y = held ? { title: "held-out bits a byte", unit: "" } : { title: "training loss", unit: "" };
    for (const [key, title, unit] of [["usd", "money", "usd"], ["kwh", "energy", "kwh"]]) {
      const values = found.map((row) => row[key]?.now).filter((one) => one > 0);
      const log = values.length > 1 && Math.max(...values) > 30 * Math.min(...values);
      const name = `${key} ${held} ${log}`;
      if (scatters[key]?.made !== name) {
        scatters[key] = Curbcut.scatter({ title: `Loss against ${title}`, x: { title, unit, log }, y,
          file: `loss-against-${title}` });
        scatters[key].made = name;
      }
      const points = found.map((row) => ({ name: row.name, x: row[key]?.now,
        y: held ? loss(row) : row.loss, colour: Curbcut.charts.colourOf(placeOf(row.name)),
        shape: ["circle", "square", "diamond", "triangle"][Math.floor(placeOf(row.name) / 10) % 4],
        href: `/runs/${encodeURIComponent(row.name)}`,
        note: row[key]?.basis === "modelled" ? `${title} modelled` : "" }));
      scatters[key].draw(points, front(points));
    }
    if (!$("#points").contains(scatters.usd) || !$("#points").contains(scatters.kwh))
      $("#points").replaceChildren(scatters.usd, scatters.kwh);
  }

  // Runs that no other one beats in both figures.
  function front(points) {
    const known = points.filter((one) => Number.isFinite(one.x) && Number.isFinite(one.y))
      .sort((a, b) => a.x - b.x || a.y - b.y);
    let best = Infinity;
    return known.filter((one) => one.y < best && (best = one.y, true)).map((one) => one.name);
  }

  function keyed({ keys, same }) {
    const names = [...chosen], found = Object.entries(keys);
    if (names.length < 2) {
      $("#keys").replaceChildren(P.empty("One run alone.", "Tick another one to see the difference."));
      return;
    }
    const told = same ? ` ${N.whole(same)} are the same.` : "";
    $("#keys").replaceChildren(found.length
      ? Curbcut.config.table(`${P.many(found.length, "differing key")}.${told}`, ["key", ...names],
        found.map(([key, values]) => [key, ...names.map((name) =>
          Curbcut.config.worded(values[name]))]))
      : P.empty("No value differs.", "All of them were told the same."));
  }

  function all(anew = false) {
    if (anew) cursor = "";
    overlaid().catch((error) => Curbcut.failed($("#overlay"), error));
    if (!anew) differing().catch((error) => Curbcut.failed($("#keys"), error));
  }

  const told = Curbcut.oneAtATime(async () => {
    const answer = await get(runsCursor ? `/api/runs?after=${encodeURIComponent(runsCursor)}`
      : "/api/runs");
    const first = !runsCursor;
    runsCursor = answer.cursor;
    const fresh = new Map(answer.rows.map((row) => [row.name, row]));
    rows = first ? answer.rows : [...rows.map((row) => fresh.get(row.name) ?? row),
      ...answer.rows.filter((row) => !rows.some(({ name }) => name === row.name))];
    if (first) {
      const known = new Set(rows.map((row) => row.name));
      chosen = new Set([...chosen].filter((name) => known.has(name)));
      if (!chosen.size && !location.search)
        chosen = new Set(rows.filter((row) => row.loss !== null).slice(0, 4).map((row) => row.name));
      chooser();
      all();
    } else if (answer.rows.some((row) => chosen.has(row.name))) all();
    counted();
  });

  async function start() {
    try {
      metrics = new Map((await get("/api/metrics")).metrics.map((one) => [one.name, one]));
    } catch (error) { return Curbcut.failed($("#compared"), error); }
    tools();
    try { await told(); } catch (error) { return Curbcut.failed($("#choose"), error); }
    Curbcut.live(() => told().catch((error) => Curbcut.say(error.message)), runsCursor);
  }

  document.addEventListener("DOMContentLoaded", start);
})();

// One run: what was promised against what was measured, then charts, events, configuration, files.
"use strict";
(() => {
  const { el, $, get } = Curbcut;
  const N = Curbcut.numbers, P = Curbcut.parts;
  const POINTS = Curbcut.saved ? 600 : 1000;
  const { AXES, along } = Curbcut.charts;
  const charts = new Map();
  const together = Curbcut.charts.group();
  let name, axis = "step", cursors = {}, series = new Map(), metrics = [], story,
    configured = false;
  const base = () => `/api/runs/${encodeURIComponent(name)}`;

  function headed(row) {
    $("#state").replaceChildren(P.badge(row.state));
    $("#what").textContent = [P.machinery(row),
      row.steps && `${N.whole(row.step ?? 0)} of ${N.whole(row.steps)} steps`,
      row.seconds !== null && N.duration(row.seconds), row.age_seconds !== null &&
      `${row.state === "planned" ? "recorded" : "last sign"} ` +
        (Curbcut.saved ? N.moment(row.updated) : N.ago(row.age_seconds))]
      .filter(Boolean).join(" · ");
    const bad = row.state === "crashed";
    $("#words").replaceChildren(bad || (row.state === "stopped" && row.reason)
      ? el("p", { class: `note ${bad ? "bad" : "warn"}` },
        el("strong", {}, bad ? "Crashed. " : "Stopped. "), `${row.reason}. `,
        bad && ["It goes on from its last checkpoint with ",
          el("code", {}, `curbcut train ${name}`), "."]) : "");
  }

  const tell = Curbcut.oneAtATime(async () => {
    const answer = await get(base());
    tell.cursor = answer.cursor;
    headed(answer.row);
    P.notes($("#notes"), [...answer.notes, ...(answer.damaged
      ? [`${P.many(answer.damaged, "line")} of its record cannot be read.`] : [])]);
    const { age_seconds: _, updated: __, ...row } = answer.row;
    const figures = JSON.stringify([answer.figures, row]);
    if (figures !== tell.figures) {
      tell.figures = figures;
      Curbcut.promised.fill($("#promised"), answer.figures, answer.row);
    }
    if (!configured) {
      configured = Object.keys(answer.config).length > 0;
      Curbcut.config.fill($("#config"), name, answer.config, async () =>
        (Curbcut.saved ? [] : (await get("/api/runs")).rows.map((row) => row.name)));
    }
    files(answer);
  });

  function files({ files: found, documents = [], samples = [] }) {
    const all = JSON.stringify([found, documents, samples]);
    if (all === files.before) return;
    files.before = all;
    const rows = [...documents, ...found].map((one) => [one.path, one.kind || "",
      N.show(one.bytes, "bytes", "")]);
    $("#files").replaceChildren(rows.length
      ? Curbcut.config.table("In the run's folder", ["path", "what it is", "size"], rows)
      : P.empty("No file yet.", "Checkpoints, the model and documents appear here."),
    ...samples.map((one) => el("blockquote", { class: "sample" },
      el("p", { class: "muted small" }, one.prompt ? `asked: ${one.prompt}` : "a sample"),
      el("p", { class: "break" }, one.text ?? String(one)))),
    ...(Curbcut.saved ? [] : [el("p", { class: "muted small" }, "This page as one file, to keep or send:"),
      P.command(`curbcut export ${name} --to html`)]));
  }

  function seriesPath(after = "") {
    const asked = new URLSearchParams([["run", name],
      ...metrics.map((metric) => ["metric", metric.name]), ["x", axis], ["points", POINTS]]);
    if (after) asked.set("after", after);
    return `/api/series?${asked}`;
  }

  const follow = Curbcut.oneAtATime(async () => {
    if (!metrics.length) metrics = (await get("/api/metrics")).metrics;
    const now = axis, after = cursors[now] || "";
    const answer = await get(seriesPath(after));
    if (now !== axis) return;
    if (!after) series = new Map();
    cursors = { [now]: answer.cursor };
    for (const one of answer.series) {
      const old = one.append && series.get(one.metric);
      const joined = old ? Curbcut.scales.thinned([...old.x, ...one.x], [...old.y, ...one.y],
        3 * POINTS) : { x: one.x, y: one.y };
      series.set(one.metric, { ...one, ...joined, promised: one.promised ?? old?.promised });
    }
    drawn();
  });

  function drawn() {
    const place = $("#charts");
    const used = [...series.values()].filter((one) => one.x.length);
    if (!used.length) {
      place.replaceChildren(el("div", { class: "panel" }, P.empty("Nothing is recorded yet.",
        "Charts appear with the first recorded steps.")));
      charts.clear();
      return;
    }
    const before = [...charts.keys()].join();
    for (const { name: metric, label } of metrics)
      if (series.get(metric)?.x.length && !charts.has(metric))
        charts.set(metric, Curbcut.charts.line({ title: label, unit: series.get(metric).unit,
          group: together, file: `${name}-${metric}` }));
    if ([...charts.keys()].join() !== before)
      place.replaceChildren(...[...new Set(metrics.map(({ section }) => section))]
        .flatMap((section) => {
          const inside = metrics.filter((one) => one.section === section)
            .map((one) => charts.get(one.name)).filter(Boolean);
          return inside.length ? [el("h3", { class: "section" }, section),
            el("div", { class: "charts" }, inside)] : [];
        }));
    const whole = Curbcut.scales.extent(used.map((one) => one.x));
    for (const [metric, chart] of charts) {
      const one = series.get(metric);
      chart.draw(one?.x.length ? [{ name, x: one.x, y: one.y, band: one.promised }] : [],
        AXES[axis], whole[0] < whole[1] ? whole : null);
    }
  }

  const happened = Curbcut.oneAtATime(async () => {
    const after = happened.cursor || "";
    const answer = await get(`${base()}/events${after ? `?after=${encodeURIComponent(after)}` : ""}`);
    happened.cursor = answer.cursor;
    story.take(answer.events, !after);
  });

  function tools() {
    $("#chart-tools").append(...along(axis, (value) => { axis = value; follow(); },
      (smooth) => { for (const chart of charts.values()) chart.set({ smooth }); }));
  }

  async function refreshed(...parts) {
    await Promise.all(parts.map(([work, place]) => work().then(() => { work.done = true; },
      (error) => {
        if (error.status === 404) missing();
        else if (work.done) Curbcut.say(error.message);
        else if ($(place)) Curbcut.failed($(place), error);
      })));
  }

  function missing() {
    $("#run").replaceChildren(el("h1", {}, name), el("div", { class: "panel" },
      P.empty("No run is called so.", el("a", { href: "/" }, "All runs"))));
  }

  async function start() {
    name = $("#run").dataset.name;
    story = Curbcut.story($("#story"));
    tools();
    const [first, ...others] = [[tell, "#promised"], [follow, "#charts"], [happened, "#story"]];
    await refreshed(first);
    if (!$("#charts")) return;
    refreshed(...others);
    Curbcut.live(({ runs, more }) => {
      if (runs.includes(name) || more > runs.length) refreshed(first, ...others);
    }, tell.cursor);
  }

  document.addEventListener("DOMContentLoaded", start);
})();

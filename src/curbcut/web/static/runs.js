// All runs: one line each, changed in place as they go on.
"use strict";
(() => {
  const { el, $, get } = Curbcut;
  const N = Curbcut.numbers, P = Curbcut.parts;
  const STATES = ["planned", "training", "stopped", "done", "crashed"];
  const chosen = new Set();
  let cursor = "", state = "all", words = "";

  const money = (row) => spent(row.usd, "usd", "money");
  const energy = (row) => spent(row.kwh, "kwh", "energy");

  // What is used, of what was promised; "over" and red when it is beyond the promised interval.
  function spent(found, unit, noun) {
    if (!found || (found.now === null && found.promised === null)) return none();
    const beyond = found.now !== null && found.promised !== null &&
      found.now > (found.high ?? found.promised);
    const of = found.promised === null ? ""
      : `${beyond ? "over" : "of"} ${N.show(found.promised, unit)}`;
    const now = found.now === null ? none() : N.show(found.now, unit);
    const part = found.now !== null && found.promised > 0;
    return [now,
      part && P.bar(found.now / found.promised,
        `${noun}: ${N.show(found.now, unit)} of ${N.show(found.promised, unit)} promised`,
        beyond ? "bad" : ""),
      el("span", { class: "under" }, [of, found.basis === "modelled" && "modelled"]
        .filter(Boolean).join(", "))];
  }

  const none = () => el("span", { class: "muted" }, el("span", { "aria-hidden": "true" }, "–"),
    el("span", { class: "hidden-text" }, N.NONE));
  const figure = (value, unit) => (value === null || value === undefined ? none()
    : unit === "" ? N.sig(value, 4) : N.show(value, unit));

  function progress(row) {
    if (row.step === null || !row.steps) return none();
    const text = `${N.whole(row.step)} of ${N.whole(row.steps)}`;
    return [P.bar(row.step / row.steps, `step ${text}`), el("span", { class: "under" }, text)];
  }

  function heard(row) {
    if (row.age_seconds === null) return none();
    return el("span", { "data-heard": String(Date.now() / 1000 - row.age_seconds) },
      N.ago(row.age_seconds));
  }

  function name(row) {
    return [el("a", { href: `/runs/${encodeURIComponent(row.name)}` }, row.name),
      el("span", { class: "under" }, P.machinery(row))];
  }

  function tick(row) {
    return el("input", { type: "checkbox", checked: chosen.has(row.name),
      "aria-label": `Choose ${row.name} to compare`, onchange: (event) => {
        chosen[event.target.checked ? "add" : "delete"](row.name);
        event.target.closest("tr").classList.toggle("chosen", event.target.checked);
        offered();
      } });
  }

  const table = P.table({
    caption: "All runs; headings sort them", id: (row) => row.name, sort: "began", descending: true,
    none: "No run fits.",
    shown: (row) => (state === "all" || row.state === state) &&
      (!words || `${row.name} ${row.model} ${row.machine}`.toLowerCase().includes(words)),
    onrow: (element, row) => element.classList.toggle("chosen", chosen.has(row.name)),
    columns: [
      { key: "chosen", title: el("span", { class: "hidden-text" }, "Compare"), cell: tick },
      { key: "name", title: "Run", head: true, class: "name", cell: name, by: (row) => row.name },
      { key: "state", title: "State", by: (row) => STATES.indexOf(row.state),
        cell: (row) => [P.badge(row.state), row.reason && row.state !== "done" &&
          el("span", { class: "under reason", title: row.reason }, row.reason)] },
      { key: "progress", title: "Progress", cell: progress, by: (row) => row.progress },
      { key: "loss", title: "Loss", num: true, by: (row) => row.loss,
        hint: "nats a token, of the newest recorded step",
        cell: (row) => [figure(row.loss, ""), row.bits_per_byte !== null &&
          el("span", { class: "under" }, `${N.sig(row.bits_per_byte)} bits/byte`)] },
      { key: "speed", title: "Tokens/s", num: true, by: (row) => row.tokens_per_second,
        cell: (row) => figure(row.tokens_per_second, "count") },
      { key: "mfu", title: "MFU", num: true, by: (row) => row.mfu,
        hint: "model FLOPs over the machine's peak", cell: (row) => figure(row.mfu, "fraction") },
      { key: "usd", title: "Money", num: true, by: (row) => row.usd?.now, cell: money },
      { key: "kwh", title: "Energy", num: true, by: (row) => row.kwh?.now, cell: energy },
      { key: "began", title: "Began", num: true, by: (row) => row.began ?? row.updated,
        cell: (row) => (row.began === null ? none() : [N.moment(row.began).slice(0, 16),
          row.seconds !== null && el("span", { class: "under" },
            `${row.state === "training" ? "for" : "took"} ${N.duration(row.seconds)}`)]) },
      { key: "age", title: "Last sign", num: true, by: (row) => row.age_seconds, cell: heard },
    ],
  });

  function offered() {
    const link = $("#compare");
    const names = [...chosen];
    link.textContent = names.length ? `Compare ${names.length} chosen` : "Compare chosen";
    if (names.length < 2) {
      link.removeAttribute("href");
      link.setAttribute("aria-disabled", "true");
    } else {
      link.removeAttribute("aria-disabled");
      link.href = `/compare?${new URLSearchParams(names.map((one) => ["run", one]))}`;
    }
  }

  function summed() {
    const rows = [...table.rows.values()];
    const going = rows.filter((row) => row.state === "training");
    const crashed = rows.filter((row) => row.state === "crashed").length;
    const sum = (of, key) => {
      const known = of.map((row) => row[key]?.now).filter((one) => one !== null &&
        one !== undefined);
      return known.length ? known.reduce((a, b) => a + b, 0) : null;
    };
    const partly = (key) => {
      const without = rows.filter((row) => row.began !== null && row[key]?.now == null).length;
      const modelled = rows.filter((row) => row[key]?.basis === "modelled").length;
      return [modelled && `${N.whole(modelled)} of ${N.whole(rows.length)} runs modelled`,
        without && `${N.whole(without)} not known`].filter(Boolean).join(", ");
    };
    $("#counted").textContent = table.count === rows.length ? P.many(rows.length, "run")
      : `${N.whole(table.count)} of ${P.many(rows.length, "run")} shown`;
    $("#sums").replaceChildren(P.tiles([
      { label: "Training now", value: N.whole(going.length),
        note: crashed ? `${N.whole(crashed)} crashed` : "" },
      { label: "Tokens a second now", value: going.length
        ? N.show(going.reduce((all, row) => all + (row.tokens_per_second || 0), 0), "count")
        : "–" },
      { label: "Money so far", value: N.show(sum(rows, "usd"), "usd", "not known"),
        note: partly("usd") },
      { label: "Energy so far", value: N.show(sum(rows, "kwh"), "kwh", "not known"),
        note: partly("kwh") },
    ]));
  }

  const ask = Curbcut.oneAtATime(async () => {
    try {
      const answer = await get(cursor ? `/api/runs?after=${encodeURIComponent(cursor)}`
        : "/api/runs");
      const whole = !cursor;
      cursor = answer.cursor;
      if (answer.rows.length || whole) table.take(answer.rows, whole);
      P.notes($("#notes"), answer.notes);
      filled();
    } catch (error) {
      if (!cursor) Curbcut.failed($("#runs"), error);
    }
  });

  function filled() {
    const any = table.rows.size > 0;
    $("#tools").hidden = $("#sums").hidden = !any;
    if (any) {
      if (!table.isConnected) $("#runs").replaceChildren(table);
      summed();
    } else $("#runs").replaceChildren(P.empty("No run yet.",
      "Start one with ", el("code", {}, "curbcut go run.toml"),
      " or plan one here; it appears by itself."));
  }

  function shown() {
    table.arrange();
    summed();
  }

  document.addEventListener("DOMContentLoaded", () => {
    $("#tools").hidden = true;
    $("#states").replaceWith(P.choice("State", [["all", "all"], ...STATES.map((one) => [one, one])],
      state, (value) => { state = value; shown(); }));
    $("#find").addEventListener("input", (event) => {
      words = event.target.value.trim().toLowerCase();
      shown();
    });
    ask().then(() => Curbcut.live(ask, cursor));
    setInterval(() => {
      for (const one of document.querySelectorAll("[data-heard]"))
        one.textContent = N.ago(Date.now() / 1000 - Number(one.dataset.heard));
    }, 5000);
  });
})();

// The planner: each move of a slider is a question; the answer is what `curbcut plan` says of it.
"use strict";
(() => {
  const { el, $, get } = Curbcut;
  const N = Curbcut.numbers, P = Curbcut.parts;
  const REST = 250;
  const AXES = [["usd", "money"], ["seconds", "time"], ["kwh", "energy"], ["kgco2e", "carbon"]];
  const UNITS = [["money", "money"], ["kwh", "energy"], ["kg", "carbon"], ["hours", "time"]];
  const CONTRACT = { "on-demand": "on demand", spot: "spot", "reserved-1y": "reserved for a year",
                     "reserved-3y": "reserved for three years" };
  let wishes = null, last = null, axis = "usd", unit = "money", resting = 0, map = null, asked = "";

  // Money in the currency of the budget, as the commands say it.
  function cash(usd) {
    if (usd === null || usd === undefined) return "not known";
    const amount = usd / wishes.rate, size = Math.abs(amount);
    for (const [least, factor, letter] of [[1e12, 1e12, "T"], [1e9, 1e9, "B"], [1e6, 1e6, "M"],
                                           [1e4, 1e3, "k"]])
      if (size >= least) return `${N.sig(amount / factor)}${letter} ${wishes.currency}`;
    return `${size >= 1e3 ? N.whole(Math.round(amount)) : size >= 0.1 || !size
      ? amount.toFixed(2) : N.small(amount)} ${wishes.currency}`;
  }

  const figure = (value, kind) => (kind === "usd" ? cash(value) : N.show(value, kind));
  const around = (one, kind) => (kind === "usd" ? one.low === one.high ? ""
    : `${cash(one.low)} .. ${cash(one.high)}` : N.span(one.low, one.high, kind));

  function told(found) {
    const { backwards, forecast, run } = found;
    const [lead, ...rest] = backwards.answer;
    const tile = (label, key, kind) => forecast[key] && forecast[key].value !== null && {
      label, value: figure(forecast[key].value, kind),
      note: [around(forecast[key], kind), forecast[key].basis].filter(Boolean).join(", ") };
    const size = run.experts ? `${N.show(run.active_parameters, "count")} active, ` +
      `${run.experts} experts` : `${run.layers} layers of width ${N.whole(run.width)}`;
    return [el("p", { class: "lead" }, lead),
      rest.map((text) => el("p", { class: "muted" }, text)),
      P.tiles([tile("Bits a byte", "loss.bits_per_byte", ""),
        { label: "Model", value: N.show(run.parameters, "count"), note: size },
        { label: "Tokens", value: N.show(run.tokens, "count"),
          note: `${N.sig(run.tokens / run.active_parameters)} a parameter` },
        { label: "Machine", value: `${N.whole(run.accelerators)} × ${run.accelerator}`,
          note: [run.precision, run.tenure === "rent" ? `rented ${CONTRACT[run.contract] ||
            run.contract}` : run.tenure, run.zone].join(", ") },
        tile("Time", "seconds.total", "seconds"), tile("Money", "usd.total", "usd"),
        tile("Energy", "kwh.facility", "kwh"), tile("Carbon", "kgco2e.total", "kgco2e"),
        tile("Water", "litres.water", "litres"), tile("MFU", "mfu.run", "fraction")]
        .filter(Boolean)),
      P.command(found.command, "Copy the command that writes this run")];
  }

  const stands = (one) => [`${one.machine}`, one.contract === "on-demand" ? "" : one.contract]
    .filter(Boolean).join(", ");

  function front(found) {
    const points = found.backwards.front, best = found.backwards.best;
    const money = axis === "usd", by = money ? wishes.rate : 1;
    const title = AXES.find(([key]) => key === axis)[1];
    const chart = Curbcut.scatter({ title: `What nothing beats: loss against ${title}`,
      x: { title: money ? `money in ${wishes.currency}` : title, unit: money ? "count" : axis,
           log: true }, y: { title: "expected bits a byte", unit: "", log: false }, height: 340 });
    const seen = new Map();
    const named = points.map((one) => {
      const name = `${N.show(one.parameters, "count")}, ${stands(one)}`;
      const many = (seen.get(name) || 0) + 1;
      seen.set(name, many);
      return many > 1 ? `${name} (${many})` : name;
    });
    const whole = points.map((one, i) => {
      const cost = one[axis], chosen = one.tokens === best.tokens && one.machine === best.machine &&
        one.parameters === best.parameters;
      const scaled = (value) => (value === null ? null : value / by);
      return { name: chosen ? `chosen: ${N.show(one.parameters, "count")}` : named[i], x: scaled(cost.value),
        xlow: scaled(cost.low), xhigh: scaled(cost.high), y: one.bits_per_byte.value,
        colour: chosen ? "--series-2" : "--series-1", shape: chosen ? "diamond" : "circle",
        strong: chosen, note: `on ${stands(one)}, ${N.show(one.tokens, "count")} tokens, ` +
          `${N.show(one.seconds.value, "seconds")}, bits a byte between ` +
          `${N.span(one.bits_per_byte.low, one.bits_per_byte.high, "")}` };
    });
    $("#front").replaceChildren(chart);
    // On this axis alone: the others of the dozen are on the front for what they save elsewhere.
    let lowest = Infinity;
    const line = [...whole].sort((a, b) => a.x - b.x)
      .filter((one) => one.y < lowest && (lowest = one.y, true)).map((one) => one.name);
    chart.draw(whole, line);
  }

  function listed(caption, columns, rows) {
    return el("div", { class: "table-wrap", tabindex: "0", role: "region", "aria-label": caption },
      el("table", { class: "rows" }, el("caption", {}, caption),
        el("thead", {}, el("tr", {}, columns.map(({ title, num, hint }) =>
          el("th", { scope: "col", class: num ? "num" : null, title: hint }, title)))),
        el("tbody", {}, rows.map((row) => el("tr", {}, row.map((value, i) =>
          el(i ? "td" : "th", { scope: i ? null : "row", class: columns[i].num ? "num" : null },
            value)))))));
  }

  function binds(found) {
    const { columns, rows, notes } = found.limits;
    const sides = [0, 1, 1, 0, 1, 1, 1];
    return [listed("Limits and their shadow prices", columns.map((title, i) =>
      ({ title, num: sides[i] })), rows.map((row) => row.map((value) => value === true
      ? el("span", { class: "badge warn" }, "binds") : value === false ? "no" : value ?? ""))),
    notes.map((text) => el("p", { class: "small muted" }, text))];
  }

  function others(found) {
    const rows = found.backwards.runners_up;
    if (!rows.length) return P.empty("No other machine was asked for.",
      "Let the machine be any with a known price to compare.");
    return listed("Each with what it would take, and why it lost", [
      { title: "Machine" }, { title: "Bits a byte", num: true }, { title: "Money", num: true },
      { title: "Time", num: true }, { title: "Model", num: true },
      { title: "Better after all", num: true, hint: "share of draws of all that is uncertain in " +
        "which it beats the best" }, { title: "Beside the best" }],
    rows.map((one) => [[stands(one), el("span", { class: "under" }, one.precision)],
      [N.sig(one.bits_per_byte.value), el("span", { class: "under" },
        N.span(one.bits_per_byte.low, one.bits_per_byte.high, ""))],
      [cash(one.usd.value), el("span", { class: "under" }, around(one.usd, "usd"))],
      N.show(one.seconds.value, "seconds"), N.show(one.parameters, "count"),
      one.chance_better === null ? "" : `${(100 * one.chance_better).toFixed(0)}%`, one.why]));
  }

  function marked() {
    if (!map || !last) return;
    const found = last.backwards.best, size = found.active_parameters;
    map.mark({ usd: found.usd.value, parameters: size, low: size, high: size });
  }

  const ask = Curbcut.oneAtATime(async () => {
    const query = wishes.query().toString();
    if (query === asked) return;
    try {
      last = await get(`/api/planner/answer?${query}`);
      asked = query;
      history.replaceState(null, "", `?${query}`);
      $("#told").replaceChildren(...told(last).flat().filter(Boolean));
      $("#found").hidden = false;
      front(last);
      $("#binds").replaceChildren(...binds(last).flat());
      $("#others").replaceChildren(others(last));
      marked();
      $("#answer").dataset.answered = query;
    } catch (error) {
      asked = "";
      last = null;
      $("#found").hidden = true;
      if (map) map.mark(null);
      Curbcut.failed($("#told"), error);
    }
    $("#answer").setAttribute("aria-busy", "false");
  });

  function changed() {
    $("#answer").setAttribute("aria-busy", "true");
    ask();
    rests();
  }

  function rests() {
    clearTimeout(resting);
    resting = setTimeout(pull, REST);
  }

  // The waterfall prices the run some two hundred times: it waits until nothing moves.
  const pull = Curbcut.oneAtATime(async () => {
    if ($("#answer").getAttribute("aria-busy") === "true") return rests();
    if (!last) return;
    const query = wishes.query();
    const before = query.toString();
    query.set("unit", unit === "money" ? wishes.currency : unit);
    try {
      const found = await get(`/api/planner/levers?${query}`);
      if (found.stopped || before !== wishes.query().toString()) return rests();
      levers(found);
    } catch (error) {
      if (before !== wishes.query().toString()) return rests();
      Curbcut.failed($("#levers"), error);
      $("#levers-more").replaceChildren();
      $("#levers-said").textContent = "";
    }
  });

  let fall = null, falls = "";
  function levers(found) {
    const kind = found.unit, text = (value) => figure(value, kind);
    const many = found.steps.length;
    $("#levers-said").textContent = !many ? `No lever saves anything of ${found.what}.`
      : `${found.factor === null ? "Far less" : `${N.sig(found.factor)} times less`}` +
        `${found.factor_low === null || found.factor_high === null ? ""
          : ` (${N.sig(found.factor_low)} .. ${N.sig(found.factor_high)})`}` +
        `: from ${text(found.start.value)} to ${text(found.end.value)} of ${found.what}. Each is ` +
        "priced on top of those above it; dashed: it may save nothing.";
    const key = `${kind} ${wishes.currency}`, by = kind === "usd" ? wishes.rate : 1;
    const said = (value) => (kind === "usd" ? cash(value * wishes.rate) : N.show(value, kind));
    if (falls !== key) {
      fall = Curbcut.waterfall({ title: "Levers in their best order", text: said,
        unit: kind === "usd" ? wishes.currency : kind });
      falls = key;
    }
    if (!fall.isConnected) $("#levers").replaceChildren(fall);
    const whole = ({ value, low, high }) => ({ value: value / by, low: low / by, high: high / by });
    fall.draw({ start: whole(found.start), end: whole(found.end),
      steps: found.steps.map((one) => ({ name: one.name, before: one.before / by,
      after: one.after / by, low: one.saved ? one.saved.low / by : null,
      high: one.saved ? one.saved.high / by : null, maybe: one.uncertain,
      note: [one.what, one.changed.length ? `sets ${one.changed.join("; ")}` : "",
        one.evidence[0]?.quote].filter(Boolean).join(". ") })) });
    $("#levers-more").replaceChildren(
      many ? el("details", {}, el("summary", {}, "What each sets, and what was published of it"),
        el("dl", { class: "facts" }, found.steps.map((one) => [el("dt", {}, one.name),
          el("dd", {}, `${one.what}. `, one.changed.length ? `Sets ${one.changed.join("; ")}. ` : "",
            one.evidence.map((row) => el("span", { class: "small muted" },
              `${row.quote} [${row.source}]. `)))]))) : "",
      el("details", {}, el("summary", {}, `${found.others.length} more, and why not`),
        listed("Levers that are not in the order", [{ title: "Lever" }, { title: "State" },
          { title: "Saves alone", num: true }, { title: "Why" }],
        found.others.map((one) => [one.name, one.status, one.alone_share
          ? `${N.sig(100 * one.alone_share.value, 2)}%` : "", one.reason]))));
  }

  document.addEventListener("DOMContentLoaded", async () => {
    try {
      const said = new URLSearchParams(location.search);
      wishes = Curbcut.wishes($("#wishes"), await get("/api/planner/choices"), said, changed);
    } catch (error) {
      return Curbcut.failed($("#told"), error);
    }
    $("#front-tools").append(P.choice("Loss against", AXES, axis, (value) => {
      axis = value;
      if (last) front(last);
    }));
    $("#levers-tools").append(P.choice("Saved of", UNITS, unit, (value) => {
      unit = value;
      pull();
    }));
    Curbcut.onTheme(marked);
    changed();
    try {
      map = Curbcut.barrier(await get("/api/planner/map"));
      $("#map").replaceChildren(map);
      map.mark(null);
      marked();
    } catch (error) {
      Curbcut.failed($("#map"), error);
    }
  });
})();

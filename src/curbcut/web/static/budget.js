// Budgets: spent, held, left, the pace and the day on which nothing is left; days; training beside.
"use strict";
(() => {
  const { el, $, get } = Curbcut;
  const N = Curbcut.numbers, P = Curbcut.parts;
  const EVERY = 4000, DAY = 86400;
  const SHOWN = [["charged_usd", "money charged", "usd"], ["cost_usd", "money it cost", "usd"],
                 ["kwh", "energy", "kwh"], ["tokens", "tokens", "count"]];
  let cursor = "", shown = "charged_usd", last = null;

  const amount = (value, unit) => (unit === "tokens" ? `${N.show(value, "count")}`
    : N.show(value, unit));
  const none = (text) => el("span", { class: "muted" }, text);
  const under = (text) => (text ? el("span", { class: "under" }, text) : null);
  const day = (seconds) => N.moment(seconds).slice(0, 16);

  function taken(row) {
    const part = row.amount ? row.spent / row.amount : 1;
    const held = row.amount ? row.held / row.amount : 0;
    const both = part + held;
    const kind = both >= 1 ? "bad" : both >= 0.8 ? "warn" : "";
    const bar = P.bar(part, `${amount(row.spent, row.unit)} spent and ${amount(row.held, row.unit)} ` +
      `held of ${amount(row.amount, row.unit)}`, `split ${kind}`);
    if (row.held) {
      const more = el("i", { class: "held" });
      more.style.left = `${100 * Math.min(1, part)}%`;
      more.style.width = `${100 * Math.min(1 - Math.min(1, part), held)}%`;
      bar.append(more);
    }
    return el("div", { class: "left-over" }, el("span", {}, `${amount(row.spent, row.unit)} spent`,
      row.held ? `, ${amount(row.held, row.unit)} held` : ""), bar,
      el("span", { class: "under" }, `${amount(row.left, row.unit)} left of ` +
        amount(row.amount, row.unit)));
  }

  function pace(row) {
    const found = row.pace_a_day;
    if (!found) return none("nothing lately");
    return [`${amount(found.value, row.unit)} a day`,
      under(N.span(found.low, found.high, row.unit === "tokens" ? "count" : row.unit))];
  }

  function empty(row) {
    if (row.gone) return [el("span", { class: "badge bad" }, "nothing left"),
      under(row.ends ? `anew ${day(row.ends)}` : "")];
    const found = row.empty;
    if (!found || found.value === null)
      return row.pace_a_day ? none("not in a hundred years") : none("no pace to tell by");
    const ends = `${found.low === null ? "" : day(found.low).slice(0, 10)} .. ` +
      (found.high === null ? "never" : day(found.high).slice(0, 10));
    return row.lasts
      ? [el("span", { class: "badge good" }, `lasts the ${row.period}`), under(`anew ${day(row.ends)}`)]
      : [day(found.value), under(ends)];
  }

  const budgets = P.table({ caption: "Each budget as it stands; the day it is gone goes on the pace " +
    "of the last days, with the range that their differences leave",
    id: (row) => `${row.scope} ${row.unit} ${row.period}`, sort: "empty",
    none: "No budget is set: curbcut access budget sets one.", columns: [
      { key: "name", title: "Budget of", head: true, class: "name", by: (row) => row.name,
        cell: (row) => [row.name, under(row.scope.startsWith("key:")
          ? `key ck-${row.scope.slice(4)}-…` : row.scope.split(":")[0])] },
      { key: "unit", title: "In", by: (row) => row.unit, cell: (row) => [
        { usd: "money", kwh: "energy", tokens: "tokens" }[row.unit] || row.unit,
        under(row.period === "all" ? "for good" : `a ${row.period}`)] },
      { key: "taken", title: "Taken", cell: taken,
        by: (row) => (row.amount ? (row.spent + row.held) / row.amount : 1) },
      { key: "pace", title: "Pace", num: true, cell: pace, by: (row) => row.pace_a_day?.value },
      { key: "empty", title: "Gone by", num: true, cell: empty,
        by: (row) => (row.gone ? 0 : row.empty?.value) },
    ] });

  const spent = (found, unit) => (found.now === null ? none("not known") : [N.show(found.now, unit),
    under([found.promised !== null && `of ${N.show(found.promised, unit)}`, found.basis]
      .filter(Boolean).join(", "))]);
  const runs = P.table({ caption: "Training runs by their money", id: (row) => row.name, sort: "usd",
    descending: true, none: "No run has taken money yet.", columns: [
      { key: "name", title: "Run", head: true, class: "name", by: (row) => row.name,
        cell: (row) => el("a", { href: `/runs/${encodeURIComponent(row.name)}` }, row.name) },
      { key: "state", title: "State", by: (row) => row.state, cell: (row) => P.badge(row.state) },
      { key: "usd", title: "Money", num: true, by: (row) => row.usd.now,
        cell: (row) => spent(row.usd, "usd") },
      { key: "kwh", title: "Energy", num: true, by: (row) => row.kwh.now,
        cell: (row) => spent(row.kwh, "kwh") },
      { key: "began", title: "Began", num: true, by: (row) => row.began,
        cell: (row) => (row.began === null ? none("not yet") : day(row.began)) }] });

  function sums({ total, training, held }) {
    const known = (value, unit) => (value === null ? "not known" : N.show(value, unit));
    const lacking = (count, words) => (count ? `${N.whole(count)} requests ${words}` : "");
    const ahead = (usd, kwh) => (usd === null && kwh === null ? ""
      : `${[usd !== null && N.show(usd, "usd"), kwh !== null && N.show(kwh, "kwh")].filter(Boolean)
        .join(" and ")} promised ahead`);
    const one = total[0] ?? total;
    return P.tiles([
      { label: "Charged for answers", value: known(one.charged_usd, "usd"),
        note: lacking(one.uncharged, "without a price") },
      { label: "Answers cost", value: known(one.cost_usd, "usd"),
        note: lacking(one.uncosted, "not metered") },
      { label: "Energy of answers", value: known(one.kwh, "kwh"),
        note: lacking(one.unmetered, "not metered") },
      { label: "Held now", value: N.whole(held), note: "requests under way" },
      { label: "Training so far", value: training.runs ? known(training.usd, "usd") : "none yet",
        note: [`${N.whole(training.runs)} runs`, training.modelled &&
          `${N.whole(training.modelled)} modelled`, training.unknown &&
          `${N.whole(training.unknown)} not known`].filter(Boolean).join(", ") },
      { label: "Energy of training", value: training.runs ? known(training.kwh, "kwh") : "none yet",
        note: ahead(training.usd_ahead, training.kwh_ahead) },
    ]);
  }

  let chart = null, of = "";
  function drawn() {
    if (!last) return;
    const [key, title, unit] = SHOWN.find(([name]) => name === shown);
    if (of !== key) {
      chart = Curbcut.days({ title: `A day: ${title}`, unit, text: (value) => N.show(value, unit),
        file: title });
      of = key;
      $("#days").replaceChildren(chart);
    }
    const end = Math.floor(last.now / DAY) * DAY + DAY;
    chart.draw(last.days.map((one) => ({ name: one.project, start: one.start, value: one[key] })),
      end - 30 * DAY, end);
  }

  const ask = Curbcut.oneAtATime(async () => {
    try {
      const found = await get(`/api/budget${cursor ? `?after=${encodeURIComponent(cursor)}` : ""}`);
      cursor = found.cursor;
      if (found.missing) return missing();
      if (found.same) return;
      last = found;
      $("#parts").hidden = false;
      $("#pace").textContent = `pace of the last ${N.whole(found.pace_days)} days`;
      $("#sums").replaceChildren(sums(found));
      budgets.take(found.budgets, true);
      runs.take(found.runs, true);
      drawn();
    } catch (error) {
      if (!cursor) Curbcut.failed($("#sums"), error);
    }
  });

  function missing() {
    $("#sums").replaceChildren(P.empty("No ledger yet.", "It is made by the first run or key: ",
      el("code", {}, "curbcut go"), " or ", el("code", {}, "curbcut keys add me")));
  }

  document.addEventListener("DOMContentLoaded", () => {
    $("#budgets").append(budgets);
    $("#runs").append(runs);
    $("#days-tools").append(P.choice("By day", SHOWN.map(([key, title]) => [key, title]), shown,
      (value) => { shown = value; drawn(); }));
    ask();
    setInterval(() => { if (!document.hidden) ask(); }, EVERY);
  });
})();

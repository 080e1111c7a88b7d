// Models, keys, projects and the audit trail; figures of the chosen span, changed in place.
"use strict";
(() => {
  const { el, $, get } = Curbcut;
  const N = Curbcut.numbers, P = Curbcut.parts;
  const EVERY = 4000;
  const SPANS = [["day", "a day"], ["week", "a week"], ["month", "30 days"], ["all", "all time"]];
  let cursor = "", span = "month", keyState = "live", words = "", oldest = null;

  const none = (text = N.NONE) => el("span", { class: "muted" },
    el("span", { "aria-hidden": "true" }, "–"), el("span", { class: "hidden-text" }, text));
  const figure = (value, unit, text) => (value === null || value === undefined ? none(text)
    : N.show(value, unit));
  const under = (...parts) => {
    const text = parts.filter(Boolean).join(", ");
    return text ? el("span", { class: "under" }, text) : null;
  };
  const tokens = (row) => row.prompt_tokens + row.output_tokens;
  const per = (price) => (price === 0 ? "free" : N.show(price, "usd"));
  const per1M = (usd) => (usd === null ? null : under(`${N.show(usd, "usd")} / 1M out`));
  const cost = (row) => [figure(row.cost_usd, "usd"), per1M(row.cost_per_million)];
  const joules = (row) => figure(row.joules_per_token, "joules");

  function requests(row) {
    return [N.whole(row.requests), row.last && under(`last ${N.ago(Date.now() / 1000 - row.last)}`)];
  }

  function used(row) {
    if (!tokens(row)) return row.requests ? "0" : none("none");
    return [N.show(tokens(row), "count"),
      under(`${N.show(row.prompt_tokens, "count")} in, ${N.show(row.output_tokens, "count")} out`),
      row.cached_tokens ? under(`${N.show(row.cached_tokens, "count")} remembered`) : null];
  }

  function energy(row) {
    return [figure(row.kwh, "kwh"), under(row.energy,
      row.kwh !== null && row.unmetered && `${N.whole(row.unmetered)} not metered`)];
  }

  function charged(row) {
    return [figure(row.charged_usd, "usd", "not charged"), per1M(row.usd_per_million),
      under(row.charged_usd !== null && row.uncharged && `${N.whole(row.uncharged)} without a price`)];
  }

  function allowed(row) {
    const found = row.allowance, said = [];
    if (found) {
      if (found.models) said.push(found.models.length ? `models: ${found.models.join(", ")}`
        : "no models");
      if (found.requests_a_minute !== null) said.push(`${N.whole(found.requests_a_minute)} requests/min`);
      if (found.tokens_a_minute !== null) said.push(`${N.show(found.tokens_a_minute, "count")} tokens/min`);
      if (found.concurrency !== null) said.push(`${N.whole(found.concurrency)} at once`);
      if (found.weight !== 1) said.push(`weight ${N.sig(found.weight)}`);
    }
    const bars = row.budgets.map((one) => {
      const part = one.amount ? (one.spent + one.held) / one.amount : 1;
      const text = `${amount(one.spent + one.held, one.unit)} of ${amount(one.amount, one.unit)}` +
        `${one.period === "all" ? "" : ` this ${one.period}`}`;
      return [el("span", {}, text), P.bar(part, text, part >= 1 ? "bad" : part >= 0.8 ? "warn" : "")];
    });
    if (!said.length && !bars.length) return el("span", { class: "muted" }, "no limit of its own");
    return el("div", { class: "limits" }, said.map((text) => el("span", {}, text)), bars);
  }

  const amount = (value, unit) => (unit === "usd" ? N.show(value, "usd")
    : unit === "kwh" ? N.show(value, "kwh") : `${N.show(value, "count")} tokens`);

  const counted = [
    { key: "requests", title: "Requests", num: true, by: (row) => row.requests, cell: requests },
    { key: "tokens", title: "Tokens", num: true, by: tokens, cell: used },
    { key: "charged", title: "Charged", num: true, by: (row) => row.charged_usd, cell: charged },
    { key: "cost", title: "Cost", num: true, by: (row) => row.cost_usd,
      hint: "its share of the machine's money", cell: cost },
    { key: "kwh", title: "Energy", num: true, by: (row) => row.kwh, cell: energy },
    { key: "joules", title: "J/token", num: true, by: (row) => row.joules_per_token,
      hint: "over tokens of answers, their prompts in it, of the requests whose joules are known", cell: joules },
  ];

  const models = P.table({ caption: "What a million tokens cost, and what was used",
    id: (row) => row.model, sort: "tokens", descending: true,
    none: "No model has a price or was asked yet.",
    columns: [
      { key: "model", title: "Model", head: true, class: "name", cell: (row) => row.model,
        by: (row) => row.model },
      { key: "price", title: "Price of 1M", num: true, hint: "dollars: prompt, remembered prompt, answer",
        by: (row) => row.price?.output_usd, cell: (row) => (row.price
          ? [`${per(row.price.prompt_usd)} → ${per(row.price.output_usd)}`, under(
            `remembered ${per(row.price.cached_usd)}`, row.price.basis)]
          : none("no price")) },
      ...counted,
    ] });

  const keys = P.table({ caption: "Keys by what they used; of a secret only its public part is kept",
    id: (row) => row.id, sort: "tokens", descending: true, none: "No key fits.",
    shown: (row) => (keyState === "all" || row.state === keyState) &&
      (!words || `${row.name} ${row.project} ${row.owner} ${row.id}`.toLowerCase().includes(words)),
    columns: [
      { key: "name", title: "Key", head: true, class: "name", by: (row) => row.name,
        cell: (row) => [row.name, el("span", { class: "under mono" }, `ck-${row.id}-…`)] },
      { key: "state", title: "State", by: (row) => row.state, cell: (row) => [
        el("span", { class: `badge ${row.state === "live" ? "good" : "bad"}` }, row.state),
        under(row.state === "live" && row.expires && `until ${N.moment(row.expires).slice(0, 16)}`,
          row.revoked && N.moment(row.revoked).slice(0, 16))] },
      { key: "role", title: "Role", by: (row) => row.role, cell: (row) => row.role },
      { key: "project", title: "Project", class: "who", by: (row) => row.project,
        cell: (row) => [row.project, under(row.owner)] },
      { key: "limits", title: "Limits", class: "may", cell: allowed },
      ...counted,
    ] });

  const projects = P.table({ caption: "Organisations, and their projects",
    id: (row) => row.kind + row.name, none: "No organisation yet.", columns: [
      { key: "name", title: "Name", head: true, class: "name", by: (row) => row.name,
        cell: (row) => [row.name, row.archived && under("archived")] },
      { key: "kind", title: "Of", by: (row) => row.organisation ?? "",
        cell: (row) => row.organisation ?? el("span", { class: "muted" }, "an organisation") },
      { key: "limits", title: "Limits", class: "may", cell: allowed }, ...counted] });

  function sums(found) {
    const add = (key) => {
      const known = found.models.map((row) => row[key]).filter((one) => one !== null);
      return known.length ? known.reduce((a, b) => a + b, 0) : null;
    };
    const all = found.models.reduce((sum, row) => sum + tokens(row), 0);
    const kwh = add("kwh"), usd = add("charged_usd"), cost = add("cost_usd");
    const lacking = found.models.reduce((sum, row) => sum + row.unmetered, 0);
    const weigh = (key, of) => {
      const known = found.models.filter((row) => row[key] !== null);
      const over = known.reduce((sum, row) => sum + row[of], 0);
      return over ? known.reduce((sum, row) => sum + row[key] * row[of], 0) / over : null;
    };
    const [usdEach, costEach, jouleEach] = [weigh("usd_per_million", "charged_tokens"),
      weigh("cost_per_million", "costed_tokens"), weigh("joules_per_token", "metered_tokens")];
    return P.tiles([
      { label: "Servers now", value: N.whole(found.servers.alive),
        note: `${N.whole(found.servers.held)} requests held` },
      { label: "Requests", value: N.whole(add("requests") ?? 0) },
      { label: "Tokens", value: N.show(all, "count") },
      { label: "Charged", value: figure(usd, "usd"), note: usdEach === null ? ""
        : `${N.show(usdEach, "usd")} a million answer tokens` },
      { label: "Cost", value: figure(cost, "usd"), note: costEach === null ? ""
        : `${N.show(costEach, "usd")} a million answer tokens` },
      { label: "Energy", value: figure(kwh, "kwh"), note: [jouleEach !== null &&
        `${N.show(jouleEach, "joules")} an answer token`, lacking && `${N.whole(lacking)} not metered`]
        .filter(Boolean).join(", ") },
    ]);
  }

  const KINDS = { requests: "requests", idle: "idle: nobody asked", lost: "work that was never settled",
                  correction: "correction to the counter" };
  const machine = P.table({ caption: "What the servers drew and cost, requests and idle time",
    id: (row) => `${row.model} ${row.kind} ${row.basis}`,
    none: "Nothing was metered in this time.", columns: [
      { key: "kind", title: "Went to", head: true, by: (row) => row.kind, cell: (row) => KINDS[row.kind] },
      { key: "model", title: "Model", by: (row) => row.model, cell: (row) => row.model || "none" },
      { key: "basis", title: "Known", by: (row) => row.basis, cell: (row) => row.basis },
      { key: "seconds", title: "Time", num: true, by: (row) => row.seconds,
        cell: (row) => N.show(row.seconds, "seconds") },
      { key: "kwh", title: "Energy", num: true, by: (row) => row.kwh, cell: (row) => figure(row.kwh, "kwh") },
      { key: "usd", title: "Money", num: true, by: (row) => row.usd, cell: (row) => figure(row.usd, "usd") },
      { key: "kg", title: "Carbon", num: true, by: (row) => row.kgco2e,
        cell: (row) => figure(row.kgco2e, "kgco2e") }] });

  const licences = P.table({ caption: "Who is issued a key accepts these first", id: (row) => row.hash + row.scope,
    none: "No text stands before any key.", columns: [
      { key: "scope", title: "For", head: true, by: (row) => row.scope,
        cell: (row) => row.scope.replace(":", " ") },
      { key: "hash", title: "SHA-256", class: "mono break", cell: (row) => row.hash },
      { key: "set", title: "Since", by: (row) => row.set, cell: (row) => N.moment(row.set).slice(0, 16) },
      { key: "size", title: "Characters", num: true, cell: (row) => N.whole(row.characters) }] });

  const ask = Curbcut.oneAtATime(async () => {
    try {
      const query = new URLSearchParams({ span, ...(cursor ? { after: cursor } : {}) });
      const found = await get(`/api/access?${query}`);
      cursor = found.cursor;
      if (found.missing) return missing();
      if (found.same) return;
      $("#sums").replaceChildren(sums(found));
      $("#parts").hidden = false;
      models.take(found.models, true);
      const unkeyed = found.unkeyed.requests ? [{ id: "", name: "without a key", state: "live",
        role: "", project: "", owner: "", expires: null, revoked: null, budgets: [],
        allowance: null, ...found.unkeyed }] : [];
      keys.take([...found.keys, ...unkeyed], true);
      projects.take(found.organisations.flatMap((one) => [{ kind: "organisation", ...one,
        organisation: null }, ...found.projects.filter((project) =>
        project.organisation === one.name).map((project) => ({ kind: "project", ...project }))]), true);
      machine.take(found.machine, true);
      licences.take(found.licences, true);
      $("#since").textContent = found.since === null ? "since the first request"
        : `since ${N.moment(found.since).slice(0, 16)}`;
      await newest();
    } catch (error) {
      if (!cursor) Curbcut.failed($("#sums"), error);
    }
  });

  function missing() {
    $("#sums").replaceChildren(P.empty("No ledger yet.", "Serve a model with keys: ",
      el("code", {}, "curbcut keys add me"), ", then ", el("code", {}, "curbcut serve MODEL")));
    $("#span-tools").hidden = true;
  }

  const trail = P.table({ caption: "Each row holds the hash of the row before it", id: (row) => row.sequence,
    none: "Nothing was changed yet.", columns: [
      { key: "row", title: "Row", num: true, cell: (row) => N.whole(row.sequence) },
      { key: "time", title: "When", class: "when", cell: (row) => N.moment(row.time) },
      { key: "actor", title: "Who", class: "actor", cell: (row) => row.actor },
      { key: "action", title: "What", head: true, cell: (row) => row.action },
      { key: "subject", title: "On", class: "mono break", cell: (row) => row.subject },
      { key: "told", title: "How", class: "body", cell: (row) => row.told || el("span", { class: "muted" }, "–") },
      { key: "hash", title: "Hash", cell: (row) => el("span", { class: "mono", title: row.hash },
        `${row.hash.slice(0, 12)}…`) }] });

  async function newest() {
    const found = await get("/api/access/audit");
    if (found.missing) return;
    $("#trail").hidden = false;
    verdict(found.verdict);
    const whole = oldest === null;
    trail.take(found.entries, whole);
    if (whole) older(found.entries);
    arranged();
  }

  // The newest row first, whatever came when.
  function arranged() {
    const rows = [...trail.rows.values()].sort((a, b) => b.sequence - a.sequence);
    trail.take(rows, true);
  }

  function older(entries) {
    oldest = entries.length ? entries[entries.length - 1].sequence : 1;
    $("#older").replaceChildren(oldest > 1 ? el("button", { type: "button", onclick: more },
      `Older rows (${N.whole(oldest - 1)} more)`) : "");
  }

  async function more() {
    try {
      const found = await get(`/api/access/audit?before=${oldest}`);
      trail.take(found.entries);
      arranged();
      older(found.entries);
      Curbcut.say(`${found.entries.length} older rows.`);
    } catch (error) { Curbcut.say(error.message); }
  }

  function verdict({ rows, head, fault, walked }) {
    const kind = fault ? "bad" : rows ? "good" : "";
    $("#verdict").replaceChildren(el("p", { class: `note ${kind}`, role: fault ? "alert" : null },
      fault ? [el("strong", {}, "The chain is broken: "), `${fault}. Rows 1 to ${N.whole(rows)} are sound.`]
        : rows ? [el("strong", {}, "The chain is sound: "), `${N.whole(rows)} rows walked ` +
          `${N.ago(Math.max(0, Date.now() / 1000 - walked))}. Keep its head elsewhere, and a cut of ` +
          "the newest rows is found too: ", el("code", { class: "break" }, head)]
          : "No row yet: each change of access writes one."));
  }

  document.addEventListener("DOMContentLoaded", () => {
    $("#span-tools").append(P.choice("Over", SPANS, span, (value) => {
      span = value;
      cursor = "";
      ask();
    }));
    $("#states").replaceWith(P.choice("State", [["live", "live"], ["expired", "expired"],
      ["revoked", "revoked"], ["all", "all"]], keyState, (value) => {
      keyState = value;
      keys.arrange();
    }));
    $("#find").addEventListener("input", (event) => {
      words = event.target.value.trim().toLowerCase();
      keys.arrange();
    });
    for (const [place, table] of Object.entries({ models, keys, projects, machine, licences,
                                                  entries: trail })) $(`#${place}`).append(table);
    ask();
    setInterval(() => { if (!document.hidden) ask(); }, EVERY);
  });
})();

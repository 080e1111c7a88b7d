// What may be spent and where: sliders over powers of ten, each with its figure as text beside it.
"use strict";
Curbcut.wishes = (() => {
  const { el } = Curbcut;
  const { sig } = Curbcut.numbers;

  // Ends of each slider as powers of ten, in the unit that is said.
  const LIMITS = [
    { name: "money", title: "Money", unit: "EUR", low: 1, high: 9, start: 500 },
    { name: "hours", title: "Time", unit: "h", low: -0.3, high: 3.943, start: 720 },
    { name: "energy", title: "Energy", unit: "kWh", low: 0, high: 9, start: 500 },
    { name: "carbon", title: "Carbon", unit: "kg", low: -1, high: 9, start: 200 },
  ];
  const KINDS = { world: "World", country: "Countries", state: "States", province: "Provinces",
                  "bidding zone": "Bidding zones", "cloud region": "Cloud regions" };

  // Two digits, as people name sums: 480, 1.2, 35000.
  const round = (value) => Number(value.toPrecision(2));
  const plain = (value) => (value >= 1e21 ? String(value)
    : value.toLocaleString("en", { useGrouping: false, maximumFractionDigits: 6 }));
  const grouped = (value) => value.toLocaleString("en", { maximumFractionDigits: 3 });

  // The unit goes first: the k of "3 kWh" is no thousand.
  function number(text, unit) {
    let words = text.trim();
    if (words.toLowerCase().endsWith(unit.toLowerCase())) words = words.slice(0, -unit.length);
    const found = /^([\d.,\s']+(?:e[+-]?\d+)?)\s*([kKMBT]?)$/.exec(words.trim());
    if (!found) return NaN;
    const factor = { "": 1, k: 1e3, K: 1e3, M: 1e6, B: 1e9, T: 1e12 }[found[2]];
    return Number(found[1].replace(/[,\s']/g, "")) * factor;
  }

  // wishes(form, choices, said, changed): fills the form; `changed()` is called at each move. The
  // result has .query(): what to ask; .currency; .wrong(field): marks what cannot be used.
  return function wishes(form, choices, said, changed) {
    const limits = new Map(LIMITS.map((one) => [one.name, limit(one)]));
    const currency = select("Currency", Object.keys(choices.currencies).map((one) => [one, one]),
      moneyOf(said.get("money")) || "EUR", () => { renamed(); changed(); });
    const zone = zones();
    const contract = select("Rented", choices.contracts.map((one) =>
      [one, one === "any" ? "on demand or spot, what is better" : one.replaceAll("-", " ")]),
      said.get("contract") || "on-demand", changed);
    const machine = select("Machine", [["any", "any with a known price"], ["here", "this machine"],
      ["named", "those named below"]], madeOf(said.get("on")), () => { named(); changed(); });
    const names = el("input", { type: "text", id: "names", placeholder: "8xh100-sxm-80gb, 16xa40",
      autocomplete: "off", list: "known-machines", "aria-describedby": "names-hint",
      onchange: changed });
    names.value = machine.select.value === "named" ? said.get("on") : "";
    const naming = el("div", { class: "field" }, el("label", { for: "names" }, "Names"), names,
      el("span", { class: "small muted", id: "names-hint" },
        "how many x which, with commas between"),
      el("datalist", { id: "known-machines" }, choices.accelerators.map((one) =>
        el("option", { value: `8x${one}` }))));
    const data = el("input", { type: "text", id: "data", placeholder: "no end of it",
      autocomplete: "off", onchange: changed });
    data.value = said.get("data") || "";
    const project = el("input", { type: "checkbox", id: "project", onchange: changed,
      checked: said.has("project") });
    form.addEventListener("submit", (event) => event.preventDefault());
    form.replaceChildren(
      el("fieldset", {}, el("legend", {}, "What may be spent"),
        [...limits.values()].map((one) => one.element), currency,
        el("label", { class: "inline", for: "project" }, project,
          "for the whole project, experiments and failures too")),
      el("fieldset", {}, el("legend", {}, "Where"), machine, naming, zone, contract),
      el("fieldset", {}, el("legend", {}, "On what"),
        el("div", { class: "field" }, el("label", { for: "data" }, "Different text at hand, like 30 GB"),
          data)));
    renamed();
    named();

    function limit({ name, title, unit, low, high, start }) {
      const given = number(said.get(name) || "", (name === "money" && moneyOf(said.get(name))) ||
        unit);
      const on = el("input", { type: "checkbox", id: `limit-${name}` });
      on.checked = said.size ? said.has(name) : name === "money";
      const text = el("input", { type: "text", id: `figure-${name}`, inputmode: "decimal",
        autocomplete: "off", "aria-label": `${title}, a figure` });
      const range = el("input", { type: "range", min: low, max: high, step: 0.02,
        "aria-label": `${title}, at most` });
      const state = { value: given > 0 ? given : start, unit };
      const show = () => {
        text.value = `${grouped(state.value)} ${state.unit}`;
        range.value = Math.log10(state.value);
        range.setAttribute("aria-valuetext", text.value);
        text.disabled = range.disabled = !on.checked;
      };
      on.addEventListener("change", () => { show(); changed(); });
      range.addEventListener("input", () => {
        state.value = round(10 ** Number(range.value));
        show();
        changed();
      });
      text.addEventListener("change", () => {
        const wanted = number(text.value, state.unit);
        text.toggleAttribute("aria-invalid", !(wanted > 0));
        if (!(wanted > 0)) {
          text.setAttribute("aria-invalid", "true");
          return Curbcut.say(`${title}: write a number above 0, like ${grouped(start)}.`);
        }
        state.value = wanted;
        show();
        changed();
      });
      const element = el("div", { class: "limit" },
        el("label", { class: "inline", for: on.id }, on, `${title}, at most`), text, range);
      show();
      return { element, on, state, show, text };
    }

    function renamed() {
      const money = limits.get("money");
      money.state.unit = currency.select.value;
      money.show();
    }

    function named() { naming.hidden = machine.select.value !== "named"; }

    function select(title, options, value, onchange) {
      const id = `wish-${title.toLowerCase()}`;
      const made = el("select", { id, onchange }, options.map(([key, text]) =>
        el("option", { value: key, selected: key === value }, text)));
      return Object.assign(el("div", { class: "field" }, el("label", { for: id }, title), made),
        { select: made });
    }

    function zones() {
      const value = said.get("zone") || "world";
      const made = el("select", { id: "wish-zone", onchange: changed },
        el("option", { value: "any", selected: value === "any" }, "the cleanest there is"),
        choices.zones.map(({ kind, zones: found }) => el("optgroup", { label: KINDS[kind] || kind },
          found.map(([code, name]) => el("option", { value: code, selected: code === value },
            name === code ? code : `${name} (${code})`)))));
      return Object.assign(el("div", { class: "field" }, el("label", { for: "wish-zone" },
        "Electricity of"), made), { select: made });
    }

    function query() {
      const asked = new URLSearchParams();
      for (const [name, { on, state }] of limits)
        if (on.checked) asked.set(name, `${plain(state.value)} ${state.unit}`);
      if (data.value.trim()) asked.set("data", data.value.trim());
      const on = machine.select.value;
      asked.set("on", on === "named" ? names.value.trim() || "any" : on);
      if (zone.select.value !== "world") asked.set("zone", zone.select.value);
      if (contract.select.value !== "on-demand") asked.set("contract", contract.select.value);
      if (project.checked) asked.set("project", "1");
      return asked;
    }

    return { query, limits,
      get currency() { return currency.select.value; },
      get rate() { return choices.currencies[currency.select.value]; } };
  };

  function moneyOf(text) { return text ? (/[A-Z]{3}$/.exec(text) || [null])[0] : null; }

  function madeOf(on) { return !on || on === "any" ? "any" : on === "here" ? "here" : "named"; }
})();

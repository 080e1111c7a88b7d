// What a run was told: every value and who set it, or only where another run differs.
"use strict";
Curbcut.config = (() => {
  const { el, get } = Curbcut;
  const P = Curbcut.parts;

  function worded(value) {
    if (value === null || value === undefined) return el("span", { class: "muted" }, "–");
    return typeof value === "object" ? JSON.stringify(value) : String(value);
  }

  function table(caption, heads, rows) {
    return el("div", { class: "table-wrap tall", role: "region", tabindex: "0",
                       "aria-label": caption },
      el("table", { class: "rows" }, el("caption", {}, caption),
        el("thead", {}, el("tr", {}, heads.map((name) => el("th", { scope: "col", class: "wrap" }, name)))),
        el("tbody", {}, rows.map(([name, ...cells]) => el("tr", {},
          el("th", { scope: "row", class: "mono" }, name),
          cells.map((cell) => el("td", { class: "break" }, cell)))))));
  }

  // fill(parent, name, config): config is key -> {value, origin}; `names()` are all other runs.
  function fill(parent, name, config, names) {
    const keys = Object.keys(config).sort();
    if (!keys.length) {
      parent.replaceChildren(P.empty("Nothing is written down yet.",
        "The resolved configuration appears when the run has been planned."));
      return;
    }
    const place = el("div");
    let which = keys.some((key) => set(config[key])) ? "set" : "all";
    const show = () => {
      const shown = which === "all" ? keys : keys.filter((key) => set(config[key]));
      place.replaceChildren(table(which === "all" ? "Every value and who set it"
        : "What differs from the defaults, and who set it", ["key", "value", "set by"],
      shown.map((key) => [key, worded(config[key].value), config[key].origin || ""])));
    };
    const choose = P.choice("Show", [["set", "what was set"], ["all", "everything"]], which,
      (value) => { which = value; other.value = ""; show(); });
    const other = el("select", { onchange: async () => {
      if (!other.value) return show();
      try { await differing(place, name, other.value); }
      catch (error) { Curbcut.failed(place, error); }
    } }, el("option", { value: "" }, "choose a run"));
    // The list of all runs may be long: it is asked for when somebody wants it.
    const offer = el("button", { type: "button", onclick: async () => {
      try {
        const found = (await names()).filter((one) => one !== name);
        other.append(...found.map((one) => el("option", { value: one }, one)));
        offer.replaceWith(el("label", { class: "inline" }, "Difference to", other));
        other.focus();
      } catch (error) { Curbcut.say(error.message); }
    } }, "Difference to another run");
    parent.replaceChildren(el("div", { class: "tools" }, choose, !Curbcut.saved && offer), place);
    show();
  }

  const set = ({ origin }) => Boolean(origin) && !/^(default|unset)/i.test(origin);

  async function differing(place, name, other) {
    const names = new URLSearchParams([["run", name], ["run", other]]);
    const { keys } = await get(`/api/compare?${names}`);
    const rows = Object.entries(keys);
    if (!rows.length) {
      place.replaceChildren(P.empty("No value differs.", `${name} and ${other} were told the same.`));
      return;
    }
    place.replaceChildren(table(`${P.many(rows.length, "value")} differ`, ["key", name, other],
      rows.map(([key, values]) => [key, worded(values[name]), worded(values[other])])));
  }

  return { fill, worded, table };
})();

// A run's promises beside what was measured: what matters first, then every figure.
"use strict";
Curbcut.promised = (() => {
  const { el, put } = Curbcut;
  const N = Curbcut.numbers, P = Curbcut.parts;
  // What matters first: its name, and where a run that has not ended says how far it is.
  const FIRST = new Map([
    ["loss.bits_per_byte", ["Loss, bits a byte", (row) => row.bits_per_byte]],
    ["usd.total", ["Money", (row) => row.usd?.now, (row) => row.usd?.basis]],
    ["kwh.facility", ["Energy", (row) => row.kwh?.now, (row) => row.kwh?.basis]],
    ["kgco2e.total", ["Carbon", () => null]],
    ["seconds.total", ["Time", (row) => row.seconds]],
    ["tokens_per_second.steps", ["Speed", (row) => row.tokens_per_second]],
    ["mfu.run", ["MFU", (row) => row.mfu]],
    ["memory_bytes.peak", ["Peak memory", () => null]]]);
  const RATES = ["tokens_per_second.steps", "mfu.run"];

  const known = (figure) => Number.isFinite(figure?.value);
  const key = (row) => `${row.section}.${row.figure}`;

  // What stands first; a figure without a sensor's reading has the model's in its place, or what a
  // run that still goes on has come to.
  function leading(figures, run) {
    const train = new Map(figures.filter((row) => row.step === "train").map((row) =>
      [key(row), row]));
    const found = [];
    for (const [name, [label, now, basis]] of FIRST) {
      const row = train.get(name);
      if (!row || !(known(row.promised) || known(row.measured))) continue;
      const modelled = train.get(name.replace("kwh.", "kwh_modelled."));
      const value = now(run);
      if (known(row.measured)) found.push({ ...row, label });
      else if (modelled !== row && known(modelled?.measured))
        found.push(judged({ ...row, label, measured: modelled.measured, modelled: true }));
      else if (Number.isFinite(value) && run.state !== "planned")
        found.push(judged({ ...row, label, soFar: true, rate: RATES.includes(name),
          measured: { value, basis: basis?.(run) || "measured" } }));
      else found.push({ ...row, label });
    }
    return found;
  }

  function judged(row) {
    if (!known(row.promised)) return row;
    const { value, low, high } = row.promised;
    return { ...row, ratio: value ? row.measured.value / value : null,
      inside: low === null ? null : row.measured.value >= low && row.measured.value <= high };
  }

  function verdict(row) {
    if (!known(row.measured) || !known(row.promised)) return "";
    const ratio = !Number.isFinite(row.ratio) ? ""
      : row.soFar && !row.rate && row.section !== "loss"
        ? `${N.show(row.ratio, "fraction")} of the promise`
      : `${N.sig(row.ratio)} times the promise`;
    if (row.inside === null || row.inside === undefined || (row.soFar && !row.rate))
      return el("span", { class: "muted" }, ratio);
    return [el("span", { class: `badge ${row.inside ? "good" : "bad"}` },
      row.inside ? "inside" : "outside"), ratio && el("span", { class: "under" }, ratio)];
  }

  function promise(row) {
    if (!known(row.promised)) return el("span", { class: "muted" }, "no promise");
    const { value, low, high, basis, source } = row.promised;
    return [el("span", { title: source || null }, N.show(value, row.unit)),
      el("span", { class: "under" }, [N.span(low, high, row.unit), basis].filter(Boolean)
        .join(" · "))];
  }

  function measured(row) {
    if (!known(row.measured)) return el("span", { class: "muted" }, N.NONE);
    const { value, low, high, basis, source } = row.measured;
    return [el("strong", { title: source || null }, N.show(value, row.unit)),
      el("span", { class: "under" }, [N.span(low, high, row.unit), row.soFar && "so far",
        row.modelled ? "modelled: no sensor" : basis !== "measured" && basis].filter(Boolean)
        .join(" · "))];
  }

  function line(row) {
    const drawn = known(row.promised) || known(row.measured);
    return el("tr", {}, el("th", { scope: "row" }, row.label ?? key(row)),
      el("td", { class: "num" }, promise(row)), el("td", { class: "num" }, measured(row)),
      el("td", { class: "band" }, drawn && P.interval({ value: row.promised?.value ?? null,
        low: row.promised?.low ?? null, high: row.promised?.high ?? null,
        measured: row.measured?.value ?? null, unit: row.unit, soFar: row.soFar && !row.rate })),
      el("td", {}, verdict(row)));
  }

  function table(rows, caption) {
    return el("div", { class: "table-wrap", role: "region", tabindex: "0", "aria-label": caption },
      el("table", { class: "rows promised" }, el("caption", {}, caption),
        el("thead", {}, el("tr", {}, [["figure"], ["promised", "num"], ["measured", "num"],
          ["", "band"], ["verdict"]].map(([name, side]) =>
          el("th", { scope: "col", class: side },
            name || el("span", { class: "hidden-text" }, "both on one line"))))),
        el("tbody", {}, rows.map(line))));
  }

  // Fills `parent` with the figures of /api/runs/NAME and its row; what stood open stays open.
  function fill(parent, figures, run) {
    const open = parent.querySelector("details")?.open;
    const first = leading(figures, run);
    const rest = figures.filter((row) => (known(row.promised) || known(row.measured)) &&
      !(row.step === "train" && FIRST.has(key(row))));
    if (!first.length && !rest.length) {
      parent.replaceChildren(P.empty("Nothing was promised.", "A run that was planned, by ",
        el("code", {}, "curbcut plan"), " or ", el("code", {}, "curbcut go"),
        ", shows its promises here."));
      return;
    }
    const decided = figures.filter((row) => row.step === "train" &&
      typeof row.inside === "boolean");
    const inside = decided.filter((row) => row.inside).length;
    parent.replaceChildren(el("p", { class: "muted" }, decided.length
      ? `${inside} of ${P.many(decided.length, "measured figure")} lie inside what was promised. `
      : "", "The band is the promised interval, the line in it what was expected, the diamond what " +
      "was measured."));
    if (first.length) parent.append(table(first, "Of the training: what matters first"));
    if (!rest.length) return;
    const steps = [...new Set(rest.map((row) => row.step))];
    put(parent, el("details", { open }, el("summary", {}, `All other figures (${rest.length})`),
      steps.map((step) => table(rest.filter((row) => row.step === step),
        `Of the step ${step}`))));
  }

  return { fill };
})();

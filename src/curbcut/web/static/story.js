// What happened to a run, the newest first: starts, checkpoints, troubles, evaluations, its end.
"use strict";
Curbcut.story = (() => {
  const { el } = Curbcut;
  const N = Curbcut.numbers, P = Curbcut.parts;
  const FEW = 40;
  const KINDS = { trouble: "bad", launch: "warn", straggler: "warn", end: "good" };

  const WORDS = {
    start: (body) => (body.step ? `goes on from step ${N.whole(body.step)}` : "begins") +
      (body.steps ? `; ${N.whole(body.steps)} steps in all` : ""),
    checkpoint: (body) => `saved as ${body.path}`,
    evaluation: (body) => `${N.sig(body.bits_per_byte, 4)} bits a byte of held-out text`,
    trouble: (body) => `${body.what}${body.applied === false ? "; the step was left out" : ""}`,
    straggler: (body) => `the slowest rank takes ${N.sig(body.times)} times the others' time`,
    forecast: (body) => `will end at ${N.show(body.seconds, "seconds")}` +
      (body.promised_seconds ? `, promised ${N.show(body.promised_seconds, "seconds")}` : "") +
      (body.usd && body.promised_usd ? `; ${N.show(body.usd, "usd")} of ${
        N.show(body.promised_usd, "usd")}` : "") +
      (body.inside === false ? "; outside what was promised" : ""),
    note: (body) => body.text,
    end: (body) => body.reason + (body.resumable ? "; the same command goes on from here" : ""),
  };

  // What an event says in words; of a kind that is not known here, what its body says.
  function worded(event) {
    const body = event.body || {};
    const known = WORDS[event.kind];
    if (known) {
      try { return known(body); } catch { /* an older record: as it stands */ }
    }
    return Object.entries(body).filter(([key, value]) => key !== "step" && value !== null &&
      typeof value !== "object").map(([key, value]) =>
      `${key.replaceAll("_", " ")} ${typeof value === "number" ? N.sig(value, 4) : value}`)
      .join(", ");
  }

  function line(event) {
    const step = event.step ?? event.body?.step;
    return el("tr", {}, el("td", { class: "fit" }, el("time", { datetime:
      new Date(event.time * 1000).toISOString() }, N.moment(event.time))),
    el("td", { class: "fit" }, el("span", { class: `badge ${KINDS[event.kind] || ""}` }, event.kind)),
    el("td", { class: "num fit" }, step === null || step === undefined ? "" : N.whole(step)),
    el("td", { class: "break" }, worded(event)));
  }

  // story(parent): .take(events, whole) shows more of them.
  return function story(parent) {
    let events = [], kind = "all", all = false;
    const made = {};

    function fill() {
      const kinds = [...new Set(events.map((one) => one.kind))].sort();
      if (!events.length) {
        parent.replaceChildren(P.empty("Nothing has happened yet.",
          "Starts, checkpoints, troubles and evaluations are told here."));
        return;
      }
      const held = parent.contains(document.activeElement) ? document.activeElement : null;
      const shown = events.filter((one) => kind === "all" || one.kind === kind);
      const few = all ? shown : shown.slice(0, FEW);
      const body = el("tbody", {}, few.map(line));
      const old = parent.querySelector("tbody");
      if (old && fill.kinds === kinds.join() && fill.all === all && fill.kind === kind) {
        old.replaceWith(body);
        parent.querySelector("caption").textContent = caption(few, shown);
        if (held && !held.isConnected) parent.querySelector("input")?.focus();
        return;
      }
      Object.assign(fill, { kinds: kinds.join(), all, kind });
      const more = shown.length > few.length && el("button", { type: "button",
        onclick: () => { all = true; fill(); } }, `Show all ${N.whole(shown.length)}`);
      const choose = kinds.length > 1 && P.choice("Kind", [["all", "all"],
        ...kinds.map((one) => [one, one])], kind, (value) => {
        kind = value;
        fill();
        parent.querySelector("input:checked")?.focus();
      });
      parent.replaceChildren(el("div", { class: "tools" }, choose),
        el("div", { class: "table-wrap tall", role: "region", tabindex: "0",
                    "aria-label": "Events" },
        el("table", { class: "rows" }, el("caption", {}, caption(few, shown)),
          el("thead", {}, el("tr", {}, ["when", "what", "step", ""].map((name, i) =>
            el("th", { scope: "col", class: i === 2 ? "num" : null },
              name || el("span", { class: "hidden-text" }, "told"))))), body)), more || "");
    }

    const caption = (few, shown) => (few.length < shown.length
      ? `The newest ${few.length} of ${N.whole(shown.length)}` : "The newest first");

    made.take = (more, whole = false) => {
      // They come oldest first; of those of one instant the last stands above, too.
      events = [...more.toReversed(), ...(whole ? [] : events)].sort((a, b) => b.time - a.time);
      if (more.length || whole) fill();
    };
    return made;
  };
})();

// A whole, what each step takes off it, and what is left: bars from above to below.
"use strict";
Curbcut.waterfall = (() => {
  const { el, svg, put } = Curbcut;

  // waterfall({title, text(value), unit}) is a figure with .draw({start, end, steps}): steps [{name,
  // before, after, low, high, maybe, note}], in one unit; start and end {value, low, high}.
  return function waterfall({ title, file = title, text, unit }) {
    let found = null;
    const made = Curbcut.figure({ title, unit, file, columns: () =>
      ["step", `before (${unit})`, `after (${unit})`, `saves (${unit})`, "low", "high"], rows });
    const picture = svg("svg", { class: "waterfall", role: "group",
      "aria-label": `${title}: a chart of bars` });
    made.plot.append(picture);
    made.legend.remove();

    function rows() {
      if (!found) return [];
      return [["now", null, found.start.value, null, found.start.low, found.start.high],
        ...found.steps.map((one) => [one.name, one.before, one.after, one.before - one.after,
          one.low, one.high]),
        ["with all of them", null, found.end.value, null, found.end.low, found.end.high]];
    }

    function draw(given) { found = given; paint(); }

    function paint() {
      if (!found) return;
      const width = Math.max(280, made.plot.clientWidth), narrow = width < 560, tall = narrow ? 42 : 30;
      const lines = [{ name: "now", whole: found.start }, ...found.steps,
                     { name: "with all of them", whole: found.end }];
      const most = Math.max(found.start.value, ...found.steps.map((one) =>
        Math.max(one.before, one.after)), Math.min(found.start.high ?? 0, 1.6 * found.start.value));
      const left = narrow ? 4 : Math.min(230, 14 + 6.9 * Math.max(...lines.map((one) =>
        one.name.length))), right = width - (narrow ? 100 : 150);
      const at = (value) => left + Math.max(0, Math.min(1, value / most)) * (right - left);
      picture.setAttribute("viewBox", `0 0 ${width} ${lines.length * tall + 4}`);
      picture.replaceChildren();
      lines.forEach((one, i) => {
        const top = i * tall + (narrow ? 18 : 4), high = 20;
        put(picture, row(one, { at, top, high, narrow, left, tall, i }));
      });
    }

    function row(one, { at, top, high, narrow, left, tall, i }) {
      const words = one.whole
        ? `${one.name}: ${text(one.whole.value)}`
        : `${one.name}: ${saved(one)}, then ${text(one.after)}${one.maybe ? ", perhaps nothing" : ""}`;
      const label = narrow ? svg("text", { x: 4, y: top - 5 }, one.name)
        : svg("text", { x: left - 8, y: top + 15, "text-anchor": "end" }, one.name);
      const bar = one.whole
        ? [svg("rect", { class: "whole", x: at(0), y: top, width: at(one.whole.value) - at(0),
          height: high }), whisker(one.whole.low, one.whole.high, at, top + high / 2)]
        : [svg("rect", { class: one.after > one.before ? "more" : one.maybe ? "maybe" : "less",
          x: at(Math.min(one.before, one.after)), y: top,
          width: Math.max(1, Math.abs(at(one.before) - at(one.after))), height: high }),
        svg("line", { class: "joint", x1: at(one.after), x2: at(one.after), y1: top,
          y2: top + tall })];
      const end = at(one.whole ? Math.max(one.whole.value, one.whole.high ?? 0)
        : Math.max(one.before, one.after));
      return svg("g", { tabindex: 0, role: "img", "aria-label": words,
        onfocus: () => { made.readout.textContent = told(one, words); },
        onpointerenter: () => { made.readout.textContent = told(one, words); } },
        svg("title", {}, words), label, bar,
        svg("text", { x: end + 8, y: top + 15, class: one.whole ? null : "muted" },
          one.whole ? text(one.whole.value) : saved(one)));
    }

    const told = (one, words) => (one.note ? `${words}. ${one.note}` : words);

    function saved(one) {
      const less = one.before - one.after;
      const share = found.start.value ? Math.abs(100 * less / found.start.value) : 0;
      const many = share >= 1 ? share.toFixed(0) : share.toFixed(1);
      return `${less >= 0 ? "−" : "+"}${text(Math.abs(less))} (${many}%)`;
    }

    function whisker(low, high, at, y) {
      if (!Number.isFinite(low) || !Number.isFinite(high) || low === high) return null;
      return svg("line", { class: "whisker", x1: at(low), x2: at(high), y1: y, y2: y });
    }

    new ResizeObserver(() => {
      if (made.plot.clientWidth !== paint.width) { paint.width = made.plot.clientWidth; paint(); }
    }).observe(made.plot);
    return Object.assign(made, { draw });
  };
})();

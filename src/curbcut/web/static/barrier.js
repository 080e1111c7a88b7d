// Who can train what: the largest training-optimal model that a budget pays for, by year; runs that
// were published; and where the budget of this plan stands.
"use strict";
Curbcut.barrier = (() => {
  const { svg, put } = Curbcut;
  const { show, span } = Curbcut.numbers;
  const S = Curbcut.scales;
  const HEIGHT = 400;
  const TITLE = "Who can train what";

  // barrier(map) is a figure with .mark({usd, parameters, low, high} or null).
  return function barrier(map) {
    let mine = null;
    const today = map.curves.find((row) => row[0].year === map.year) || map.curves[0];
    const made = Curbcut.figure({ title: TITLE,
      unit: `the largest training-optimal model of a budget, ${Math.floor(map.year)}`, file: TITLE,
      columns: () => ["what", "year", "budget (USD)", "parameters", "low", "high"], rows });
    const picture = svg("svg", { class: "barrier", role: "group", "aria-label": `${TITLE}: a map of ` +
      "budgets against sizes of models; the same as a table below" });
    made.plot.append(picture);
    made.legend.remove();
    const words = "Line: today's prices, with the interval of time and rent. Grey: other years. " +
      "Dots: C = 120 P². Triangles: published trainings, at what hardware and energy cost them then.";
    made.readout.textContent = words;

    function rows() {
      return [...(mine ? [["this plan", Math.floor(map.year), mine.usd, mine.parameters, mine.low,
                           mine.high]] : []),
        ...map.curves.flatMap((row) => row.filter((one) => one.parameters.value !== null)
          .map((one) => [one.basis, Math.floor(one.year), one.usd, one.parameters.value,
            one.parameters.low, one.parameters.high])),
        ...map.published.map((one) => [one.name, one.year, one.usd, one.parameters, null, null])];
    }

    function paint() {
      const width = Math.max(280, made.plot.clientWidth);
      const dense = map.published.filter((one) => one.usd > 0);
      const xs = [...today.map((one) => one.usd), ...(mine ? [mine.usd] : [])];
      const ys = [...map.curves.flat().map((one) => one.parameters.value),
                  ...dense.map((one) => one.parameters), mine?.parameters];
      const [left, right] = S.roomy(S.extent([xs], true), true, 0.02);
      const [bottom, top] = S.roomy(S.extent([ys], true), true, 0.04);
      const ups = S.logTicks(bottom, top, 7);
      const box = { left: 54, right: width - 46, top: 22, bottom: HEIGHT - 44 };
      const x = S.scale(left, right, box.left, box.right, true);
      const y = S.scale(bottom, top, box.bottom, box.top, true);
      picture.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
      picture.replaceChildren();
      const along = S.logTicks(left, right, width < 560 ? 4 : 9);
      put(picture,
        ups.map((one) => [svg("line", { class: "grid", x1: box.left, x2: box.right, y1: y(one),
          y2: y(one) }), svg("text", { class: "muted", x: box.left - 6, y: y(one) + 4,
          "text-anchor": "end" }, show(one, "count"))]),
        along.map((one) => [svg("line", { class: "grid", x1: x(one), x2: x(one), y1: box.top,
          y2: box.bottom }), svg("text", { class: "muted", x: x(one), y: box.bottom + 17,
          "text-anchor": "middle" }, dollars(one))]),
        svg("text", { class: "muted", x: (box.left + box.right) / 2, y: box.bottom + 36,
          "text-anchor": "middle" }, "budget, US dollars"),
        svg("text", { class: "muted", x: 4, y: 13 }, "parameters"));
      put(picture, band(today, x, y), thumb(today, x, y),
        map.curves.filter((row) => row !== today).map((row) => year(row, x, y, box)),
        line(today, "today", x, y), published(dense, x, y, box), named(today, x, y, box));
      if (mine) put(picture, marked(x, y, box));
    }

    const known = (row) => row.filter((one) => one.parameters.value !== null);
    const path = (points) => points.map(([a, b], i) => `${i ? "L" : "M"}${a.toFixed(1)} ` +
      `${b.toFixed(1)}`).join("");

    const line = (row, kind, x, y) => svg("path", { class: kind,
      d: path(known(row).map((one) => [x(one.usd), y(one.parameters.value)])) });

    function band(row, x, y) {
      const up = known(row).map((one) => [x(one.usd), y(one.parameters.high)]);
      const down = known(row).map((one) => [x(one.usd), y(one.parameters.low)]).reverse();
      return svg("path", { class: "band", d: `${path([...up, ...down])}Z` });
    }

    function thumb(row, x, y) {
      return svg("path", { class: "thumb", d: path(row.filter((one) => one.rule_of_thumb)
        .map((one) => [x(one.usd), y(one.rule_of_thumb)])) });
    }

    function year(row, x, y, box) {
      const found = known(row);
      if (!found.length) return null;
      const later = row[0].year > map.year;
      const at = found[Math.min(1, found.length - 1)];
      const text = `${Math.floor(row[0].year)}${at.basis === "extrapolated" ? ", extrapolated" : ""}`;
      const before = later && x(at.usd) - 6.6 * text.length > box.left;
      return [line(row, "year", x, y), svg("text", { class: "muted",
        x: x(at.usd) + (later ? before ? -6 : -20 : 8),
        y: y(at.parameters.value) + (later ? before ? -8 : -22 : 16),
        "text-anchor": before ? "end" : "start" }, text)];
    }

    function named(row, x, y, box) {
      const last = known(row).at(-1);
      return svg("text", { x: Math.min(x(last.usd) + 6, box.right + 6),
        y: y(last.parameters.value) + 4 }, String(Math.floor(map.year)));
    }

    function published(runs, x, y, box) {
      const taken = [];
      return runs.map((one) => {
        const [across, up] = [x(one.usd), y(one.parameters)];
        const said = `${one.name}, ${one.year}: ${show(one.parameters, "count")} parameters, ` +
          `${dollars(one.usd)} of hardware and energy`;
        const text = one.name.replace(/ \(.*\)$/, "");
        const rect = [across + 8, up - 9, across + 8 + 6.6 * text.length, up + 5];
        const free = rect[2] < box.right + 30 && !taken.some((other) => rect[0] < other[2] &&
          other[0] < rect[2] && rect[1] < other[3] && other[1] < rect[3]);
        taken.push(free ? rect : [across - 6, up - 6, across + 6, up + 6]);
        return svg("g", { tabindex: 0, role: "img", "aria-label": said,
          onfocus: () => { made.readout.textContent = said; },
          onpointerenter: () => { made.readout.textContent = said; } },
          svg("title", {}, said),
          svg("path", { class: "run", d: `M${across} ${up - 6}l6 10h-12z` }),
          free && svg("text", { class: "muted", x: across + 8, y: up + 4 }, text));
      });
    }

    function marked(x, y, box) {
      const [across, up] = [x(mine.usd), y(mine.parameters)];
      const said = `This plan: ${dollars(mine.usd)}, ${show(mine.parameters, "count")} parameters`;
      return svg("g", { tabindex: 0, role: "img", "aria-label": said }, svg("title", {}, said),
        svg("line", { class: "mine-line", x1: across, x2: across, y1: box.bottom, y2: box.top }),
        svg("path", { class: "mine", d: star(across, up, 11) }),
        svg("text", { x: across + (across > box.right - 90 ? -12 : 12), y: box.top + 10,
          "text-anchor": across > box.right - 90 ? "end" : "start" }, "this plan"));
    }

    new ResizeObserver(() => {
      if (made.plot.clientWidth !== paint.width) { paint.width = made.plot.clientWidth; paint(); }
    }).observe(made.plot);
    return Object.assign(made, { mark: (given) => { mine = given; paint(); } });
  };

  function star(x, y, r) {
    const point = (i) => {
      const size = i % 2 ? r * 0.45 : r, turn = Math.PI * (i / 5 - 0.5);
      return `${(x + size * Math.cos(turn)).toFixed(1)} ${(y + size * Math.sin(turn)).toFixed(1)}`;
    };
    return `M${[...Array(10).keys()].map(point).join("L")}Z`;
  }

  function dollars(value) {
    for (const [factor, letter] of [[1e9, "B"], [1e6, "M"], [1e3, "k"]])
      if (value >= factor) return `$${Number((value / factor).toPrecision(3))}${letter}`;
    return `$${Number(value.toPrecision(3))}`;
  }
})();

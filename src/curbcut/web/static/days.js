// Amounts a day, one bar a day, its parts stacked by name.
"use strict";
Curbcut.days = (() => {
  const { el, svg, put } = Curbcut;
  const S = Curbcut.scales;
  const HEIGHT = 220, MOST = 8, DAY = 86400;

  // days({title, unit, text(value)}) is a figure with .draw(parts, from, to): parts [{name, start,
  // value}], start in seconds since 1970; a day without a part is empty.
  return function days({ title, unit, text, file = title }) {
    let parts = [], from = 0, to = 0, names = [];
    const made = Curbcut.figure({ title, file, rows,
      columns: () => ["day", "of", `${title} (${unit === "count" ? "tokens" : unit})`] });
    const picture = svg("svg", { class: "days", role: "group",
      "aria-label": `${title}: a chart of bars; the same as a table below` });
    made.plot.append(picture);

    const date = (start) => new Date(start * 1000).toISOString().slice(0, 10);
    function rows() {
      return parts.filter((one) => one.value !== null)
        .map((one) => [date(one.start), one.name, one.value]);
    }

    function draw(given, first, last) {
      [parts, from, to] = [given, first, last];
      const sums = new Map();
      for (const one of parts) sums.set(one.name, (sums.get(one.name) || 0) + (one.value || 0));
      names = [...sums].sort((a, b) => b[1] - a[1]).map(([name]) => name);
      paint();
    }

    // The eighth colour is of all that are left.
    const place = (name) => Math.min(names.indexOf(name), MOST - 1);

    function paint() {
      const width = Math.max(280, made.plot.clientWidth);
      picture.replaceChildren();
      made.plot.querySelector(".empty")?.remove();
      const sums = new Map();
      for (const one of parts)
        if (one.value > 0) sums.set(one.start, (sums.get(one.start) || 0) + one.value);
      picture.toggleAttribute("hidden", !sums.size);
      made.legend.replaceChildren();
      if (!sums.size)
        return void made.plot.append(el("p", { class: "empty" }, "Nothing of this in these days."));
      const most = Math.max(...sums.values());
      const ticks = S.ticks(0, most, 4), labels = S.labelled(ticks, unit);
      const box = { left: 16 + 7 * Math.max(...labels.texts.map((one) => one.length)),
                    right: width - 8, top: 20, bottom: HEIGHT - 26 };
      const x = S.scale(from, to, box.left, box.right), y = S.scale(0, most, box.bottom, box.top);
      const wide = Math.max(2, (x(from + DAY) - x(from)) * 0.8);
      picture.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
      put(picture, svg("text", { x: 4, y: 13 }, labels.unit), ticks.map((one, i) => [
        svg("line", { class: "grid", x1: box.left, x2: box.right, y1: y(one), y2: y(one) }),
        svg("text", { x: box.left - 6, y: y(one) + 4, "text-anchor": "end" }, labels.texts[i])]));
      const every = Math.ceil((to - from) / DAY / Math.max(2, width / 110));
      for (let start = from, i = 0; start < to; start += DAY, i += 1)
        if (i % every === 0) put(picture, svg("text", { x: x(start) + wide / 2, y: HEIGHT - 8,
          "text-anchor": "middle" }, date(start).slice(5)));
      bars(x, y, wide);
      const shown = names.slice(0, MOST - 1);
      if (names.length > shown.length) shown.push(names.length === MOST ? names[MOST - 1]
        : `${names.length - shown.length} more`);
      put(made.legend, shown.map((name, i) => {
        const mark = el("span", { class: "mark", "aria-hidden": "true" });
        mark.style.background = `var(--series-${i + 1})`;
        return el("li", { class: "chip" }, mark, el("span", { class: "name" }, name));
      }));
    }

    function bars(x, y, wide) {
      const stacked = new Map();
      const ordered = [...parts].sort((a, b) => place(a.name) - place(b.name));
      for (const one of ordered) {
        if (!(one.value > 0)) continue;
        const below = stacked.get(one.start) || 0;
        stacked.set(one.start, below + one.value);
        const said = `${date(one.start)}, ${one.name}: ${text(one.value)}`;
        const part = svg("rect", { class: "part", x: x(one.start), width: wide,
          y: y(below + one.value), height: Math.max(0.5, y(below) - y(below + one.value)),
          fill: `var(--series-${place(one.name) + 1})`, role: "img", "aria-label": said,
          onpointerenter: () => { made.readout.textContent = said; } }, svg("title", {}, said));
        picture.append(part);
      }
    }

    new ResizeObserver(() => {
      if (made.plot.clientWidth !== paint.width) {
        paint.width = made.plot.clientWidth;
        if (parts.length) paint();
      }
    }).observe(made.plot);
    return Object.assign(made, { draw });
  };
})();

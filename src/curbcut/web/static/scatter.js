// Points of two figures against each other: a mark each, its interval, its name where there is room.
"use strict";
Curbcut.scatter = (() => {
  const { el, svg, put } = Curbcut;
  const { show, span } = Curbcut.numbers;
  const S = Curbcut.scales;
  const SHAPES = ["circle", "square", "diamond", "triangle"];

  // scatter({title, x: {title, unit, log}, y: {title, unit, log}, file, height}) is a figure with
  //   .draw(points, front): points [{name, x, y, low, high, xlow, xhigh, colour, shape, href, note,
  //   strong}], front: names of points to join by a line, in order. Points without both are listed
  //   below, not drawn.
  return function scatter({ title, x, y, file = title, height = 320 }) {
    let points = [], front = [];
    const made = Curbcut.figure({ title, unit: "", file, columns, rows });
    const picture = svg("svg", { role: "group", "aria-label": `${title}: a chart of points` });
    made.plot.append(picture);
    made.plot.style.minHeight = `${height}px`;
    made.legend.remove();

    const named = (axis) => (axis.unit ? `${axis.title} (${axis.unit})` : axis.title);
    function columns() {
      return ["name", named(x), `${x.title} low`, `${x.title} high`, named(y), `${y.title} low`,
              `${y.title} high`];
    }

    function rows() {
      return points.map((one) => [one.name, one.x, one.xlow, one.xhigh, one.y, one.low, one.high]
        .map((value) => value ?? null));
    }

    function draw(given, joined = []) {
      points = given;
      front = joined;
      paint();
    }

    function paint() {
      const width = Math.max(260, made.plot.clientWidth);
      const ok = points.filter((one) => Number.isFinite(one.x) && Number.isFinite(one.y) &&
        (!x.log || one.x > 0) && (!y.log || one.y > 0));
      const missing = points.length - ok.length;
      made.readout.textContent = !ok.length ? "" : missing
        ? `${missing} without both figures: in the table only.` : "";
      picture.replaceChildren();
      made.plot.querySelector(".empty")?.remove();
      picture.toggleAttribute("hidden", !ok.length);
      if (!ok.length)
        return void made.plot.append(el("p", { class: "empty" }, "No run has both figures yet."));
      picture.setAttribute("viewBox", `0 0 ${width} ${height}`);
      const box = placed(ok, width);
      axes(box);
      const byName = new Map(ok.map((one) => [one.name, one]));
      const line = front.map((name) => byName.get(name)).filter(Boolean);
      if (line.length > 1)
        put(picture, svg("polyline", { fill: "none", stroke: "var(--edge)", "stroke-width": 1.5,
          "stroke-dasharray": "5 4",
          points: line.map((one) => `${box.x(one.x)},${box.y(one.y)}`).join(" ") }));
      const taken = [];
      for (const one of ok) mark(one, box, taken);
    }

    function placed(ok, width) {
      const ends = (keys, log) => S.roomy(S.extent([ok.flatMap((one) =>
        keys.map((key) => one[key]))], log), log, 0.08);
      const [left, right] = ends(["x", "xlow", "xhigh"], x.log);
      const [bottom, top] = ends(["y", "low", "high"], y.log);
      const ticks = (y.log ? S.logTicks : S.ticks)(bottom, top, height / 55);
      const ups = S.labelled(ticks, y.unit);
      const longest = Math.max(...ups.texts.map((text) => text.length));
      const box = { left: 14 + 7.2 * longest, right: width - 16, top: 24, bottom: height - 44, ups,
                    ticks };
      box.x = S.scale(left, right, box.left, box.right, x.log);
      box.y = S.scale(bottom, top, box.bottom, box.top, y.log);
      box.along = (x.log ? S.logTicks : S.ticks)(left, right, (box.right - box.left) / 100);
      return box;
    }

    function axes(box) {
      const across = S.labelled(box.along, x.unit);
      put(picture, box.ticks.map((one, i) => [
        svg("line", { x1: box.left, x2: box.right, y1: box.y(one), y2: box.y(one),
          stroke: "var(--line)" }),
        svg("text", { class: "muted", x: box.left - 6, y: box.y(one) + 4, "text-anchor": "end" },
          box.ups.texts[i])]),
      box.along.map((one, i) => svg("text", { class: "muted", x: box.x(one), y: box.bottom + 17,
        "text-anchor": "middle" }, across.texts[i])),
      svg("text", { class: "muted", x: (box.left + box.right) / 2, y: box.bottom + 36,
        "text-anchor": "middle" }, said(x, across.unit)),
      svg("text", { class: "muted", x: 4, y: 13 }, said(y, box.ups.unit)));
    }

    const said = (axis, unit) => (unit && unit !== axis.title ? `${axis.title}, ${unit}`
      : axis.title);

    function mark(one, box, taken) {
      const [across, up] = [box.x(one.x), box.y(one.y)];
      const colour = one.colour ? `var(${one.colour})` : "var(--accent)";
      const words = `${one.name}: ${x.title} ${reading(one.x, one.xlow, one.xhigh, x.unit)}, ` +
        `${y.title} ${reading(one.y, one.low, one.high, y.unit)}${one.note ? `, ${one.note}` : ""}`;
      const whisker = (x1, x2, y1, y2) => svg("line", { x1, x2, y1, y2, stroke: colour,
        "stroke-width": 1.5, opacity: 0.6 });
      const inside = [
        Number.isFinite(one.low) && Number.isFinite(one.high) && (!y.log || one.low > 0) &&
          whisker(across, across, box.y(one.low), box.y(one.high)),
        Number.isFinite(one.xlow) && Number.isFinite(one.xhigh) && (!x.log || one.xlow > 0) &&
          whisker(box.x(one.xlow), box.x(one.xhigh), up, up),
        shape(one.shape, across, up, colour, one.strong ? 7 : 5), svg("title", {}, words),
        name(one, across, up, box, taken)];
      const point = one.href
        ? svg("a", { href: one.href, "aria-label": words }, inside)
        : svg("g", { tabindex: 0, role: "img", "aria-label": words }, inside);
      for (const event of ["pointerenter", "focus"])
        point.addEventListener(event, () => { made.readout.textContent = words; });
      put(picture, point);
    }

    // A name stands beside its mark where it covers no other name, above the line of its interval.
    function name(one, across, up, box, taken) {
      const text = one.name.length > 26 ? `${one.name.slice(0, 25)}…` : one.name;
      const wide = 6.6 * text.length;
      const beside = Number.isFinite(one.xlow) && Number.isFinite(one.xhigh) ? -5 : 4;
      for (const [dx, dy, anchor] of [[9, beside, "start"], [-9, beside, "end"], [0, -10, "middle"],
                                      [0, 20, "middle"]]) {
        const from = across + dx - (anchor === "end" ? wide : anchor === "middle" ? wide / 2 : 0);
        const rect = [from, up + dy - 11, from + wide, up + dy + 3];
        const free = rect[0] > box.left && rect[2] < box.right + 14 &&
          !taken.some((other) => rect[0] < other[2] && other[0] < rect[2] && rect[1] < other[3] &&
            other[1] < rect[3]);
        if (!free) continue;
        taken.push(rect);
        return svg("text", { x: across + dx, y: up + dy, "text-anchor": anchor, stroke: "var(--panel)",
          "stroke-width": 3, "paint-order": "stroke" }, text);
      }
      return null;
    }

    new ResizeObserver(() => { if (made.plot.clientWidth !== paint.width) {
      paint.width = made.plot.clientWidth;
      if (points.length) paint();
    } }).observe(made.plot);
    return Object.assign(made, { draw });
  };

  function shape(kind, x, y, fill, r) {
    const given = { fill, stroke: "var(--panel)", "stroke-width": 1 };
    if (kind === SHAPES[1])
      return svg("rect", { x: x - r, y: y - r, width: 2 * r, height: 2 * r, ...given });
    if (kind === SHAPES[2])
      return svg("path", { d: `M${x} ${y - r - 2}l${r + 2} ${r + 2}l${-r - 2} ${r + 2}l${-r - 2} ` +
        `${-r - 2}z`, ...given });
    if (kind === SHAPES[3])
      return svg("path", { d: `M${x} ${y - r - 2}l${r + 2} ${2 * r + 2}h${-2 * r - 4}z`, ...given });
    return svg("circle", { cx: x, cy: y, r, ...given });
  }

  function reading(value, low, high, unit) {
    const around = span(low, high, unit);
    return around ? `${show(value, unit)} (${around})` : show(value, unit);
  }
})();

// Lines over steps, tokens, hours, money or energy, drawn on a canvas: each line has its own x.
// Arrow keys read the points, a drag or + and - zoom, Escape shows all; legends hide lines.
"use strict";
Curbcut.charts = (() => {
  const { el, colour } = Curbcut;
  const { show, sig } = Curbcut.numbers;
  const S = Curbcut.scales;
  const COLOURS = 10;
  const DASHES = [[], [7, 4], [2, 3], [9, 3, 2, 3]];
  const { paint, FONT } = Curbcut.plot;
  const drawn = new Set();

  // What charts of runs may run along; /api/series takes the keys.
  const AXES = { step: { title: "step", unit: "count" }, tokens: { title: "tokens", unit: "count" },
    hours: { title: "time", unit: "hours" }, usd: { title: "money", unit: "usd" },
    kwh: { title: "energy", unit: "kwh" } };

  // The controls above charts of runs: the axis, and how much lines are smoothed.
  function along(axis, onaxis, onsmooth) {
    const words = { hours: "hours", kwh: "kWh" };
    return [Curbcut.parts.choice("Along", Object.entries(AXES).map(([key, { title }]) =>
      [key, words[key] ?? title]), axis, onaxis),
    Curbcut.parts.slider({ label: "Smoothing", min: 0, max: 0.98, step: 0.02, value: 0,
      text: (value) => (value ? sig(value, 2) : "none"), oninput: onsmooth })];
  }

  // The sign of a line in a legend: its colour, dashed as the line is.
  function mark(index) {
    const made = el("span", { class: "mark", "aria-hidden": "true" });
    const ink = `var(${colourOf(index)})`, dash = dashOf(index);
    made.style.background = dash.length
      ? `repeating-linear-gradient(90deg, ${ink} 0 ${dash[0] / 2 + 1}px, transparent 0 ` +
        `${dash[0] / 2 + 3}px)` : ink;
    return made;
  }

  const colourOf = (index) => `--series-${index % COLOURS + 1}`;
  const dashOf = (index) => DASHES[Math.floor(index / COLOURS) % DASHES.length];

  // Charts of one group read out the same x together.
  function group() { return { charts: new Set() }; }

  // line({title, unit, x: {title, unit}, file, group, height}) is a figure with
  //   .draw(series, x, range): [{name, x: [], y: [], band: {value, low, high, at_end}|null}], new
  //   data; `range` [from, to] of the axis where charts beside each other share it
  //   .set({log, smooth}): how it looks. Points without a value (null) are gaps.
  function line({ title, unit = "", x = { title: "step", unit: "count" }, file = title,
                  group: together = group(), height = 230 }) {
    const state = { series: [], hidden: new Set(), log: false, smooth: 0, zoom: null, at: null, x,
                    unit, box: null, strong: null,
                    drag: null };
    const canvas = el("canvas", { "aria-hidden": "true" }), over = el("canvas", { "aria-hidden": "true" });
    const made = Curbcut.figure({ title, file, columns: () => [named(), state.x.title, worded()],
      rows, paint: (context, width, tall, name) => picture(context, width, tall, name) });
    const named = () => "line";
    const worded = () => (unit ? `${title} (${unit})` : title);
    const log = made.act("log", `${title}: logarithmic scale`, () => set({ log: !state.log }));
    made.acts.prepend(log);
    log.setAttribute("aria-pressed", "false");
    Object.assign(over.style, { position: "absolute", inset: "0" });
    made.plot.append(canvas, over);
    made.plot.style.height = `${height}px`;
    for (const [name, value] of Object.entries({ tabindex: "0", role: "slider",
      "aria-label": `${title}: a chart; arrow keys read its points`, "aria-valuemin": "0",
      "aria-valuemax": "0", "aria-valuenow": "0", "aria-valuetext": "no points yet" }))
      made.plot.setAttribute(name, value);

    const visible = () => state.series.filter(({ name }) => !state.hidden.has(name));

    function set(changes) {
      Object.assign(state, changes);
      log.setAttribute("aria-pressed", String(state.log));
      soon();
    }

    function draw(series, along = state.x, whole = null) {
      if (along.title !== state.x.title) Object.assign(state, { zoom: null, at: null });
      Object.assign(state, { x: along, whole });
      state.series = series.map((one, i) => {
        const place = one.index ?? i;
        return { place, colour: colourOf(place), dash: dashOf(place), ...one };
      });
      legend();
      soon();
    }

    function legend() {
      const names = state.series.map(({ name }) => name).join("\n");
      if (legend.names === names) return;
      legend.names = names;
      made.legend.hidden = state.series.length < 2;
      made.legend.replaceChildren(...(state.series.length < 2 ? [] : state.series.map((one) => {
        const button = el("button", { class: "chip", type: "button", "aria-pressed": "true",
          title: one.name, onclick: () => {
            if (state.hidden.delete(one.name)) button.setAttribute("aria-pressed", "true");
            else { state.hidden.add(one.name); button.setAttribute("aria-pressed", "false"); }
            soon();
          },
          onpointerenter: () => { state.strong = one.name; soon(); },
          onpointerleave: () => { state.strong = null; soon(); } },
        mark(one.place), el("span", { class: "name" }, one.name));
        return el("li", {}, button);
      })));
    }

    // All is drawn once a frame, and only what somebody can see.
    let waiting = false, seen = false, stale = true;
    function soon() {
      stale = true;
      if (waiting || !seen) return;
      waiting = true;
      requestAnimationFrame(() => { waiting = false; if (seen) paintAll(); });
    }

    function paintAll() {
      stale = false;
      const width = made.plot.clientWidth, tall = made.plot.clientHeight;
      if (!width) return;
      for (const one of [canvas, over]) {
        const dots = devicePixelRatio || 1;
        if (one.width !== Math.round(width * dots) || one.height !== Math.round(tall * dots)) {
          one.width = Math.round(width * dots);
          one.height = Math.round(tall * dots);
          Object.assign(one.style, { width: `${width}px`, height: `${tall}px` });
        }
        one.getContext("2d").setTransform(dots, 0, 0, dots, 0, 0);
      }
      const context = canvas.getContext("2d");
      context.clearRect(0, 0, width, tall);
      state.box = paint(context, width, tall, state);
      made.captioned(state.box ? state.box.unit : "");
      read();
    }

    function picture(context, width, tall, name) {
      context.font = "600 15px system-ui, sans-serif";
      context.fillStyle = colour("--ink");
      context.fillText(name + (state.box?.unit ? `, ${state.box.unit}` : ""), 12, 24);
      context.font = FONT;
      let across = 12;
      if (visible().length > 1)
        for (const one of visible().slice(0, 12)) {
          context.fillStyle = colour(one.colour);
          context.fillRect(across, 38, 14, 4);
          context.fillStyle = colour("--ink");
          context.fillText(one.name, across + 19, 44);
          across += 34 + context.measureText(one.name).width;
        }
      context.translate(0, 54);
      paint(context, width, tall - 60, state);
    }

    // Below the chart: the points at the cursor, or where the lines stand now.
    function read() {
      const context = over.getContext("2d");
      context.clearRect(0, 0, over.clientWidth, over.clientHeight);
      const box = state.box, lines = visible().filter((one) => one.x.length);
      made.plot.setAttribute("aria-valuemax", String(Math.max(0, (lines[0]?.x.length ?? 1) - 1)));
      if (!box || !lines.length) {
        made.readout.textContent = "Nothing recorded.";
        made.plot.setAttribute("aria-valuetext", "nothing recorded");
        return;
      }
      if (state.drag) {
        context.fillStyle = colour("--accent");
        context.globalAlpha = 0.15;
        const [a, b] = state.drag.map((one) => box.x(one));
        context.fillRect(Math.min(a, b), box.top, Math.abs(b - a), box.bottom - box.top);
        context.globalAlpha = 1;
      }
      const at = state.at;
      made.readout.textContent = at === null ? summary(lines) : pointed(lines, at, box, context);
      made.plot.setAttribute("aria-valuenow",
        String(at === null ? lines[0].x.length - 1 : S.nearest(lines[0].x, at)));
      made.plot.setAttribute("aria-valuetext", made.readout.textContent);
    }

    function pointed(lines, at, box, context) {
      const place = box.x(at);
      context.strokeStyle = colour("--edge");
      context.beginPath();
      context.moveTo(place, box.top);
      context.lineTo(place, box.bottom);
      context.stroke();
      const found = lines.map((one) => ({ one, i: S.nearest(one.x, at) }))
        .filter(({ one, i }) => Number.isFinite(one.y[i]));
      for (const { one, i } of found) {
        if (state.log && one.y[i] <= 0) continue;
        context.fillStyle = colour(one.colour);
        context.beginPath();
        context.arc(box.x(one.x[i]), box.y(one.y[i]), 3.5, 0, 7);
        context.fill();
      }
      if (!found.length) return `${state.x.title} ${show(at, state.x.unit)}: nothing recorded`;
      const first = `${state.x.title} ${exact(found[0].one.x[found[0].i], state.x.unit)}: `;
      const words = found.slice(0, 6).map(({ one, i }) =>
        (state.series.length > 1 ? `${one.name} ` : "") + fine(one.y[i], unit));
      if (found.length > 6) words.push(`and ${found.length - 6} more`);
      return first + words.join(" · ");
    }

    function summary(lines) {
      if (lines.length > 1) return `${lines.length} lines`;
      const one = lines[0], range = S.extent([one.y]);
      if (!range) return "Not measured.";
      let last = one.y.length - 1;
      while (!Number.isFinite(one.y[last])) last--;
      const broken = last < one.y.length - 1 ? `no number since ${state.x.title} ` +
        `${exact(one.x[last + 1], state.x.unit)} · ` : "";
      const promise = one.band && Number.isFinite(one.band.value)
        ? ` · promised ${one.band.at_end ? "at the end " : ""}` +
          bare(one.band.value) + around(one.band) : "";
      return `${broken}last ${fine(one.y[last], unit)} at ${state.x.title} ` +
        `${exact(one.x[last], state.x.unit)} · lowest ${bare(range[0])} · highest ` +
        `${bare(range[1])}${promise}`;
    }

    // After the first figure its unit goes without saying, unless it changes with the size.
    const bare = (value) => (Curbcut.numbers.scales(unit) ? show(value, unit) : sig(value, 4));
    const around = ({ low, high }) => {
      const between = Curbcut.numbers.span(low, high, Curbcut.numbers.scales(unit) ? unit : "");
      return between && ` (${between})`;
    };

    function rows(all = false) {
      const lines = visible(), each = Math.max(10, Math.floor(200 / Math.max(1, lines.length)));
      return lines.flatMap((one) => {
        const kept = all ? one : S.thinned(one.x, one.y, each);
        return kept.x.map((value, i) => [one.name, value,
          Number.isFinite(kept.y[i]) ? kept.y[i] : null]);
      });
    }

    function pointAt(value) {
      state.at = value;
      for (const other of together.charts) if (other !== made) other.follow(value);
      read();
    }

    made.follow = (value) => { state.at = value; if (seen && !stale) read(); };
    const valueAt = (event) => {
      const box = state.box, place = event.clientX - over.getBoundingClientRect().left;
      return box.x.back(Math.min(box.right, Math.max(box.left, place)));
    };
    over.addEventListener("pointermove", (event) => {
      if (!state.box) return;
      if (state.drag) state.drag[1] = valueAt(event);
      pointAt(valueAt(event));
    });
    over.addEventListener("pointerdown", (event) => {
      if (!state.box || event.button || event.pointerType === "touch") return;
      state.drag = [valueAt(event), valueAt(event)];
      over.setPointerCapture(event.pointerId);
    });
    over.addEventListener("pointerup", () => {
      if (!state.drag) return;
      const [a, b] = state.drag.map((one) => state.box.x(one));
      if (Math.abs(a - b) > 6) state.zoom = state.drag.toSorted((one, other) => one - other);
      state.drag = null;
      soon();
    });
    over.addEventListener("pointerleave", () => { if (!state.drag) pointAt(null); });
    over.addEventListener("dblclick", () => set({ zoom: null }));
    made.plot.addEventListener("keydown", (event) => keyed(event));

    function keyed(event) {
      const first = visible().find((one) => one.x.length);
      if (!first || !state.box || event.ctrlKey || event.altKey || event.metaKey) return;
      const last = first.x.length - 1;
      const i = state.at === null ? last : S.nearest(first.x, state.at);
      const step = event.shiftKey ? 10 : 1;
      const to = { ArrowLeft: i - step, ArrowRight: i + step, ArrowDown: i - step,
                   ArrowUp: i + step, PageDown: i - 50, PageUp: i + 50, Home: 0,
                   End: last }[event.key];
      if (to !== undefined) pointAt(first.x[Math.min(last, Math.max(0, to))]);
      else if (event.key === "+" || event.key === "=") zoomed(0.5);
      else if (event.key === "-") zoomed(2);
      else if (event.key === "Escape" || event.key === "0") {
        if (document.fullscreenElement) return;
        set({ zoom: null });
        pointAt(null);
      } else return;
      event.preventDefault();
    }

    function zoomed(factor) {
      const [low, high] = state.box.range;
      const middle = state.at ?? (low + high) / 2, half = (high - low) * factor / 2;
      set({ zoom: [middle - half, middle + half] });
    }

    new ResizeObserver(() => { if (seen) soon(); else stale = true; }).observe(made.plot);
    new IntersectionObserver(([entry]) => {
      seen = entry.isIntersecting;
      if (seen && stale) soon();
    }, { rootMargin: "200px" }).observe(made.plot);
    addEventListener("beforeprint", paintAll);
    drawn.add(soon);
    together.charts.add(made);
    return Object.assign(made, { draw, set, state });
  }

  const fine = (value, unit) => (Curbcut.numbers.scales(unit) ? show(value, unit)
    : `${sig(value, 4)} ${unit === "tokens/s" ? "tok/s" : unit}`.trimEnd());
  const exact = (value, unit) => (unit === "count" && Number.isInteger(value)
    ? Curbcut.numbers.whole(value) : show(value, unit));

  Curbcut.onTheme(() => { for (const soon of drawn) soon(); });
  return { line, group, along, mark, AXES, colourOf };
})();

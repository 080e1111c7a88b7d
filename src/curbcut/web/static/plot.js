// How lines are painted on a canvas: axes, what was promised, the lines themselves.
"use strict";
Curbcut.plot = (() => {
  const { colour } = Curbcut;
  const S = Curbcut.scales;
  const FONT = "12px system-ui, sans-serif";

  // Draws all lines; returns the box {x, y, left, right, top, bottom, range, unit}, null if empty.
  function paint(context, width, tall, state) {
    const lines = state.series.filter(({ name }) => !state.hidden.has(name));
    const range = state.zoom || state.whole || S.extent(lines.map((one) => one.x));
    if (!range) return null;
    const [from, to] = range[0] === range[1] ? S.roomy(range) : range;
    const shown = lines.map((one) => within(one, from, to, state.smooth));
    let high = S.extent(shown.map(({ y }) => y), state.log);
    if (!high) return null;
    high = withBands(high, lines, state.log);
    const [bottom, top] = S.roomy(high, state.log);
    context.font = FONT;
    const box = { top: 8, bottom: tall - 36, right: width - 18, range: [from, to] };
    const places = (state.log ? S.logTicks : S.ticks)(bottom, top, Math.max(2, tall / 45));
    const left = S.labelled(places.length ? places : [bottom], state.unit);
    box.left = 12 + Math.max(...left.texts.map((text) => context.measureText(text).width));
    box.unit = left.unit;
    box.x = S.scale(from, to, box.left, box.right);
    box.y = S.scale(bottom, top, box.bottom, box.top, state.log);
    axes(context, box, places, left.texts, state.x);
    context.save();
    context.beginPath();
    context.rect(box.left, box.top, box.right - box.left, box.bottom - box.top);
    context.clip();
    for (const one of lines) if (one.band && lines.length < 4) band(context, box, one, state.log);
    for (const one of shown) stroke(context, box, one, state, shown.length);
    for (const one of shown) crosses(context, box, one);
    context.restore();
    return box;
  }

  // The part of a line between two x, and a point on either side of it.
  function within(one, from, to, smooth) {
    let first = 0, last = one.x.length;
    while (first < last && one.x[first] < from) first++;
    while (last > first && one.x[last - 1] > to) last--;
    first = Math.max(0, first - 1);
    last = Math.min(one.x.length, last + 1);
    return { ...one, x: one.x.slice(first, last), y: one.y.slice(first, last),
      mean: smooth ? S.smoothed(one.y, smooth).slice(first, last) : null };
  }

  // A promise that lies near what was measured widens the chart; a far one does not flatten it.
  function withBands([low, high], lines, log) {
    const room = Math.max(high - low, Math.abs(high) * 0.25);
    for (const { band } of lines) {
      if (!band || lines.length > 3) continue;
      for (const end of [band.low, band.value, band.high]) {
        if (!Number.isFinite(end) || (log && end <= 0)) continue;
        if (end < low && (log ? end > low / 10 : low - end < 2 * room)) low = end;
        if (end > high && (log ? end < high * 10 : end - high < 2 * room)) high = end;
      }
    }
    return [low, high];
  }

  function axes(context, box, places, texts, x) {
    context.strokeStyle = colour("--line");
    context.fillStyle = colour("--muted");
    context.lineWidth = 1;
    context.textBaseline = "middle";
    context.textAlign = "right";
    places.forEach((one, i) => {
      const y = Math.round(box.y(one)) + 0.5;
      context.beginPath();
      context.moveTo(box.left, y);
      context.lineTo(box.right, y);
      context.stroke();
      context.fillText(texts[i], box.left - 6, y);
    });
    const along = S.ticks(...box.range, Math.max(2, (box.right - box.left) / 90));
    const { texts: words, unit } = S.labelled(along, x.unit);
    context.textBaseline = "top";
    along.forEach((one, i) => {
      const place = box.x(one), half = context.measureText(words[i]).width / 2;
      context.textAlign = place + half > box.right + 18 ? "right"
        : place - half < 2 ? "left" : "center";
      context.fillText(words[i], place, box.bottom + 5);
    });
    context.textAlign = "center";
    context.fillText(unit && unit !== x.title ? `${x.title}, ${unit}` : x.title,
      (box.left + box.right) / 2, box.bottom + 21);
  }

  function band(context, box, { band: promised, colour: name }, log) {
    const ok = (value) => Number.isFinite(value) && (!log || value > 0);
    context.fillStyle = context.strokeStyle = colour(name);
    // What is promised of the end stands at the end.
    const from = promised.at_end ? box.right - 14 : box.left;
    if (ok(promised.low) && ok(promised.high)) {
      context.globalAlpha = promised.at_end ? 0.3 : 0.13;
      context.fillRect(from, box.y(promised.high), box.right - from,
        Math.max(1, box.y(promised.low) - box.y(promised.high)));
      context.globalAlpha = 1;
    }
    if (!ok(promised.value)) return;
    context.setLineDash([4, 4]);
    context.beginPath();
    context.lineWidth = 1;
    context.moveTo(promised.at_end ? from - 6 : from, box.y(promised.value));
    context.lineTo(box.right, box.y(promised.value));
    context.stroke();
    context.setLineDash([]);
  }

  function stroke(context, box, one, state, many) {
    const faded = state.strong && state.strong !== one.name;
    context.strokeStyle = context.fillStyle = colour(one.colour);
    context.setLineDash(one.dash || []);
    context.lineJoin = "round";
    context.globalAlpha = faded ? 0.15 : one.mean ? 0.3 : 1;
    context.lineWidth = many > 20 ? 1 : 1.5;
    path(context, box, one.x, one.y, state.log);
    if (one.mean) {
      context.globalAlpha = faded ? 0.2 : 1;
      context.lineWidth = 2;
      path(context, box, one.x, one.mean, state.log);
    }
    context.globalAlpha = 1;
    context.setLineDash([]);
  }

  // Where a run recorded what is no number, a cross stands at the top.
  function crosses(context, box, { x, y }) {
    context.strokeStyle = colour("--bad");
    context.lineWidth = 1.5;
    context.beginPath();
    let before = -Infinity;
    for (let i = 0; i < x.length; i++) {
      const across = Math.min(box.right - 4, Math.max(box.left + 4, box.x(x[i])));
      if (y[i] !== null || across - before < 8) continue;
      before = across;
      context.moveTo(across - 3, box.top + 2);
      context.lineTo(across + 3, box.top + 8);
      context.moveTo(across + 3, box.top + 2);
      context.lineTo(across - 3, box.top + 8);
    }
    context.stroke();
  }

  function path(context, box, x, y, log) {
    let open = false, alone = false;
    context.beginPath();
    for (let i = 0; i < x.length; i++) {
      if (!Number.isFinite(y[i]) || (log && y[i] <= 0)) { open = false; continue; }
      const [across, down] = [box.x(x[i]), box.y(y[i])];
      alone = !open && !(i + 1 < x.length && Number.isFinite(y[i + 1]));
      if (alone) context.fillRect(across - 2, down - 2, 4, 4);
      else if (open) context.lineTo(across, down);
      else context.moveTo(across, down);
      open = true;
    }
    context.stroke();
  }

  return { paint, FONT };
})();

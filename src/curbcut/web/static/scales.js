// The arithmetic of charts: round figures for axes, places of values, smoothing, thinning.
"use strict";
Curbcut.scales = (() => {
  const { sig, factors } = Curbcut.numbers;

  // Round figures from `low` to `high`, about `many` of them.
  function ticks(low, high, many = 5) {
    const rough = (high - low) / Math.max(1, many);
    if (!(rough > 0) || !Number.isFinite(rough)) return [low];
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((one) => one >= 0.75 * rough);
    const found = [];
    for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++)
      found.push(Number((i * step).toPrecision(12)));
    return found;
  }

  // Powers of ten, with 2 and 5 between them where there are few.
  function logTicks(low, high, many = 5) {
    const decades = Math.log10(high / low);
    if (decades < 0.7) return ticks(low, high, many).filter((one) => one > 0);
    const every = Math.max(1, Math.ceil(decades / many));
    const parts = decades <= many / 3 ? [1, 2, 5] : decades <= many / 2 ? [1, 3] : [1];
    const found = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high) + 1e-9; power += 1)
      if (power % every === 0)
        for (const part of parts) {
          const one = part * 10 ** power;
          if (one >= low * (1 - 1e-9) && one <= high * (1 + 1e-9)) found.push(one);
        }
    return found;
  }

  // What stands at each tick, all in one unit: {texts, unit}.
  function labelled(places, unit) {
    const [factor, name, before] = factors(unit, Math.max(...places.map(Math.abs)));
    const values = places.map((one) => one / factor);
    const apart = Math.min(...values.slice(1).map((one, i) => Math.abs(one - values[i])));
    const texts = values.map((value) => {
      const size = Math.abs(value);
      if (value !== 0 && (size >= 1e6 || size < 1e-4)) return before + sig(value, 2);
      // Enough digits to tell it from its neighbours, of a logarithmic axis too.
      const least = Math.min(apart, size || apart);
      const digits = Number.isFinite(least) && least > 0
        ? Math.max(0, 1 - Math.floor(Math.log10(least) + 1e-9)) : 2;
      return before + value.toLocaleString("en", { maximumFractionDigits: Math.min(12, digits) });
    });
    // "20k" steps, but "20" of an axis in kWh.
    if (unit === "count") return { texts: texts.map((text) => text + name), unit: "" };
    return { texts, unit: name };
  }

  // A value's place between `from` and `to`; `.back` is the value at a place.
  function scale(low, high, from, to, log = false) {
    const put = log ? Math.log10 : (one) => one;
    const take = log ? (one) => 10 ** one : (one) => one;
    const [a, b] = [put(low), put(high)];
    const width = b - a || 1;
    const made = (value) => from + (put(value) - a) / width * (to - from);
    made.back = (place) => take(a + (place - from) / (to - from) * width);
    return made;
  }

  // The index in a rising list whose value is nearest.
  function nearest(rising, value) {
    let low = 0, high = rising.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (rising[middle] < value) low = middle; else high = middle;
    }
    return Math.abs(rising[low] - value) <= Math.abs(rising[high] - value) ? low : high;
  }

  // An exponential mean of what came before, without the pull of its beginning; gaps stay gaps.
  function smoothed(values, weight) {
    let mean = 0, seen = 0;
    return values.map((value) => {
      if (!Number.isFinite(value)) return value;
      mean = weight * mean + (1 - weight) * value;
      seen = weight * seen + (1 - weight);
      return mean / seen;
    });
  }

  // At most about `most` points: lowest and highest of each bucket, so that spikes stay.
  function thinned(x, y, most) {
    if (x.length <= most) return { x, y };
    const size = x.length / Math.floor(most / 2), kept = [];
    for (let from = 0; from < x.length; from += size) {
      const end = Math.min(x.length, Math.round(from + size));
      let low = -1, high = -1, gap = -1;
      for (let i = Math.round(from); i < end; i++) {
        if (!Number.isFinite(y[i])) gap = i;
        else {
          if (low < 0 || y[i] < y[low]) low = i;
          if (high < 0 || y[i] > y[high]) high = i;
        }
      }
      kept.push(...[...new Set([low, high, low < 0 ? gap : -1])].filter((i) => i >= 0)
        .sort((a, b) => a - b));
    }
    if (kept[kept.length - 1] !== x.length - 1) kept.push(x.length - 1);
    return { x: kept.map((i) => x[i]), y: kept.map((i) => y[i]) };
  }

  // Lowest and highest finite value, [0, 1] if there is none; `positive` leaves out the others.
  function extent(lists, positive = false) {
    let low = Infinity, high = -Infinity;
    for (const list of lists)
      for (const value of list)
        if (Number.isFinite(value) && (!positive || value > 0)) {
          if (value < low) low = value;
          if (value > high) high = value;
        }
    return low <= high ? [low, high] : null;
  }

  // The same with room around it, never of no width.
  function roomy([low, high], log = false, room = 0.05) {
    if (log) {
      const width = Math.max(Math.log10(high / low), 0.05);
      return [low / 10 ** (room * width), high * 10 ** (room * width)];
    }
    const width = high - low || Math.abs(high) * 0.2 || 1;
    return [low - room * width, high + room * width];
  }

  return { ticks, logTicks, labelled, scale, nearest, smoothed, thinned, extent, roomy };
})();

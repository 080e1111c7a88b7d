// Figures as people read them: the same words that the commands print (units.py), so that a page and
// a terminal never disagree. What is not known is null, and is said so; it is never 0.
"use strict";
Curbcut.numbers = (() => {
  const NONE = "not measured";
  const group = (text) => {
    const [whole, rest] = text.split(".");
    const grouped = whole.replace(/\B(?=(\d{3})+$)/g, ",");
    return rest === undefined ? grouped : `${grouped}.${rest}`;
  };

  // `value` with `digits` significant digits, never in exponent form between 1e-4 and 1e6.
  function sig(value, digits = 3) {
    if (value === 0) return "0";
    const exponent = Math.floor(Math.log10(Math.abs(value)));
    if (exponent > -5 && exponent < 6)
      return group(value.toFixed(Math.max(0, digits - 1 - exponent)));
    return value.toExponential(digits - 1).replace(/e([+-])(\d)$/, "e$10$2");
  }

  function small(value, digits = 2) {
    if (value === 0 || Math.abs(value) >= 1e-4) return sig(value, digits);
    return value.toFixed(Math.min(100, digits - 1 - Math.floor(Math.log10(Math.abs(value)))));
  }

  const STEPS = {
    bytes: [[2 ** 40, "TiB"], [2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"], [1, "B"]],
    kwh: [[1e6, "GWh"], [1e3, "MWh"], [1, "kWh"], [1e-3, "Wh"], [1 / 3.6e6, "J"]],
    kgco2e: [[1e3, "tCO2e"], [1, "kgCO2e"], [1e-3, "gCO2e"], [1e-6, "mgCO2e"], [1e-9, "ugCO2e"]],
    watts: [[1e6, "MW"], [1e3, "kW"], [1, "W"]],
    count: [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "k"], [1, ""]],
    flops: [[1e24, "YFLOP"], [1e21, "ZFLOP"], [1e18, "EFLOP"], [1e15, "PFLOP"], [1e12, "TFLOP"],
            [1e9, "GFLOP"]],
    joules: [[1e6, "MJ"], [1e3, "kJ"], [1, "J"], [1e-3, "mJ"]],
    litres: [[1e3, "m3"], [1, "l"], [1e-3, "ml"], [1e-6, "ul"]],
    seconds: [[1, "s"], [1e-3, "ms"], [1e-6, "us"]],
  };

  function scaled(value, steps) {
    const size = Math.abs(value) || 1e-3;
    const [factor, unit] = steps.find(([least]) => size >= least) || steps[steps.length - 1];
    return `${sig(value / factor)} ${unit}`.trimEnd();
  }

  function duration(seconds) {
    for (const [factor, unit, least] of [[86400, "d", 2], [3600, "h", 1.5], [60, "min", 1.5]])
      if (Math.abs(seconds) >= least * factor) return `${sig(seconds / factor)} ${unit}`;
    return scaled(seconds, STEPS.seconds);
  }

  function money(value) {
    if (Math.abs(value) >= 1e3) {
      for (const [least, factor, letter] of
        [[1e12, 1e12, "T"], [1e9, 1e9, "B"], [1e6, 1e6, "M"], [1e4, 1e3, "k"]])
        if (Math.abs(value) >= least) return `$${sig(value / factor)}${letter}`;
      return `$${group(value.toFixed(0))}`;
    }
    if (value === 0 || Math.abs(value) >= 0.1) return `$${group(value.toFixed(2))}`;
    return Math.abs(value) >= 0.01 ? `$${small(value)}` : `${small(100 * value)} ct`;
  }

  // `value`, in the inner unit `unit` (as /api says it), as a person reads it; `none` for null.
  function show(value, unit = "", none = NONE) {
    if (value === null || value === undefined || Number.isNaN(value)) return none;
    if (!Number.isFinite(value)) return value > 0 ? "no bound" : "-no bound";
    if (unit === "usd") return money(value);
    if (unit === "seconds") return duration(value);
    if (unit === "hours") return duration(3600 * value);
    if (unit === "fraction") return `${sig(100 * value)}%`;
    if (unit === "tokens/s") return `${sig(value)} tok/s`;
    if (unit === "kwh" && Math.abs(value) >= 1e-4 && Math.abs(value) < 1e-3)
      return `${sig(1e3 * value)} Wh`;
    if (unit === "count" && Math.abs(value) < 1000 && Number.isInteger(value)) return `${value}`;
    return STEPS[unit] ? scaled(value, STEPS[unit]) : `${sig(value)} ${unit}`.trimEnd();
  }

  // Low to high; "" where there is no interval.
  function span(low, high, unit) {
    if (low === null || low === undefined || high === null || high === undefined || low === high)
      return "";
    const cut = (text) => /^[-\d.,$]+( .*|%)$/.exec(text)?.[1];
    let [first, last] = [show(low, unit), show(high, unit)];
    if (cut(first) && cut(first) === cut(last)) first = first.slice(0, -cut(first).length);
    return `${first} .. ${last}`;
  }

  // What an estimate {value, low, high, basis} says in one line.
  function estimate(found, unit) {
    if (!found || found.value === null || found.value === undefined) return "not known";
    const around = span(found.low, found.high, unit);
    return around ? `${show(found.value, unit)} (${around})` : show(found.value, unit);
  }

  // In which unit an axis up to `most` is said: [what to divide by, its name, what stands before].
  function factors(unit, most) {
    if (unit === "usd") return most > 0 && most < 0.1 ? [0.01, "ct", ""] : [1, "", "$"];
    if (unit === "fraction") return [0.01, "%", ""];
    if (unit === "seconds" || unit === "hours") {
      const inner = unit === "hours" ? 3600 : 1;
      const found = [[86400, "d", 2], [3600, "h", 1.5], [60, "min", 1.5], [1, "s", 1],
                     [1e-3, "ms", 0]].find(([factor, , least]) => most * inner >= least * factor);
      return [found[0] / inner, found[1], ""];
    }
    const steps = STEPS[unit];
    if (!steps) return [1, unit === "tokens/s" ? "tok/s" : unit, ""];
    return [...(steps.find(([least]) => most >= least) || steps[steps.length - 1]), ""];
  }

  // Whether a unit is said in larger and smaller ones.
  const scales = (unit) => Boolean(STEPS[unit]) || ["usd", "fraction", "hours"].includes(unit);

  const whole = (value) => (value === null || value === undefined ? NONE : group(String(value)));

  function ago(seconds) {
    if (seconds === null || seconds === undefined) return "";
    if (seconds < 2) return "now";
    const [factor, unit] = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]]
      .find(([least]) => seconds >= 2 * least) || [1, "s"];
    return `${Math.floor(seconds / factor)} ${unit} ago`;
  }

  // A moment (seconds since 1970) in the reader's own zone: "2026-11-23 14:05:09".
  function moment(seconds) {
    if (seconds === null || seconds === undefined) return "";
    const at = new Date(seconds * 1000);
    const two = (value) => String(value).padStart(2, "0");
    return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ` +
      `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
  }

  return { NONE, sig, small, show, span, estimate, duration, money, factors, scales, whole, ago, moment };
})();

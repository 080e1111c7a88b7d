// The frame of every chart: caption, buttons, what is read out, and a table in its place.
"use strict";
Curbcut.figure = (() => {
  const { el, svg, csv, download } = Curbcut;

  // figure({title, unit, file, columns, rows() -> [[...]], paint(context, width, height) for PNG})
  // The result has .plot (where to draw), .acts (buttons), .readout, .legend, .captioned(unit).
  function figure({ title, unit = "", file = title, columns, rows, paint = null }) {
    const said = el("span", { class: "unit" }, unit && ` ${unit}`);
    const caption = el("span", { class: "caption" }, title, said);
    const acts = el("span", { class: "acts" });
    const plot = el("div", { class: "plot" });
    const readout = el("div", { class: "readout" });
    const legend = el("ul", { class: "chips", "aria-label": `Lines of ${title}` });
    const inside = el("div", { class: "table-wrap tall", tabindex: "0", role: "region",
                               "aria-label": `Figures of ${title}` });
    const table = el("details", {}, el("summary", {}, "As a table"), inside);
    const made = el("figure", { class: "chart" }, el("figcaption", {}, caption, acts), plot,
      readout, legend, table);
    table.addEventListener("toggle", () => {
      inside.replaceChildren(table.open ? tabled(title, columns(), rows()) : "");
    });
    act("CSV", `Save ${title} as CSV`, () =>
      download(`${file}.csv`, csv(columns(), rows(true)), "text/csv"));
    if (paint) act("PNG", `Save ${title} as a picture`, () => picture(file, title, paint));
    if (document.fullscreenEnabled)
      act(corners(), `${title} on the full screen`, () =>
        (document.fullscreenElement ? document.exitFullscreen() : made.requestFullscreen()));

    function act(text, label, onclick) {
      const button = el("button", { type: "button", class: "plain", title: label,
        "aria-label": label, onclick }, text);
      acts.append(button);
      return button;
    }
    return Object.assign(made, { plot, acts, readout, legend, act,
      captioned: (text) => { said.textContent = text ? ` ${text}` : ""; } });
  }

  const MOST_LINES = 200;

  const corners = () => svg("svg", { viewBox: "0 0 14 14", width: 14, height: 14,
    "aria-hidden": "true" }, svg("path", { fill: "none", stroke: "currentColor",
    "stroke-width": 1.6, d: "M1 5V1h4M9 1h4v4M13 9v4H9M5 13H1V9" }));

  function tabled(title, columns, rows) {
    const numbers = columns.map((_, i) => rows.some((row) => typeof row[i] === "number"));
    const few = rows.slice(0, MOST_LINES);
    const more = rows.length > few.length ? ` (first ${few.length} of ${rows.length} lines)` : "";
    return el("table", { class: "rows" }, el("caption", {}, `${title}${more}`),
      el("thead", {}, el("tr", {}, columns.map((name, i) =>
        el("th", { scope: "col", class: numbers[i] ? "num" : null }, name)))),
      el("tbody", {}, few.map((row) => el("tr", {}, row.map((value, i) =>
        el("td", { class: numbers[i] ? "num" : null }, worded(value)))))));
  }

  function worded(value) {
    if (value === null || value === undefined) return "not measured";
    if (typeof value !== "number") return value;
    return Number.isInteger(value) ? Curbcut.numbers.whole(value) : Curbcut.numbers.sig(value, 5);
  }

  function picture(file, title, paint) {
    const [width, height, times] = [960, 480, 2];
    const canvas = el("canvas", { width: width * times, height: height * times });
    const context = canvas.getContext("2d");
    context.scale(times, times);
    context.fillStyle = Curbcut.colour("--panel");
    context.fillRect(0, 0, width, height);
    paint(context, width, height, title);
    canvas.toBlob((blob) => download(`${file}.png`, blob), "image/png");
  }

  return figure;
})();

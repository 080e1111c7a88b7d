// Parts that pages share: tables that sort and change in place, choices of few, sliders, tiles,
// badges, bars, and a promise with its measurement on one line.
"use strict";
Curbcut.parts = (() => {
  const { el, say } = Curbcut;
  const { show, span, sig } = Curbcut.numbers;
  const FEW = 100;

  const badge = (state, text = state) => el("span", { class: "badge", "data-state": state }, text);

  function bar(fraction, label, kind = "") {
    const inside = el("i");
    inside.style.width = `${100 * Math.min(1, Math.max(0, fraction || 0))}%`;
    return el("span", { class: `bar ${kind}`, role: "img", "aria-label": label }, inside);
  }

  // A run's model and machine in few words; a bare size is said to be one.
  function machinery({ model, machine }) {
    const what = /^[\d.]+ ?[kMBT]?$/.test(model) ? `${model.replace(" ", "")} parameters` : model;
    return [what, machine === "here" ? "this machine" : machine].filter(Boolean).join(" on ");
  }

  // tiles([{label, value, note}]) as a description list.
  function tiles(items) {
    return el("dl", { class: "tiles" }, items.map(({ label, value, note }) =>
      el("div", { class: "tile" }, el("dt", {}, label), el("dd", {}, value),
        note && el("dd", {}, note))));
  }

  function facts(pairs) {
    return el("dl", { class: "facts" },
      pairs.filter(([, value]) => value !== null && value !== undefined && value !== "")
        .map(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
  }

  // What a person should know of the whole: texts, each on a line of one warning.
  function notes(place, texts) {
    const said = texts.join("\n");
    if (place.dataset.said === said) return;
    place.dataset.said = said;
    place.replaceChildren(texts.length ? el("div", { class: "note warn" },
      texts.map((text) => el("p", { class: "break" }, text))) : "");
  }

  function empty(title, ...words) {
    return el("div", { class: "empty" }, el("strong", {}, title), el("p", {}, words));
  }

  // One of few: options [[value, text]]; calls back with the value. The result has .value.
  let switches = 0;
  function choice(legend, options, value, callback) {
    const name = `choice-${++switches}`;
    const made = el("fieldset", { class: "switch" }, el("legend", {}, legend),
      el("span", { class: "options" }, options.map(([key, text]) => el("label", {},
        el("input", { type: "radio", name, value: key, checked: key === value,
          onchange: () => { made.value = key; callback(key); } }), text))));
    made.value = value;
    return made;
  }

  // A range with its value said beside it, in words for screen readers too. `text` says a value.
  function slider({ label, min, max, step = "any", value, text = String, oninput }) {
    const id = `slider-${++switches}`;
    const output = el("output", { for: id }, text(value));
    const input = el("input", { type: "range", id, min, max, step, "aria-valuetext": text(value) });
    input.value = value;
    input.addEventListener("input", () => {
      output.textContent = text(Number(input.value));
      input.setAttribute("aria-valuetext", output.textContent);
      oninput(Number(input.value));
    });
    const made = el("div", { class: "slider" }, el("label", { for: id }, label), output, input);
    made.input = input;
    return made;
  }

  function command(text, label = "Copy this command") {
    return el("pre", { class: "command" }, el("code", {}, text),
      el("button", { type: "button", class: "plain", "aria-label": label,
        onclick: () => Curbcut.copy(text) }, "Copy"));
  }

  // A table that sorts by its headings and whose rows change in place.
  //   columns [{key, title, num, cell(row) -> text|element|[...], by(row) -> number|string|null,
  //             head: a row's own heading, hint}]
  // Rows with the same `id(row)` keep their element. The first rows are there at once, others as a
  // person comes near them. A null sorts last, whichever way.
  function table({ columns, caption, id, sort = null, descending = false, shown = () => true,
                   none = "Nothing here yet.", onrow = null }) {
    const body = el("tbody");
    const rows = new Map(), cells = new Map();
    let most = FEW;
    const heads = columns.map((column) => head(column));
    const made = el("div", { class: "table-wrap", role: "region", tabindex: "0",
                             "aria-label": caption },
      el("table", { class: "rows" }, el("caption", {}, caption),
        el("thead", {}, el("tr", {}, heads)), body));
    const more = el("button", { type: "button", hidden: true, onclick: () => {
      most += FEW;
      arrange();
    } });
    made.append(more);
    new IntersectionObserver(([entry]) => {
      if (entry.isIntersecting && !more.hidden) more.click();
    }, { rootMargin: "600px" }).observe(more);

    function head(column) {
      const side = column.num ? "num" : null;
      if (!column.by) return el("th", { scope: "col", class: side, title: column.hint },
        column.title);
      return el("th", { scope: "col", class: side, title: column.hint },
        el("button", { type: "button", onclick: () => sorted(column) }, column.title,
          el("span", { class: "arrow", "aria-hidden": "true" })));
    }

    function sorted(column) {
      descending = sort === column.key ? !descending : Boolean(column.num);
      sort = column.key;
      most = FEW;
      arrange();
      say(`Sorted by ${column.title}, ${descending ? "largest first" : "smallest first"}.`);
    }

    function line(row) {
      const old = cells.get(id(row));
      if (old && old.row === row) return old.element;
      const parts = columns.map((column) => el(column.head ? "th" : "td",
        { class: [column.num && "num", column.class].filter(Boolean).join(" ") || null,
          scope: column.head ? "row" : null }, column.cell(row)));
      const element = old ? old.element : el("tr");
      if (old && element.contains(document.activeElement)) {
        // What a person stands on is not taken away under them.
        [...element.children].forEach((cell, i) => {
          if (!cell.contains(document.activeElement)) cell.replaceWith(parts[i]);
        });
      } else element.replaceChildren(...parts);
      if (onrow) onrow(element, row);
      cells.set(id(row), { row, element });
      return element;
    }

    function arrange() {
      const column = columns.find(({ key }) => key === sort);
      const wanted = [...rows.values()].filter(shown);
      if (column) wanted.sort((a, b) => compared(column.by(a), column.by(b), descending));
      heads.forEach((cell, i) => {
        const is = columns[i] === column;
        if (is) cell.setAttribute("aria-sort", descending ? "descending" : "ascending");
        else cell.removeAttribute("aria-sort");
        const arrow = cell.querySelector(".arrow");
        if (arrow) arrow.textContent = is ? (descending ? "↓" : "↑") : "";
      });
      made.count = wanted.length;
      more.hidden = wanted.length <= most;
      more.textContent = `Show more: ${most} of ${Curbcut.numbers.whole(wanted.length)} are here`;
      fill(wanted.slice(0, most));
    }

    function fill(wanted) {
      wanted.forEach((row, i) => {
        const element = line(row);
        if (body.children[i] !== element) body.insertBefore(element, body.children[i] || null);
      });
      while (body.children.length > wanted.length) body.lastElementChild.remove();
      if (!wanted.length)
        body.replaceChildren(el("tr", {}, el("td", { colspan: columns.length, class: "empty" },
          none)));
    }

    // Takes in new or changed rows; with `whole`, all others go.
    made.take = (changed, whole = false) => {
      if (whole) { rows.clear(); cells.clear(); body.replaceChildren(); }
      for (const row of changed) rows.set(id(row), row);
      arrange();
    };
    made.arrange = arrange;
    made.rows = rows;
    return made;
  }

  function compared(a, b, descending) {
    const none = (value) => value === null || value === undefined || Number.isNaN(value);
    if (none(a) || none(b)) return none(a) - none(b);
    const order = typeof a === "string" ? a.localeCompare(b, "en", { numeric: true }) : a - b;
    return descending ? -order : order;
  }

  // A promise and its measurement on one line: the interval as a band, what was expected as a tick,
  // what was measured as a diamond, of another colour outside the band, hollow while it grows.
  function interval({ value, low, high, measured = null, unit = "", soFar = false }) {
    const known = [value, low, high, measured].filter((one) => Number.isFinite(one));
    if (!known.length) return el("span", { class: "muted" }, "nothing to draw");
    const least = Math.min(...known), most = Math.max(...known);
    const room = (most - least || Math.abs(most) || 1) * 0.08;
    const at = (one) => 100 * (one - least + room) / (most - least + 2 * room);
    const inside = soFar || measured === null || low === null ? null
      : measured >= low && measured <= high;
    const words = [value !== null && value !== undefined && `promised ${show(value, unit)}`,
      span(low, high, unit) && `between ${span(low, high, unit)}`,
      measured !== null && `${soFar ? "so far" : "measured"} ${show(measured, unit)}`,
      inside === null ? null : inside ? "inside" : "outside"].filter(Boolean).join(", ");
    const place = (what, left, width = null) => {
      const part = el("i", { class: what });
      part.style.left = `${left}%`;
      if (width !== null) part.style.width = `${width}%`;
      return part;
    };
    return el("span", { class: "interval", role: "img", "aria-label": words, title: words },
      Number.isFinite(low) && Number.isFinite(high) &&
        place("range", at(low), at(high) - at(low)),
      Number.isFinite(value) && place("promise", at(value)),
      Number.isFinite(measured) &&
        place(`mark ${soFar ? "sofar" : inside === false ? "outside" : ""}`, at(measured)));
  }

  // "1 key", "3 keys"
  const many = (count, noun) => `${Curbcut.numbers.whole(count)} ${noun}${count === 1 ? "" : "s"}`;

  return { badge, bar, many, machinery, tiles, facts, notes, empty, choice, slider, command, table, compared, interval,
           sig };
})();

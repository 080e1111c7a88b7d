// What every page stands on: elements, requests, messages, the theme and the live stream.
// One name is shared by all files: Curbcut. Text never becomes markup: `el` makes text nodes.
"use strict";
const Curbcut = (() => {
  const SVG = "http://www.w3.org/2000/svg";

  // el("td", {class: "num", onclick: f, title: null}, "text", otherElement, [more])
  // An attribute that is null, undefined or false is left out; true is written empty.
  function el(tag, attributes = {}, ...children) {
    return filled(document.createElement(tag), attributes, children);
  }

  function svg(tag, attributes = {}, ...children) {
    return filled(document.createElementNS(SVG, tag), attributes, children);
  }

  function filled(made, attributes, children) {
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
      else if (value !== null && value !== undefined && value !== false)
        made.setAttribute(name, value === true ? "" : value);
    }
    put(made, ...children);
    return made;
  }

  // Appends text, elements, and lists of them; null and false are nothing.
  function put(parent, ...children) {
    for (const child of children.flat(Infinity))
      if (child !== null && child !== undefined && child !== false) parent.append(child);
    return parent;
  }

  const $ = (selector, within = document) => within.querySelector(selector);

  // What a page was filled with: JSON in <script type="application/json" id="ID">, or null.
  function data(id) {
    const found = document.getElementById(id);
    return found ? JSON.parse(found.textContent) : null;
  }

  // A page that was saved as one file holds the answers that it will ask for.
  const kept = data("answers");

  async function get(path, { signal } = {}) {
    if (kept) {
      if (path in kept) return kept[path];
      throw new Error("This saved page does not hold that; open it with `curbcut ui`.");
    }
    return answered(await fetched(path, { signal }));
  }

  async function post(path, body, { method = "POST", signal } = {}) {
    return answered(await fetched(path, {
      method, signal, headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
    }));
  }

  async function fetched(path, options) {
    try {
      return await fetch(path, { credentials: "same-origin", cache: "no-store", ...options });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Error("The server does not answer. Is `curbcut ui` still running?");
    }
  }

  async function answered(response) {
    let body = null;
    try { body = await response.json(); } catch { /* said below */ }
    if (response.ok && body !== null) return body;
    if (response.status === 401 || response.status === 403)
      throw new Error(said(body) || "This browser may not see that. Open the link with the " +
        "secret that `curbcut ui` printed.");
    const error = new Error(said(body) || `The server answered ${response.status}.`);
    error.status = response.status;
    error.body = body;
    throw error;
  }

  function said(body) {
    const found = body && (body.error ?? body.detail);
    const text = typeof found === "string" ? found : found && (found.message ?? found.what);
    return text && found.mend ? `${text} (${found.mend})` : text;
  }

  // Says a few words to everybody: shown for a while, and read out once.
  let silence = 0;
  function say(text) {
    const place = $("#said");
    if (!place) return;
    clearTimeout(silence);
    place.textContent = text;
    silence = setTimeout(() => { place.textContent = ""; }, 6000);
  }

  async function copy(text) {
    try {
      await navigator.clipboard.writeText(text);
      say("Copied.");
    } catch {
      say("This browser forbids copying: select the text instead.");
    }
  }

  function download(name, content, type = "text/plain") {
    const blob = content instanceof Blob ? content : new Blob([content], { type });
    const address = URL.createObjectURL(blob);
    const link = el("a", { href: address, download: name.replace(/[^\w.-]+/g, "-") });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(address), 10000);
  }

  // Rows of plain values as CSV. A text that a spreadsheet would take for a formula is quoted as text.
  function csv(columns, rows) {
    const cell = (value) => {
      if (value === null || value === undefined) return "";
      if (typeof value === "number") return String(value);
      const text = /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value);
      return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
    };
    return [columns, ...rows].map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
  }

  // Colours as the page has them now ("--accent"); `onTheme` calls back whenever they change.
  const probe = el("span", { hidden: true });
  function colour(name) {
    if (!probe.isConnected) document.body.append(probe);
    probe.style.color = `var(${name})`;
    return getComputedStyle(probe).color;
  }

  const watchers = new Set();
  function onTheme(callback) { watchers.add(callback); }
  function themed() { for (const callback of watchers) callback(); }

  const THEMES = ["system", "light", "dark"];
  function startTheme() {
    const button = $("#theme");
    if (!button) return;
    const show = () => { button.textContent = `Theme: ${chosen()}`; };
    const chosen = () => document.documentElement.dataset.theme || "system";
    button.addEventListener("click", () => {
      const next = THEMES[(THEMES.indexOf(chosen()) + 1) % THEMES.length];
      if (next === "system") delete document.documentElement.dataset.theme;
      else document.documentElement.dataset.theme = next;
      try { localStorage.setItem("curbcut-theme", next); } catch { /* then until it is closed */ }
      show();
      themed();
    });
    show();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", themed);
  }

  // Calls back with what the server says has changed: {cursor, runs: names, more: how many}. `cursor`
  // is where the page stands already ("": all is new). Nothing is asked while nobody looks; a lost
  // stream comes back by itself, and tells what was missed.
  function live(callback, cursor = "") {
    const place = $("#live");
    if (kept || !place) return;
    let stream = null;
    const state = (name, text) => {
      place.hidden = false;
      if (place.dataset.state === name) return;
      place.dataset.state = name;
      place.textContent = text;
    };
    const open = () => {
      if (stream && stream.readyState !== EventSource.CLOSED) return;
      stream = new EventSource(`/api/stream?after=${encodeURIComponent(cursor)}`);
      stream.onopen = () => state("live", "live");
      stream.onmessage = (event) => {
        const news = JSON.parse(event.data);
        cursor = news.cursor;
        callback(news);
      };
      stream.onerror = () => {
        state("lost", "not connected");
        if (stream.readyState === EventSource.CLOSED) setTimeout(seen, 3000);
      };
    };
    const seen = () => {
      if (!document.hidden) return open();
      if (stream) stream.close();
      state("paused", "paused");
    };
    document.addEventListener("visibilitychange", seen);
    addEventListener("pagehide", () => stream && stream.close());
    addEventListener("pageshow", (event) => { if (event.persisted) seen(); });
    seen();
  }

  // One call at a time: what is asked meanwhile is asked once more when it has ended.
  function oneAtATime(work) {
    let busy = false, again = false;
    return async () => {
      if (busy) { again = true; return; }
      busy = true;
      try {
        do { again = false; await work(); } while (again);
      } finally { busy = false; }
    };
  }

  // A page that could not be filled says why, where its content would stand.
  function failed(place, error) {
    place.replaceChildren(el("p", { class: "note bad", role: "alert" }, error.message));
  }

  document.addEventListener("DOMContentLoaded", startTheme);
  return { el, svg, put, $, data, get, post, say, copy, download, csv, colour, onTheme, live,
           oneAtATime, failed, saved: Boolean(kept) };
})();

// What shuts people out of a page as it is now: a list of words, empty when nothing does.
() => {
const faults = [];
const say = (what, element) => faults.push(`${what}: ${element.outerHTML.slice(0, 160)}`);
const seen = (element) => element.checkVisibility({visibilityProperty: true, opacityProperty: true})
  && element.getClientRects().length > 0;
const all = (selector) => [...document.querySelectorAll(selector)].filter(seen);
const words = (element) => (element.getAttribute("aria-label") ||
  (element.getAttribute("aria-labelledby") || "").split(" ").filter(Boolean)
    .map((id) => document.getElementById(id)?.textContent || "").join(" ") ||
  element.textContent || element.getAttribute("title") || "").trim();

if (!document.documentElement.lang) faults.push("no language");
if (!document.title.trim()) faults.push("no title");
for (const [selector, count] of [["main", 1], ["h1", 1]])
  if (all(selector).length !== count) faults.push(`${all(selector).length} of ${selector}`);
const ids = [...document.querySelectorAll("[id]")].map(({id}) => id);
for (const id of new Set(ids)) if (ids.filter((one) => one === id).length > 1)
  faults.push(`two of #${id}`);
for (const attribute of ["for", "aria-labelledby", "aria-describedby", "aria-controls"])
  for (const element of document.querySelectorAll(`[${attribute}]`))
    for (const id of element.getAttribute(attribute).split(" ").filter(Boolean))
      if (!document.getElementById(id)) say(`${attribute} names nothing`, element);
// What a script says in place of words.
for (const slip of ["[object ", "NaN", "undefined", "Infinity", "null"])
  if (document.body.innerText.includes(slip)) faults.push(`the page says ${slip}`);
let level = 0;
for (const heading of all("h1, h2, h3, h4")) {
  const now = Number(heading.tagName[1]);
  if (now > level + 1) say("a heading skips a level", heading);
  level = now;
}
for (const element of all("a[href], button, summary, [role=img], [role=button]"))
  if (!words(element)) say("no name", element);
for (const element of all("input, select, textarea")) {
  const label = [...(element.labels || [])].map((one) => one.textContent).join("").trim();
  if (!label && !words(element)) say("no label", element);
}
for (const element of all("[role=slider], input[type=range]"))
  if (!element.getAttribute("aria-valuetext")) say("a slider without words", element);
for (const element of all("[role=region], [role=slider], figure canvas, fieldset, [role=group]"))
  if (element.tagName !== "CANVAS" && element.tagName !== "FIELDSET" && !words(element))
    say("no name", element);
for (const element of all("fieldset"))
  if (!element.querySelector("legend")) say("no legend", element);
for (const element of all("img")) if (!element.hasAttribute("alt")) say("no alt", element);
for (const table of all("table")) {
  if (!table.querySelector("caption")?.textContent.trim()) say("a table without caption", table);
  for (const cell of table.querySelectorAll("th"))
    if (!cell.scope) say("a heading cell without scope", cell);
}
for (const figure of all("figure"))
  if (!figure.querySelector("figcaption")?.textContent.trim()) say("no caption", figure);
for (const element of document.querySelectorAll("[tabindex]"))
  if (element.tabIndex > 0) say("jumps the order of focus", element);
for (const element of all("body *")) {
  const style = getComputedStyle(element);
  const scrolls = ["auto", "scroll"].includes(style.overflowX) &&
    element.scrollWidth > element.clientWidth + 1 ||
    ["auto", "scroll"].includes(style.overflowY) && element.scrollHeight > element.clientHeight + 1;
  if (scrolls && element.tabIndex < 0 && !element.querySelector("a[href], button, input, select"))
    say("scrolls, but not by keyboard", element);
}
for (const element of all("button, select, summary, a.button, [role=button]")) {
  const {width, height} = element.getBoundingClientRect();
  if (width < 24 || height < 23.9) say(`a target of ${width} x ${height}`, element);
}
const root = document.documentElement;
if (root.scrollWidth > root.clientWidth + 1)
  faults.push(`the page is ${root.scrollWidth} wide in a window of ${root.clientWidth}`);

// Contrast of all text against what is painted behind it (WCAG 2: 4.5, large text 3).
const probe = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
const known = new Map();
function rgba(text) {
  if (!known.has(text)) {
    probe.clearRect(0, 0, 1, 1);
    probe.fillStyle = text;
    probe.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = probe.getImageData(0, 0, 1, 1).data;
    known.set(text, [r, g, b, a / 255]);
  }
  return known.get(text);
}
const over = ([r, g, b, a], under) => [r, g, b].map((one, i) => one * a + under[i] * (1 - a));
function behind(element) {
  const layers = [];
  for (let one = element; one; one = one.parentElement)
    layers.push(rgba(getComputedStyle(one).backgroundColor));
  const canvas = rgba(getComputedStyle(document.body).backgroundColor);
  return layers.reverse().reduce((under, layer) => over(layer, under),
    over(canvas, [255, 255, 255]));
}
const linear = (one) => (one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4);
const light = (rgb) => rgb.reduce((sum, one, i) =>
  sum + linear(one / 255) * [0.2126, 0.7152, 0.0722][i], 0);
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
const looked = new Set();
while (walker.nextNode()) {
  const element = walker.currentNode.parentElement;
  const left = "[aria-disabled], :disabled, .hidden-text, script, noscript, option";
  if (looked.has(element) || !walker.currentNode.textContent.trim() || !seen(element) ||
      element.closest(left)) continue;
  looked.add(element);
  const style = getComputedStyle(element);
  const ink = rgba(element.closest("svg") ? style.fill : style.color);
  const under = behind(element);
  const [a, b] = [light(over(ink, under)), light(under)].sort((x, y) => y - x);
  const ratio = (a + 0.05) / (b + 0.05);
  const size = parseFloat(style.fontSize), bold = Number(style.fontWeight) >= 700;
  if (ratio < (size >= 24 || bold && size >= 18.66 ? 3 : 4.5))
    say(`contrast ${ratio.toFixed(2)}`, element);
}
return faults;
}

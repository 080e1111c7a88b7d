// Before anything is drawn: the theme that was chosen here, so that no page flashes in the other one.
(() => {
  "use strict";
  let chosen = null;
  try { chosen = localStorage.getItem("curbcut-theme"); } catch { /* a browser may forbid it */ }
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
})();

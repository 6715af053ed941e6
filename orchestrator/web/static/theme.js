// Before anything is drawn: the theme and the keys as this device keeps them.
"use strict";
(() => {
  const root = document.documentElement;
  let theme = null;
  let keys = null;
  try {
    theme = localStorage.getItem("ratchet.theme");
    keys = localStorage.getItem("ratchet.keys-off");
  } catch {
    // Storage may be forbidden; then nothing is kept.
  }
  if (theme === "light" || theme === "dark") root.dataset.theme = theme;
  root.classList.toggle("keys-off", keys === "yes");
})();

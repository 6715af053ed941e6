// What forms and links cannot do alone: keys, dialogs, one press for one label, and words for screen readers.
// Nothing here decides anything, and every page works without it.
"use strict";

const root = document.documentElement;

const kept = {
  get(name) {
    try {
      return localStorage.getItem(`ratchet.${name}`);
    } catch {
      return null;
    }
  },
  set(name, value) {
    try {
      if (value === null) localStorage.removeItem(`ratchet.${name}`);
      else localStorage.setItem(`ratchet.${name}`, value);
    } catch {
      // Storage may be forbidden; then nothing is kept.
    }
  },
};

// ---- the secret of an invitation: out of the address, into the form ----

const code = document.querySelector("#join #code");
if (code && location.hash.startsWith("#rti_")) {
  code.value = location.hash.slice(1);
  history.replaceState(null, "", location.pathname);
  document.querySelector("#join button").focus();
}

// A link from another site came without our cookie; asking again from here brings it along. Once, not for ever.
const onward = document.querySelector("#onward");
if (onward && !sessionStorage.getItem("ratchet.onward")) {
  sessionStorage.setItem("ratchet.onward", "yes");
  location.replace(onward.href);
} else if (!onward) {
  sessionStorage.removeItem("ratchet.onward");
}

// ---- the theme ----

const themes = ["auto", "light", "dark"];
const themeButton = document.querySelector("#theme");
if (themeButton) {
  const show = () => {
    document.querySelector("#theme-name").textContent = root.dataset.theme ?? "auto";
  };
  themeButton.hidden = false;
  themeButton.addEventListener("click", () => {
    const next = themes[(themes.indexOf(root.dataset.theme ?? "auto") + 1) % themes.length];
    if (next === "auto") delete root.dataset.theme;
    else root.dataset.theme = next;
    kept.set("theme", next === "auto" ? null : next);
    show();
  });
  show();
}

// ---- what became of the last word ----

const status = document.querySelector("#status");
const tell = (text) => {
  if (!status) return;
  status.textContent = "";
  // A live region speaks only of what changes after it was read.
  requestAnimationFrame(() => {
    status.textContent = text;
  });
};
if (status && status.textContent.trim()) {
  const words = status.textContent.trim();
  const undo = document.querySelector("#undo");
  tell(undo && words.startsWith("Recorded") ? `${words} Undo: ${keyOf("u")}` : words);
  history.replaceState(null, "", location.pathname);
  document.querySelector("#top")?.focus({ preventScroll: true });
}

// ---- one press, one word ----

for (const form of document.querySelectorAll('form[method="post"]')) {
  form.addEventListener("submit", (event) => {
    if (form.dataset.sent) {
      event.preventDefault();
      return;
    }
    form.dataset.sent = "yes";
    event.submitter?.classList.add("chosen");
    for (const button of form.querySelectorAll("button")) button.setAttribute("aria-disabled", "true");
  });
}
window.addEventListener("pageshow", (event) => {
  // Back from the browser's memory: the page is old, and so is its ticket.
  if (event.persisted && document.querySelector("#word")) location.reload();
  for (const form of document.querySelectorAll("form[data-sent]")) {
    delete form.dataset.sent;
    for (const button of form.querySelectorAll("button")) {
      button.removeAttribute("aria-disabled");
      button.classList.remove("chosen");
    }
  }
});

// ---- dialogs ----

for (const link of document.querySelectorAll("[data-dialog]")) {
  const dialog = document.getElementById(link.dataset.dialog);
  if (!dialog?.showModal) continue;
  link.addEventListener("click", (event) => {
    event.preventDefault();
    dialog.showModal();
  });
  dialog.addEventListener("close", () => link.focus());
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
}

// ---- differences: the same page, marked; only the two texts are exchanged ----

const sides = document.querySelector("#sides");
document.querySelector("#differences")?.addEventListener("click", (event) => {
  event.preventDefault();
  const link = event.currentTarget;
  const request = new XMLHttpRequest();
  request.open("GET", link.href);
  request.responseType = "document";
  request.addEventListener("load", () => {
    const other = request.response?.querySelector("#sides");
    const same = request.response?.querySelector('[name="ticket"]')?.value === document.querySelector('[name="ticket"]').value;
    if (request.status !== 200 || !other || !same) {
      location.assign(link.href);
      return;
    }
    const texts = [...sides.querySelectorAll(".untrusted")];
    [...other.querySelectorAll(".untrusted")].forEach((text, at) => texts[at].replaceWith(document.importNode(text, true)));
    const marked = link.getAttribute("aria-current") !== "true";
    link.toggleAttribute("aria-current", marked);
    if (marked) link.setAttribute("aria-current", "true");
    link.firstChild.textContent = marked ? "No differences " : "Differences ";
    link.search = marked ? "" : "?differences=1";
    tell(marked ? "Differences are marked." : "Differences are not marked.");
  });
  request.addEventListener("error", () => tell("The server cannot be reached."));
  request.send();
});

// ---- keys: this device's own, and off where they are in the way ----

function remapped() {
  try {
    const found = JSON.parse(kept.get("keys") ?? "{}");
    return found && typeof found === "object" ? found : {};
  } catch {
    return {};
  }
}
function keyOf(name) {
  const key = remapped()[name];
  return typeof key === "string" && key.length === 1 ? key : name;
}
const keysOff = () => root.classList.contains("keys-off");

function showKeys() {
  for (const target of document.querySelectorAll("[data-key]")) {
    const key = keyOf(target.dataset.key);
    const shown = target.querySelector("kbd");
    if (shown) shown.textContent = key;
    if (keysOff()) target.removeAttribute("aria-keyshortcuts");
    else target.setAttribute("aria-keyshortcuts", key);
  }
  for (const shown of document.querySelectorAll("[data-shows]")) shown.textContent = keyOf(shown.dataset.shows);
  for (const box of document.querySelectorAll("[data-remaps]")) box.value = remapped()[box.dataset.remaps] ?? "";
  for (const box of document.querySelectorAll("#keys-on")) box.checked = !keysOff();
}
for (const part of document.querySelectorAll(".remap")) part.hidden = false;
for (const box of document.querySelectorAll("[data-remaps]")) {
  box.addEventListener("change", () => {
    const keys = remapped();
    const taken = [...document.querySelectorAll("[data-remaps]")].some(
      (other) => other !== box && keyOf(other.dataset.remaps) === box.value,
    );
    if (box.value.trim() && !taken) keys[box.dataset.remaps] = box.value;
    else delete keys[box.dataset.remaps];
    kept.set("keys", Object.keys(keys).length ? JSON.stringify(keys) : null);
    showKeys();
  });
}
for (const box of document.querySelectorAll("#keys-on")) {
  box.addEventListener("change", () => {
    root.classList.toggle("keys-off", !box.checked);
    kept.set("keys-off", box.checked ? null : "yes");
    showKeys();
  });
}
for (const button of document.querySelectorAll("#keys-reset")) {
  button.addEventListener("click", () => {
    kept.set("keys", null);
    showKeys();
  });
}
showKeys();

// Harm goes round: neither, response 1, response 2, both.
function flagHarm() {
  const left = document.querySelector('[name="harm_left"]');
  const right = document.querySelector('[name="harm_right"]');
  if (!left || !right) return;
  const at = ((left.checked ? 1 : 0) + (right.checked ? 2 : 0) + 1) % 4;
  left.checked = (at & 1) === 1;
  right.checked = (at & 2) === 2;
  tell(["No response is flagged as harmful.", "Response 1 is flagged as harmful.", "Response 2 is flagged as harmful.", "Both are flagged as harmful."][at]);
}

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest?.("input:not([type=checkbox]):not([type=radio]), textarea, select, [contenteditable]");
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || typing || keysOff()) return;
  const dialog = document.querySelector("dialog[open]");
  if (event.key === keyOf("h") && !dialog && document.querySelector("#word")) {
    event.preventDefault();
    if (!event.repeat) flagHarm();
    return;
  }
  const target = [...document.querySelectorAll("[data-key]")].find((one) => keyOf(one.dataset.key) === event.key);
  if (!target) return;
  if (dialog) {
    // In an open dialog, its own key closes it and no other does anything.
    if (target.dataset.dialog === dialog.id) {
      event.preventDefault();
      dialog.close();
    }
    return;
  }
  event.preventDefault();
  if (!event.repeat) target.click(); // a key that is held down is one word
});

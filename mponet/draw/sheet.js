// The sheet of a network in a page: search, folding by keyboard, and what the pointer is on.  Runs without a network.
"use strict";
(() => {
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const layers = all("details.layer");
  const summaries = layers.map((layer) => layer.querySelector("summary"));
  const search = document.getElementById("search");
  const found = document.getElementById("found");
  const tip = document.getElementById("tip");

  // ---------------------------------------------------------------- folding

  const fold = (open) => layers.forEach((layer) => { layer.open = open; });
  document.getElementById("unfold").addEventListener("click", () => fold(true));
  document.getElementById("fold").addEventListener("click", () => fold(false));

  const visible = () => summaries.filter((summary) => summary.checkVisibility());
  const step = (current, by) => {
    const shown = visible();
    const next = shown[Math.min(Math.max(shown.indexOf(current) + by, 0), shown.length - 1)];
    if (next) next.focus();
  };

  // ---------------------------------------------------------------- search

  let hits = [], at = -1, before = null;
  const unfoldTo = (layer) => {
    for (let up = layer.parentElement; up; up = up.parentElement) if (up.tagName === "DETAILS") up.open = true;
  };
  const find = () => {
    const words = search.value.trim().toLowerCase();
    if (before === null && words) before = layers.map((layer) => layer.open);
    // what an earlier word unfolded folds again
    if (before !== null) layers.forEach((layer, k) => { layer.open = before[k]; });
    hits = words ? layers.filter((layer) => layer.dataset.words.includes(words)) : [];
    at = -1;
    layers.forEach((layer) => layer.classList.toggle("hit", hits.includes(layer)));
    layers.forEach((layer) => {
      layer.classList.toggle("miss", words !== "" && !hits.includes(layer) && !layer.querySelector(".hit"));
    });
    hits.forEach(unfoldTo);
    if (!words) before = null;
    found.textContent = words ? `${hits.length} of ${layers.length} layers` : "";
  };
  search.addEventListener("input", find);
  search.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && hits.length) {
      at = (at + (event.shiftKey ? -1 : 1) + hits.length) % hits.length;
      hits[at].scrollIntoView({ block: "center" });
      found.textContent = `${at + 1} of ${hits.length}: ${hits[at].dataset.name}`;
      event.preventDefault();
    }
    if (event.key === "ArrowDown" && hits.length) {
      hits[Math.max(at, 0)].querySelector("summary").focus();
      event.preventDefault();
    }
  });

  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented) return;  // the search has done it
    const on = document.activeElement;
    if (event.key === "Escape") {
      tip.hidden = true;
      if (search.value) { search.value = ""; find(); }
      return;
    }
    if (on === search || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "/") {
      search.focus();
      search.select();
      event.preventDefault();
    }
    if (!summaries.includes(on)) return;
    const moves = { ArrowDown: 1, ArrowUp: -1, Home: -Infinity, End: Infinity };
    if (event.key in moves) {
      step(on, moves[event.key]);
      event.preventDefault();
    }
    if (event.key === "ArrowRight") on.parentElement.open = true;
    if (event.key === "ArrowLeft") on.parentElement.open = false;
  });

  // ---------------------------------------------------------------- what the pointer is on

  // browsers show the titles of drawings late and far from the thing: ours take their place
  all("svg.mponet title").forEach((title) => {
    const owner = title.parentElement;
    owner.setAttribute("aria-label", title.textContent);
    if (owner.tagName !== "svg") owner.dataset.tip = title.textContent;
    title.remove();
  });
  const show = (target, x, y) => {
    tip.textContent = target.dataset.tip;
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(8, Math.min(x + 12, innerWidth - box.width - 8))}px`;
    tip.style.top = `${y + 18 + box.height > innerHeight ? Math.max(8, y - box.height - 10) : y + 18}px`;
  };
  document.addEventListener("pointermove", (event) => {
    const target = event.target.closest("[data-tip]");
    if (target) show(target, event.clientX, event.clientY);
    else tip.hidden = true;
  });
  document.addEventListener("focusin", (event) => {
    if (!event.target.matches("[data-tip]:focus-visible")) return;
    const box = event.target.getBoundingClientRect();
    show(event.target, box.left, box.bottom - 12);
  });
  document.addEventListener("focusout", () => { tip.hidden = true; });
  document.addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });

  all(".screen[hidden]").forEach((part) => { part.hidden = false; });
})();

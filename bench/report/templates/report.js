"use strict";
const all = (selector, inside = document) => [...inside.querySelectorAll(selector)];

// Tables: a heading sorts by its column, numbers from the largest, names from A.
for (const table of all("table")) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => heading.querySelector("button").addEventListener("click", () => {
    const numeric = heading.classList.contains("number");
    const first = numeric ? "descending" : "ascending";
    const other = numeric ? "ascending" : "descending";
    const order = heading.getAttribute("aria-sort") === first ? other : first;
    for (const one of headings) one.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", order);
    const key = (row) => {
      const text = row.cells[column].textContent.trim();
      return numeric ? parseFloat(text.replace(/[~,]/g, "")) : text;
    };
    const missing = (value) => value === "–" || Number.isNaN(value);
    const sign = order === "ascending" ? 1 : -1;
    const rows = [...table.tBodies[0].rows].map((row) => [key(row), row]);
    rows.sort(([a], [b]) => (missing(a) || missing(b)) ? missing(a) - missing(b)
      : sign * (numeric ? a - b : a.localeCompare(b)));
    table.tBodies[0].append(...rows.map(([, row]) => row));
  }));
}

for (const button of all(".more")) {
  button.addEventListener("click", () => {
    const on = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", on);
    button.closest(".table").classList.toggle(button.dataset.shows, on);
    const others = button.closest(".machine").querySelector("[id$='-12']");
    if (button.dataset.shows === "all" && others) others.open = on;
  });
}

// The filter hides rows without its text and opens the sections that still have some.
for (const filter of all(".filter")) {
  filter.addEventListener("input", () => {
    const wanted = filter.value.trim().toLowerCase();
    const machine = filter.closest(".machine");
    for (const row of all("tbody tr", machine)) {
      row.hidden = !row.textContent.toLowerCase().includes(wanted);
    }
    for (const section of all("main > details", machine)) {
      section.open = wanted !== "" && all("tbody tr:not([hidden])", section).length > 0;
    }
  });
}

const tabs = all("[role=tab]");
function choose(tab) {
  for (const one of tabs) {
    one.setAttribute("aria-selected", one === tab);
    one.tabIndex = one === tab ? 0 : -1;
    document.getElementById(one.getAttribute("aria-controls")).hidden = one !== tab;
  }
}
tabs.forEach((tab, place) => {
  tab.addEventListener("click", () => choose(tab));
  tab.addEventListener("keydown", ({key}) => {
    const step = {ArrowRight: 1, ArrowLeft: -1}[key];
    if (!step) return;
    const next = tabs[(place + step + tabs.length) % tabs.length];
    choose(next);
    next.focus();
  });
});

// A link into a folded section, or one of another machine, shows it.
function unfold() {
  const target = document.getElementById(location.hash.slice(1));
  const tab = tabs.find((one) => one.getAttribute("aria-controls") === target?.closest(".machine")?.id);
  if (tab && tab.getAttribute("aria-selected") !== "true") {
    choose(tab);
    setTimeout(() => target.scrollIntoView());
  }
  if (target?.tagName === "DETAILS") target.open = true;
}
addEventListener("hashchange", unfold);
for (const link of all("a[href^='#']")) link.addEventListener("click", () => setTimeout(unfold));
unfold();

addEventListener("beforeprint", () => { for (const one of all("details.print")) one.open = true; });

const tip = document.getElementById("tip");
function show({target}) {
  const text = target.closest?.(".mark[aria-label]")?.getAttribute("aria-label");
  tip.hidden = !text;
  if (!text) return;
  tip.textContent = text;
  const box = target.getBoundingClientRect();
  tip.style.left = `${Math.max(4, Math.min(box.left + 12, innerWidth - tip.offsetWidth - 4))}px`;
  tip.style.top = `${Math.max(4, box.top - tip.offsetHeight - 6)}px`;
}
for (const event of ["pointerover", "focusin", "focusout"]) addEventListener(event, show);

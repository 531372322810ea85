// The table sorts and filters, cards fold, maps say their values. What is sorted and filtered stands in the address
// after "#?", so that a link or a reload shows the same.
"use strict";

const table = document.querySelector("#table .sortable");
const heads = [...table.tHead.rows[0].cells];
const rows = [...table.tBodies[0].rows];
const cards = [...document.querySelectorAll(".card")];
const title = (head) => head.textContent.replace(/\s+[↓↑]?$/, "");
const made = (tag, properties, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};

// The form: a search field, and a list for each column of words with several values.

const form = made("form", {className: "filters", role: "search", ariaLabel: "Filter the rows"},
  made("label", {}, "any cell ", made("input", {type: "search", name: "find", autocomplete: "off"})));
heads.forEach((head, column) => {
  const values = [...new Set(rows.map((row) => row.cells[column].dataset.value).filter(Boolean))];
  if (!head.classList.contains("words") || title(head) === "problem" || values.length < 2) return;
  const select = made("select", {name: title(head)}, made("option", {value: "", textContent: "all"}),
    ...values.map((value) => made("option", {value, textContent: value})));
  select.dataset.column = column;
  form.append(made("label", {}, `${title(head)} `, select));
});
form.append(made("button", {type: "reset", textContent: "all rows"}),
  made("output", {ariaLive: "polite", textContent: `${rows.length} of ${rows.length} rows`}));
table.parentNode.before(form);

// Sorting: by the cells' data-value; missing values stay last, a second click turns the order round.

function compare(a, b) {
  const x = Number(a), y = Number(b);
  return Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b) : x - y;
}

function sort(head, direction) {
  const sign = direction === "ascending" ? 1 : -1, body = head.closest("table").tBodies[0];
  const value = (row) => row.cells[head.cellIndex].dataset.value;
  const sorted = [...body.rows].sort((a, b) => {
    const x = value(a), y = value(b);
    if (x === "" || y === "") return (x === "") - (y === "");
    return sign * compare(x, y);
  });
  for (const each of head.parentNode.cells) each.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", direction);
  body.append(...sorted);
}

function press(head) {
  const first = head.dataset.better === "higher" ? "descending" : "ascending";
  const other = first === "ascending" ? "descending" : "ascending";
  sort(head, head.getAttribute("aria-sort") === first ? other : first);
  remember();
}

// Filtering: rows with every word in some cell and the chosen values; the rest of the page shows what they show.

function filter() {
  const words = form.elements.find.value.toLowerCase().split(/\s+/).filter(Boolean);
  const chosen = [...form.querySelectorAll("select")].filter((select) => select.value !== "");
  const fits = (row) => {
    const text = [...row.cells].map((cell) => cell.textContent).join(" ").toLowerCase();
    return words.every((word) => text.includes(word))
      && chosen.every((select) => row.cells[select.dataset.column].dataset.value === select.value);
  };
  const shown = new Set(rows.filter(fits).map((row) => row.dataset.rows));
  for (const each of document.querySelectorAll("[data-rows]"))
    each.toggleAttribute("hidden", !each.dataset.rows.split(" ").some((number) => shown.has(number)));
  form.querySelector("output").textContent = `${shown.size} of ${rows.length} rows`;
  const left = cards.filter((card) => card.querySelector(".plan:not([hidden])"));
  if (left.length === 1) left[0].open = true;
}

// The address.

function remember() {
  const state = new URLSearchParams([...new FormData(form)].filter(([, value]) => value !== ""));
  const sorted = heads.find((head) => head.hasAttribute("aria-sort"));
  if (sorted) state.set(sorted.getAttribute("aria-sort"), title(sorted));
  const text = state.toString();
  history.replaceState(null, "", text === "" ? "#" : `#?${text}`);
}

function recall() {
  if (!location.hash.startsWith("#?")) return;
  const state = new URLSearchParams(location.hash.slice(2));
  for (const field of form.querySelectorAll("input, select")) field.value = state.get(field.name) ?? "";
  for (const direction of ["ascending", "descending"]) {
    const head = heads.find((each) => title(each) === state.get(direction));
    if (head) sort(head, direction);
  }
  filter();
}

for (const head of document.querySelectorAll(".sortable thead th")) {
  const button = made("button", {type: "button"}, ...head.childNodes);
  button.addEventListener("click", () => press(head));
  head.append(button);
}
form.addEventListener("input", () => { filter(); remember(); });
form.addEventListener("reset", () => setTimeout(() => { filter(); remember(); }));  // after the fields are empty
form.addEventListener("submit", (event) => event.preventDefault());
window.addEventListener("hashchange", recall);
recall();

// Cards.

const fold = document.querySelector(".fold");
fold.hidden = cards.length < 2;
fold.addEventListener("click", () => {
  const open = cards.some((card) => !card.open);
  for (const card of cards) card.open = open;
});

// Motion, paper, links: animations pause, a print shows every card, and a link keeps what the address remembers.

const pause = document.querySelector(".pause");
if (pause) pause.hidden = false;
pause?.addEventListener("click", () => {
  const paused = pause.getAttribute("aria-pressed") !== "true";
  pause.setAttribute("aria-pressed", paused);
  for (const still of document.querySelectorAll(".still")) still.media = paused ? "all" : "(prefers-reduced-motion: reduce)";
});
window.addEventListener("beforeprint", () => { for (const each of document.querySelectorAll("details")) each.open = true; });
for (const link of document.querySelectorAll("nav a")) link.addEventListener("click", (event) => {
  event.preventDefault();
  document.querySelector(link.getAttribute("href")).scrollIntoView();
});

// Maps: the value under the pointer, in place of the caption.

for (const map of document.querySelectorAll(".map")) {
  const caption = map.closest("figure").querySelector("figcaption"), text = caption.textContent;
  map.addEventListener("pointermove", (event) => {
    const values = map.dataset.values.split(";").map((row) => row.split(" "));
    const box = map.getBoundingClientRect();
    const row = Math.floor((event.clientY - box.top) / box.height * values.length);
    const column = Math.floor((event.clientX - box.left) / box.width * values[0].length);
    const value = values[row]?.[column];
    caption.textContent = value === undefined ? text : `${map.dataset.what.replace("{}", value)} at ${row}, ${column}`;
  });
  map.addEventListener("pointerleave", () => { caption.textContent = text; });
}

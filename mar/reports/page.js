// The table sorts and filters, cards fold, marks and maps say their values. The address keeps what is sorted and filtered
// after the anchor, "#table?network=lstm", so that a link or a reload shows the same.
"use strict";

const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const table = document.querySelector("#table .sortable");
const heads = [...table.tHead.rows[0].cells];
const rows = [...table.tBodies[0].rows];
const title = (head) => head.querySelector("button").textContent.replace(/\s+[↓↑]?$/, "");
const made = (tag, properties, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};
const numbers = (element) => element.dataset.rows.split(" ");

for (const head of all(".sortable thead th")) {
  const button = made("button", {type: "button"}, ...head.childNodes);
  button.addEventListener("click", () => press(head));
  head.append(button);
}

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
document.querySelector("#table h2").after(form);
const none = made("p", {className: "none", hidden: true, textContent: "No row fits the filter."});
table.after(none);

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
  const chosen = all("select", form).filter((select) => select.value !== "");
  const fits = (row) => {
    const text = [...row.cells].map((cell) => cell.textContent).join(" ").toLowerCase();
    return words.every((word) => text.includes(word))
      && chosen.every((select) => row.cells[select.dataset.column].dataset.value === select.value);
  };
  const kept = rows.filter(fits), shown = new Set(kept.flatMap(numbers));
  for (const each of all("[data-rows]"))
    each.toggleAttribute("hidden", each.dataset.rows !== "all" && !numbers(each).some((number) => shown.has(number)));
  const parts = all(".card, .figure, main > section:not(#table)").filter((part) => part.querySelector("[data-rows]"));
  for (const part of parts) part.hidden = !part.querySelector('[data-rows]:not([hidden], [data-rows="all"])');
  document.documentElement.classList.toggle("filtered", kept.length < rows.length);
  none.hidden = kept.length > 0;
  form.querySelector("output").textContent = `${kept.length} of ${rows.length} rows`;
  const left = all(".card:not([hidden])");
  if (left.length === 1) left[0].open = true;
}

// The address.

const anchor = () => location.hash.slice(1).split("?")[0];

function remember(place = anchor()) {
  const state = new URLSearchParams([...new FormData(form)].filter(([, value]) => value !== ""));
  const sorted = heads.find((head) => head.hasAttribute("aria-sort"));
  if (sorted) state.set(sorted.getAttribute("aria-sort"), title(sorted));
  const text = state.toString();
  history.replaceState(null, "", `#${place}${text && `?${text}`}`);
}

function recall() {
  const state = new URLSearchParams(location.hash.split("?")[1]);
  for (const field of all("input, select", form)) field.value = state.get(field.name) ?? "";
  for (const direction of ["ascending", "descending"]) {
    const head = heads.find((each) => title(each) === state.get(direction));
    if (head) sort(head, direction);
  }
  filter();
  show(anchor());
}

function show(name) {
  const place = name && document.getElementById(name);
  if (!place) return;
  place.closest("details")?.setAttribute("open", "");
  place.scrollIntoView();
}

form.addEventListener("input", () => { filter(); remember(); });
form.addEventListener("reset", () => setTimeout(() => { filter(); remember(); }));  // after the fields are empty
form.addEventListener("submit", (event) => event.preventDefault());
window.addEventListener("hashchange", recall);
for (const link of all('a[href^="#"]')) link.addEventListener("click", (event) => {
  event.preventDefault();
  remember(link.getAttribute("href").slice(1));
  show(anchor());
});
recall();

// Cards, paper, the command.

const fold = document.querySelector(".fold");
fold.hidden = all(".card").length < 2;
fold.addEventListener("click", () => {
  const open = all(".card").some((card) => !card.open);
  for (const card of all(".card")) card.open = open;
});

const closed = new Set();
window.addEventListener("beforeprint", () => {
  for (const each of all("details:not([open])")) {
    closed.add(each);
    each.open = true;
  }
});
window.addEventListener("afterprint", () => {
  for (const each of closed) each.open = false;
  closed.clear();
});

for (const command of all(".command")) {
  const copy = made("button", {type: "button", className: "copy", textContent: "copy the command"});
  copy.addEventListener("click", async () => {
    getSelection().selectAllChildren(command);
    await navigator.clipboard?.writeText(command.textContent);
    copy.textContent = "copied";
  });
  command.after(copy);
}

// Marks and maps: their values under the pointer, at a touch, and of a map by arrow keys.

for (const point of all(".point")) for (const kind of ["pointerenter", "click"]) point.addEventListener(kind, () => {
  point.closest("section").querySelector(".said").textContent = point.querySelector("title").textContent;
});

for (const map of all(".map")) {
  const caption = map.closest("figure").querySelector("figcaption"), text = caption.textContent;
  const values = map.dataset.values.split(";").map((row) => row.split(" "));
  let at = [0, 0];
  const say = (row, column) => {
    const value = values[row]?.[column];
    if (value !== undefined) at = [row, column];
    caption.textContent = value === undefined ? text : `${map.dataset.what.replace("{}", value)} at ${row}, ${column}`;
  };
  map.addEventListener("pointermove", (event) => {
    const box = map.getBoundingClientRect();
    say(Math.floor((event.clientY - box.top) / box.height * values.length),
      Math.floor((event.clientX - box.left) / box.width * values[0].length));
  });
  map.setAttribute("tabindex", "0");
  map.addEventListener("keydown", (event) => {
    const step = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]}[event.key];
    if (!step || values[at[0] + step[0]]?.[at[1] + step[1]] === undefined) return;
    event.preventDefault();
    say(at[0] + step[0], at[1] + step[1]);
  });
  for (const kind of ["pointerleave", "blur"]) map.addEventListener(kind, () => { caption.textContent = text; });
}

// Sorting of the table: by the cells' data-value; missing values stay last, a second click turns the order round.
"use strict";

const table = document.querySelector(".sortable");
const heads = [...table.tHead.rows[0].cells];

function compare(a, b) {
  const x = Number(a), y = Number(b);
  return Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b) : x - y;
}

function sort(column) {
  const head = heads[column];
  const first = head.dataset.better === "higher" ? "descending" : "ascending";
  const other = first === "ascending" ? "descending" : "ascending";
  const direction = head.getAttribute("aria-sort") === first ? other : first;
  const sign = direction === "ascending" ? 1 : -1;
  const value = (row) => row.cells[column].dataset.value;
  const rows = [...table.tBodies[0].rows].sort((a, b) => {
    const x = value(a), y = value(b);
    if (x === "" || y === "") return (x === "") - (y === "");
    return sign * compare(x, y);
  });
  for (const each of heads) each.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", direction);
  table.tBodies[0].append(...rows);
}

heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => sort(column)));

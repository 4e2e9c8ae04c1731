// Sorts tables by a click on a header, and shows the values of the point under the mouse or finger. It reads the text of the
// page and nothing else; without it, and printed, the page is complete.
"use strict";

const NUMBER = /^[-−]?[\d,]*\.?\d+(?=$|[\s%*])/; // "1,234", "0.812 *", "0.7 to 0.9", "12 %"
const MISSING = new Set(["", "–"]);
const collator = new Intl.Collator(undefined, { numeric: true });

function toNumber(text) {
  return Number(text.match(NUMBER)[0].replace("−", "-").replaceAll(",", ""));
}

function compareCells(texts) {
  const numeric = texts.every((text) => MISSING.has(text) || NUMBER.test(text));
  return numeric ? (one, other) => toNumber(one) - toNumber(other) : collator.compare;
}

// Ascending, descending, and then as they came. Cells without a value stay last.
function sortRows(table, column, direction) {
  const rows = table.originalRows.map((row) => ({ row, text: row.cells[column].innerText.trim() }));
  const compare = compareCells(rows.map(({ text }) => text));
  if (direction !== "none") {
    const sign = direction === "ascending" ? 1 : -1;
    rows.sort((one, other) => {
      const missing = MISSING.has(one.text) - MISSING.has(other.text);
      return missing || MISSING.has(one.text) ? missing : sign * compare(one.text, other.text);
    });
  }
  table.tBodies[0].append(...rows.map(({ row }) => row));
}

function makeSortable(table) {
  table.originalRows = [...table.tBodies[0].rows];
  const headers = [...table.tHead.rows[0].cells];
  headers.forEach((header, column) => {
    const button = document.createElement("button");
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => {
      const next = { ascending: "descending", descending: "none" }[header.ariaSort] ?? "ascending";
      headers.forEach((other) => other.removeAttribute("aria-sort"));
      if (next !== "none") header.setAttribute("aria-sort", next);
      sortRows(table, column, next);
    });
  });
}

const value = document.createElement("div");
value.className = "value";
value.setAttribute("role", "status");
value.hidden = true;

function showValue(event) {
  const point = event.target.closest?.("svg [data-value], svg :has(> title)");
  value.hidden = !point;
  if (!point) return;
  const title = point.querySelector("title");
  if (title) { // browsers would show it as well, a second later
    point.dataset.value = title.textContent;
    title.remove();
  }
  value.textContent = point.dataset.value;
  const box = value.getBoundingClientRect();
  const left = Math.min(event.clientX + 12, document.documentElement.clientWidth - box.width - 4);
  value.style.left = `${Math.max(4, left)}px`;
  value.style.top = `${event.clientY > box.height + 20 ? event.clientY - box.height - 12 : event.clientY + 20}px`;
}

document.body.append(value);
for (const table of document.querySelectorAll("table")) {
  if (table.tHead?.rows.length === 1 && table.tBodies[0]?.rows.length > 2) makeSortable(table);
}
document.addEventListener("pointerover", showValue);
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") value.hidden = true;
});

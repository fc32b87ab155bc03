// Glue of the cohort's page: sort and filter the table of slides, copy text. Without it the page shows everything.
"use strict";

const MISSING = "—";
const body = document.querySelector("#slide-table tbody");

function makeSortable() {
  const heads = [...document.querySelectorAll("#slide-table thead th")];
  const compare = new Intl.Collator("en", { numeric: true }).compare;
  heads.forEach((head, column) => {
    if (!("sort" in head.dataset)) return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const falling = head.getAttribute("aria-sort") === "ascending";
      const text = row => row.cells[column].textContent.trim();
      const order = (a, b) => head.classList.contains("number") ? parseFloat(text(a)) - parseFloat(text(b)) : compare(text(a), text(b));
      const rows = [...body.rows], isGap = row => text(row).startsWith(MISSING), gaps = rows.filter(isGap);
      const full = rows.filter(row => !isGap(row)).sort((a, b) => (falling ? -1 : 1) * order(a, b));
      body.append(...full, ...gaps);
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", falling ? "descending" : "ascending");
    });
  });
}

function makeFilterable() {
  const [form, words, split, count] = ["filter", "words", "split", "count"].map(id => document.getElementById(`slide-${id}`));
  const rows = [...body.rows].map(row => {
    const [name, group, verdict] = [1, 2, 3].map(column => row.cells[column].textContent.trim());
    return { row, group, text: [name, group, verdict].join(" ").toLowerCase() };
  });
  const show = () => {
    const wanted = words.value.toLowerCase().split(/\s+/);
    const fits = ({ group, text }) => (!split.value || group === split.value) && wanted.every(word => text.includes(word));
    let shown = 0;
    for (const entry of rows) shown += !(entry.row.hidden = !fits(entry));
    count.textContent = `${shown} of ${rows.length} shown`;
  };
  form.addEventListener("input", show);
  form.addEventListener("submit", event => event.preventDefault());
  form.hidden = false;
  show();
}

function makeCopyable(button) {
  const source = document.getElementById(button.dataset.copy), said = button.nextElementSibling;
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(source.innerText.trim());
      said.textContent = "Copied.";
    } catch { // no clipboard on a page from disk, or not allowed
      getSelection().selectAllChildren(source);
      said.textContent = "Selected: copy it with Ctrl+C (⌘C on a Mac).";
    }
  });
  button.hidden = false;
}

makeSortable();
makeFilterable();
document.querySelectorAll("button[data-copy]").forEach(makeCopyable);

// Sorts a table by the column whose heading is pressed; without scripts it stays in the order it was written in.
for (const head of document.querySelectorAll("table.sortable thead th")) {
  const button = document.createElement("button");
  button.append(...head.childNodes);
  head.append(button);
  button.addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === "descending", column = [...head.parentNode.children].indexOf(head);
    for (const other of head.parentNode.children) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "ascending" : "descending");
    const body = head.closest("table").tBodies[0], key = (row) => row.children[column].dataset.value ?? row.children[column].textContent.trim();
    const unknown = (value) => value === "" || value === "–";
    const rows = [...body.rows].sort((one, other) => {
      const a = key(one), b = key(other);
      if (unknown(a) || unknown(b)) return unknown(a) - unknown(b);
      const order = isNaN(a) || isNaN(b) ? String(a).localeCompare(b) : a - b;
      return down ? order : -order;
    });
    body.append(...rows);
  });
}

"use strict";
// Tables: a click on a column's title sorts; what has no order stays last.
document.querySelectorAll("table.sortable").forEach((table) => {
  const heads = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const numeric = head.classList.contains("number");
      const before = head.getAttribute("aria-sort");
      const first = numeric ? "descending" : "ascending";
      const other = numeric ? "ascending" : "descending";
      const chosen = before === first ? other : first;
      heads.forEach((each) => each.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", chosen);
      const sign = chosen === "ascending" ? 1 : -1;
      const order = (row) => row.cells[column].dataset.order;
      const rows = [...body.rows];
      rows.sort((one, two) => {
        const a = order(one), b = order(two);
        if (a === undefined || b === undefined) return (a === undefined) - (b === undefined);
        if (numeric) return sign * (Number(a) - Number(b));
        return sign * a.localeCompare(b, undefined, { numeric: true, sensitivity: "base" });
      });
      body.append(...rows);
    });
  });
});

"use strict";
// Asks for the page again and puts what is new into this one, counts how old it is, and shows what a cell says.
(() => {
  const every = 5000;
  const patience = 8000;
  let since = performance.now();
  let busy = false;

  // As the server says it: the two largest units.
  const words = (seconds) => {
    const units = [[86400, "d", 3600, "h"], [3600, "h", 60, "m"], [60, "m", 1, "s"]];
    const [large, name, small, rest] = units.find(([unit]) => seconds >= unit) ?? [1, "s", 1, ""];
    const left = rest ? Math.floor((seconds % large) / small) : 0;
    return `${Math.floor(seconds / large)}${name}` + (left ? ` ${left}${rest}` : "");
  };

  const count = () => {
    const passed = Math.floor((performance.now() - since) / 1000);
    for (const age of document.querySelectorAll("[data-age]")) {
      const seconds = Number(age.dataset.age) + passed;
      age.querySelector("b").textContent = words(seconds);
      age.classList.toggle("stale", seconds > Number(age.dataset.limit));
    }
  };

  const renew = async () => {
    if (busy || document.hidden) return;
    busy = true;
    let main = null;
    try {
      const answer = await fetch("/", { cache: "no-store", signal: AbortSignal.timeout(patience) });
      const next = new DOMParser().parseFromString(await answer.text(), "text/html");
      main = next.querySelector("main");
      if (main) {
        const tables = (where) => where.querySelectorAll(".wide");
        const places = [...tables(document)].map((table) => [table.scrollLeft, table.scrollTop]);
        const focused = [...tables(document)].indexOf(document.activeElement);
        document.querySelector("main").replaceWith(main);
        document.title = next.title;
        tables(main).forEach((table, at) => table.scrollTo(...(places[at] ?? [0, 0])));
        tables(main)[focused]?.focus({ preventScroll: true });
        since = performance.now();
      }
    } catch {
      // It says so below.
    }
    document.getElementById("lost").hidden = main !== null;
    busy = false;
    count();
  };

  // What the cell says that is pointed at, and the name of its column.
  document.addEventListener("mouseover", (event) => {
    const cell = event.target.closest?.(".grid td[title]");
    document.querySelector(".grid th.at")?.classList.remove("at");
    if (!cell) return;
    document.getElementById("detail").textContent = cell.title;
    cell.closest("table").tHead.rows[0].cells[cell.cellIndex]?.classList.add("at");
  });
  document.addEventListener("visibilitychange", renew);
  setInterval(count, 1000);
  setInterval(renew, every);
})();

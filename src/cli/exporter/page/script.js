"use strict";
// Asks for the page again and puts what is new into this one, counts how old it is, and shows what a cell says.
(() => {
  const every = 5000;
  const everyWhileHidden = 60000;
  const patience = 8000;

  // One clock can be set, the other may stand still while the machine sleeps.
  const moment = () => [Date.now(), performance.now()];
  const passed = (since) => Math.max(...moment().map((time, clock) => time - since[clock]));

  // What was served, without what is counted here.
  const bare = (part) => {
    const copy = part.cloneNode(true);
    copy.querySelectorAll(".age").forEach((age) => age.remove());
    return copy.outerHTML;
  };

  let asked = moment();
  let since = asked;
  let title = document.title;
  let served = [...document.querySelector("main").children].map(bare);
  let busy = false;
  let lost = false;

  // As the server says it: the two largest units.
  const words = (seconds) => {
    const units = [[86400, "d", 3600, "h"], [3600, "h", 60, "m"], [60, "m", 1, "s"]];
    const [large, name, small, rest] = units.find(([unit]) => seconds >= unit) ?? [1, "s", 1, ""];
    const left = rest ? Math.floor((seconds % large) / small) : 0;
    return `${Math.floor(seconds / large)}${name}` + (left ? ` ${left}${rest}` : "");
  };

  const count = () => {
    // A page that is not seen is asked for less often, and not stale for that.
    const pause = document.hidden ? everyWhileHidden / 1000 : 0;
    for (const age of document.querySelectorAll("[data-age]")) {
      const seconds = Number(age.dataset.age) + Math.floor(passed(since) / 1000);
      age.querySelector("b").textContent = words(seconds);
      age.classList.toggle("stale", seconds > Number(age.dataset.limit) + pause);
    }
    // The title is all that is seen of a page in another tab.
    const mark = lost ? "no answer" : document.querySelector(".stale") ? "stale" : "";
    const called = title.startsWith(mark) ? title : `${mark} - ${title}`;
    if (document.title !== called) document.title = called;
  };

  // Only what says something else is replaced, so that what is being read or pointed at stays.
  const show = (next, main) => {
    const [parts, old] = [[...main.children], [...document.querySelector("main").children]];
    const said = parts.map(bare);
    if (parts.length !== old.length) {
      document.querySelector("main").replaceWith(main);
    } else {
      parts.forEach((part, at) => said[at] === served[at] ? renewAge(old[at], part) : replace(old[at], part));
    }
    const [trouble, told] = [next, document].map((where) => where.getElementById("trouble"));
    if (trouble.innerHTML !== told.innerHTML) told.replaceChildren(...trouble.childNodes);
    served = said;
    title = next.title;
  };

  const renewAge = (old, next) => {
    const age = next.querySelector(".age");
    if (age) old.querySelector(".age")?.replaceWith(age);
  };

  const replace = (old, next) => {
    const tables = (where) => [...where.querySelectorAll(".wide")];
    const stops = (where) => [...where.querySelectorAll("[tabindex], a")];
    const places = tables(old).map((table) => [table.scrollLeft, table.scrollTop]);
    const focused = stops(old).indexOf(document.activeElement);
    old.replaceWith(next);
    tables(next).forEach((table, at) => table.scrollTo(...(places[at] ?? [0, 0])));
    stops(next)[focused]?.focus({ preventScroll: true });
  };

  const renew = async () => {
    if (busy || (document.hidden && passed(asked) < everyWhileHidden)) return;
    busy = true;
    let answered = false;
    asked = moment();
    try {
      const answer = await fetch(location.href, { cache: "no-store", signal: AbortSignal.timeout(patience) });
      const next = new DOMParser().parseFromString(await answer.text(), "text/html");
      // A proxy may answer with a page that says something else.
      const main = next.querySelector("main[data-hostseal]");
      if (main && [200, 503].includes(answer.status)) {
        show(next, main);
        since = asked;
        answered = true;
      }
    } catch {
      // It says so below.
    }
    lost = !answered;
    document.getElementById("lost").hidden = answered;
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

// Fills the page and connects its controls, when all other scripts were read.
"use strict";

function fillControls() {
  const whole = rows.row.length === data.pool;
  const parts = data.states.filter((state) => state.pool).map((state) =>
    whole ? `${formatNumber(state.pool)} ${state.name}`
      : `${formatNumber(state.shown)} of ${formatNumber(state.pool)} ${state.name}`);
  const extent = whole ? `All ${formatNumber(data.pool)} rows of the pool`
    : `A fixed random sample of ${formatNumber(rows.row.length)} of the pool's ${formatNumber(data.pool)} rows, in which kept and suspect rows have a larger share than in the pool`;
  at("extent").textContent = `${extent}: ${parts.join("; ")}.`
    + (data.arm ? ` The selection is that of the arm “${data.arm}”.` : " Nothing was selected yet.");
  const named = data.sources.map((name, source) => [String(source), name]);
  fillSelect(at("source"), [["", "all"], ...named]);
  fillSelect(at("group"), [["", "all"],
    ...data.groups.map((group) => [String(group.group), `${nameGroup(group)} (${group.rows})`])]);
  at("states").replaceChildren(...[...data.states.entries()]
    .filter(([, state]) => state.shown)
    .map(([number, state]) => {
      const text = `${state.name} (${formatNumber(state.shown)})`;
      const button = make("button", { type: "button", "data-state": number, "aria-pressed": "true" }, makeDot(state.colour), text);
      button.addEventListener("click", () => {
        if (!filters.states.delete(number)) filters.states.add(number);
        applyFilters();
      });
      return button;
    }));
  const axes = [];
  for (let first = 0; first + 1 < data.shares.length; first += 1) {
    axes.push([`${first},${first + 1}`, `components ${first + 1} and ${first + 2}`]);
  }
  fillSelect(at("axes"), axes);
  const variance = formatShare(data.shares[0] + data.shares[1]);
  at("mapnote").textContent = map
    ? `Principal components of the seed model's embeddings; the first two show ${variance} of their variance, so rows that lie near each other here need not be alike. Drag with the lasso or the box to choose rows; the list then shows them only.`
    : "There is no map, since the scores hold no embeddings.";
  at("map").hidden = !map;
}

function fillClusters() {
  at("clusterlines").replaceChildren(...data.groups.map((group) => {
    const button = make("button", { type: "button", text: group.label });
    button.addEventListener("click", () => {
      filters.group = group.group;
      at("group").value = String(group.group);
      applyFilters();
      showView("rows");
    });
    const numbers = [group.rows, group.kept, group.suspects];
    return make("tr", {}, make("td", {}, button), make("td", { text: group.words.join(" ") }),
      ...numbers.map((value) => make("td", { class: "n", text: formatNumber(value) })));
  }));
}

function connect() {
  const number = (text) => (text === "" ? null : Number(text));
  for (const id of ["source", "group", "low", "high"]) {
    at(id).addEventListener("change", () => {
      filters[id] = number(at(id).value);
      applyFilters();
    });
  }
  let waiting = 0;
  at("search").addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      filters.search = at("search").value;
      applyFilters();
    }, 150);
  });
  at("sort").addEventListener("change", restart);
  for (const id of ["colour", "axes"]) at(id).addEventListener("change", () => {
    drawMap();
    if (chosen !== null) {
      chosen = null;
      restart();
    }
  });
  at("reset").addEventListener("click", () => {
    Object.assign(filters, { search: "", states: everyState(), source: null, group: null, low: null, high: null });
    for (const id of ["search", "source", "group", "low", "high"]) at(id).value = "";
    applyFilters();
  });
  at("more").addEventListener("click", () => { shown += PAGE; showCards(); });
  at("unlasso").addEventListener("click", () => { map.clear(); chosen = null; restart(); });
  at("allkeep").addEventListener("click", () => add("keep", listed));
  at("allleave").addEventListener("click", () => add("leave", listed));
  document.querySelectorAll("[data-view]").forEach((tab) => {
    tab.addEventListener("click", () => showView(tab.dataset.view));
  });
  document.addEventListener("keydown", press);
  document.addEventListener("click", (event) => {
    if (event.target.dataset?.zoom !== undefined) zoom.open(event.target.src, event.target.alt);
  });
  for (const name of Object.keys(lists)) {
    const part = document.querySelector(`[data-list="${name}"]`);
    const area = part.querySelector("textarea");
    const say = (text) => { part.querySelector(".done").textContent = text; };
    part.querySelector(".copy").addEventListener("click", async () => {
      say((await copyArea(area)) ? "Copied." : "The browser does not allow to copy; select the text by hand.");
    });
    part.querySelector(".save").addEventListener("click", () => saveFile(FILES[name], area.value));
    part.querySelector(".clear").addEventListener("click", () => {
      lists[name].clear();
      changed();
      showCards();
    });
  }
}

const zoom = makeZoom();
const audit = makeAudit({ data, groups, marks, changed, add });
const map = makeMap(at("map"), data, (places) => {
  chosen = places.length ? new Set(places) : null;
  if (view !== "rows") showView("rows");
  restart();
});
recall();
fillControls();
fillClusters();
connect();
changed();
applyFilters();

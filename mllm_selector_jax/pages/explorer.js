// The explorer: connects filters, map, cards, clusters, audit and lists.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const { rows } = data;
const groups = new Map(data.groups.map((group) => [group.group, group]));
const at = (id) => document.getElementById(id);
const PAGE = 24; // cards that are added at a time
const marks = new Map(); // of the audit, by row number
const lists = { keep: new Set(), leave: new Set() }; // of places
const FILES = { keep: "force_in.txt", leave: "leave_out.txt" };
const storage = `explorer ${data.key}`;
const everyState = () => new Set(data.states.keys());
const filters = {
  search: "", states: everyState(), source: null, group: null, low: null, high: null,
};
let view = "rows";
let chosen = null; // places chosen on the map
let found = []; // places that pass the filters
let listed = []; // of them, those shown as cards, in their order
let shown = PAGE;
let current = -1; // index in `listed`

// Marks and lists survive that the page is closed, if the browser stores anything.
function remember() {
  const kept = Object.fromEntries(
    Object.entries(lists).map(([name, set]) => [name, [...set].map((p) => rows.row[p])]),
  );
  try {
    localStorage.setItem(storage, JSON.stringify({ marks: [...marks], ...kept }));
  } catch { /* The browser stores nothing for this page. */ }
}

function recall() {
  let stored = {};
  try {
    stored = JSON.parse(localStorage.getItem(storage) ?? "{}");
  } catch { /* As above. */ }
  const places = new Map(rows.row.map((row, place) => [row, place]));
  for (const [row, mark] of stored.marks ?? []) if (places.has(row)) marks.set(row, mark);
  for (const name of Object.keys(lists)) {
    for (const row of stored[name] ?? []) if (places.has(row)) lists[name].add(places.get(row));
  }
}

function isUsable(place) {
  return data.states[rows.state[place]].name !== "set aside";
}

// Puts rows on a list and takes them off the other one.
function add(name, places) {
  const other = name === "keep" ? "leave" : "keep";
  for (const place of places.filter(isUsable)) {
    lists[name].add(place);
    lists[other].delete(place);
  }
  changed();
  showCards();
}

function toggle(name, place) {
  if (!lists[name].has(place)) return add(name, [place]);
  lists[name].delete(place);
  changed();
  showCards();
}

function changed() {
  remember();
  at("listed").textContent = lists.keep.size + lists.leave.size || "";
  for (const name of Object.keys(lists)) {
    const part = document.querySelector(`[data-list="${name}"]`);
    const places = [...lists[name]].sort((a, b) => rows.row[a] - rows.row[b]);
    part.querySelector(".count").textContent = formatNumber(places.length);
    part.querySelector("textarea").value = places.length ? formatList(rows, places) : "";
    part.querySelectorAll("button").forEach((button) => { button.disabled = !places.length; });
  }
}

function showCards() {
  const places = chosen === null ? found : found.filter((place) => chosen.has(place));
  listed = sortRows(rows, places, at("sort").value);
  const cards = listed.slice(0, shown).map((place, index) => {
    const card = makeCard(data, groups, place);
    if (index === current) card.classList.add("current");
    if (isUsable(place)) {
      const pick = make("div", { class: "pick" });
      for (const [name, text] of [["keep", "keep"], ["leave", "leave out"]]) {
        const pressed = String(lists[name].has(place));
        const button = make("button", { type: "button", text, "aria-pressed": pressed });
        button.addEventListener("click", () => toggle(name, place));
        pick.append(button);
      }
      card.append(pick);
    }
    return card;
  });
  at("cards").replaceChildren(...cards);
  at("more").hidden = listed.length <= shown;
  at("unlasso").hidden = chosen === null;
  const where = chosen === null ? "" : " chosen on the map";
  at("found").textContent = `${formatNumber(listed.length)} of ${formatNumber(rows.row.length)} rows${where}`;
}

function restart() {
  shown = PAGE;
  current = -1;
  showCards();
}

function drawMap() {
  const { colours, legend } = colourRows(data, at("colour").value);
  const entries = (legend ?? []).map(({ name, colour }) => make("span", {}, makeDot(colour), name));
  if (!legend) {
    const bar = make("span", { class: "gradient" });
    bar.style.background = `linear-gradient(90deg, ${SCALE.join(", ")})`;
    entries.push(make("span", {}, "0 ", bar, " 1: needed most"));
  }
  at("legend").replaceChildren(...entries);
  if (map) map.draw(found, colours, at("axes").value.split(",").map(Number));
}

function applyFilters() {
  chosen = null;
  found = filterRows(rows, filters);
  drawMap();
  restart();
  document.querySelectorAll("#states button").forEach((button) => {
    button.setAttribute("aria-pressed", String(filters.states.has(Number(button.dataset.state))));
  });
}

function showView(name) {
  view = name;
  document.querySelectorAll(".view").forEach((part) => { part.hidden = part.id !== name; });
  document.querySelectorAll("[data-view]").forEach((tab) => {
    tab.setAttribute("aria-selected", String(tab.dataset.view === name));
  });
  if (name === "audit") audit.show();
}

function move(step) {
  current = Math.min(listed.length - 1, Math.max(0, current + step));
  while (current >= shown) shown += PAGE;
  showCards();
  const card = at("cards").children[current];
  if (card) {
    card.focus({ preventScroll: true });
    card.scrollIntoView({ block: "nearest" });
  }
}

function zoomCurrent() {
  const card = view === "audit" ? at("auditcard") : at("cards").children[Math.max(0, current)];
  const image = card?.querySelector("img");
  if (image) zoom.open(image.src, image.alt);
}

function press(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || zoom.isOpen()) return;
  if (event.key === "Escape") document.activeElement?.blur();
  if (event.target.closest?.("input, select, textarea")) return;
  if (event.key === "z") zoomCurrent();
  if (view === "audit") audit.press(event.key);
  if (event.key === "/") {
    event.preventDefault();
    at("search").focus();
  }
  if (view !== "rows") return;
  if (event.key === "j") move(1);
  if (event.key === "k") move(-1);
  const place = listed[current];
  if (event.key === "i" && place !== undefined && isUsable(place)) toggle("keep", place);
  if (event.key === "o" && place !== undefined && isUsable(place)) toggle("leave", place);
}

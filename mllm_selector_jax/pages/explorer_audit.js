// The audit: rows of a set are marked in a random order, and their precision is shown.
"use strict";

// Makes the audit. `tools` has data, groups, marks, changed (called when marks or lists
// changed), and add (called with the name of a list and places).
function makeAudit(tools) {
  const { data, groups, marks } = tools;
  const { rows } = data;
  const at = (id) => document.getElementById(id);
  const names = ["suspect", "kept, but doubtful", "kept"];
  const sets = new Map();
  for (const name of names) {
    const state = data.states.findIndex((entry) => entry.name === name);
    const places = [...rows.row.keys()].filter((place) => rows.state[place] === state);
    if (places.length) sets.set(name, sortRows(rows, places, "random"));
  }
  fillSelect(at("auditset"), [...sets].map(([name, all]) => [name, `${name} (${all.length})`]));
  const history = [];
  const places = () => sets.get(at("auditset").value) ?? [];
  let current = null;

  const next = () => places().find((place) => !marks.has(rows.row[place])) ?? null;
  const show = (place = next()) => {
    current = place;
    const name = at("auditset").value;
    const state = data.states.find((entry) => entry.name === name);
    at("precision").textContent = sets.size
      ? describePrecision(countMarks(rows, places(), marks), places().length, name === "suspect")
      : "There is nothing to check: no row was kept or left out as suspect.";
    at("auditnote").textContent = state
      ? `The rows come in a random order, so that the share and its interval hold for all ${formatNumber(state.pool)} such rows of the pool. Undecided rows do not count.`
      : "";
    const card = place === null ? make("p", { text: sets.size ? "All rows of this set are marked." : "" }) : makeCard(data, groups, place);
    at("auditcard").replaceChildren(card);
    at("auditback").disabled = !history.length;
    document.querySelectorAll("[data-mark]").forEach((button) => {
      button.disabled = place === null;
    });
  };
  const judge = (mark) => {
    if (current === null) return;
    marks.set(rows.row[current], mark);
    history.push(current);
    tools.changed();
    show();
  };
  const back = () => {
    const last = history.pop();
    if (last === undefined) return;
    marks.delete(rows.row[last]);
    tools.changed();
    show(last);
  };
  const marked = (mark) => places().filter((place) => marks.get(rows.row[place]) === mark);

  at("auditset").addEventListener("change", () => {
    history.length = 0;
    show();
  });
  document.querySelectorAll("[data-mark]").forEach((button) => {
    button.addEventListener("click", () => judge(button.dataset.mark));
  });
  at("auditback").addEventListener("click", back);
  at("auditright").addEventListener("click", () => tools.add("keep", marked("right")));
  at("auditwrong").addEventListener("click", () => tools.add("leave", marked("wrong")));
  at("savemarks").addEventListener("click", () => {
    const all = [...rows.row.keys()].filter((place) => marks.has(rows.row[place]));
    const read = { mark: (place) => marks.get(rows.row[place]) };
    saveFile("marks.txt", formatList(rows, all, read));
  });
  at("clearmarks").addEventListener("click", () => {
    for (const place of places()) marks.delete(rows.row[place]);
    history.length = 0;
    tools.changed();
    show();
  });
  const keys = { 1: "wrong", 2: "right", 3: "undecided" };
  return {
    show,
    press(key) {
      if (keys[key]) judge(keys[key]);
      if (key === "ArrowLeft") back();
    },
  };
}

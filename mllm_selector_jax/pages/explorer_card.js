// Makes the elements of the page. Texts of the pool become text nodes, never markup.
"use strict";

function make(tag, options = {}, ...children) {
  const { text, ...attributes } = options;
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) {
    element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

function makeDot(colour) {
  const dot = make("span", { class: "dot" });
  dot.style.background = colour;
  return dot;
}

function fillSelect(select, options) {
  select.replaceChildren(
    ...options.map(([value, text]) => make("option", { value, text })),
  );
}

function formatNumber(value) {
  return value.toLocaleString("en-US");
}

function nameGroup(group) {
  return group.words.length ? `${group.label}: ${group.words.join(" ")}` : group.label;
}

const CARD_KINDS = {
  "kept": "kept",
  "kept, but doubtful": "doubtful",
  "suspect": "suspect",
  "set aside": "aside",
};

// A row as a card; `groups` maps a cluster's number to its description.
function makeCard(data, groups, place) {
  const { rows } = data;
  const row = rows.row[place];
  const state = data.states[rows.state[place]].name;
  const card = make("article", {
    class: `sample ${CARD_KINDS[state] ?? ""}`,
    "data-place": place,
    tabindex: "-1",
  });
  const reason = data.reasons[rows.reason[place]];
  const head = make("div", {}, make("span", { class: "state", text: state }));
  if (reason && reason !== state) head.append(` · ${reason}`);
  card.append(head);
  const doubt = data.doubts[rows.doubt[place]];
  if (doubt) card.append(make("div", { class: "doubt", dir: "auto", text: `doubtful: ${doubt}` }));
  rows.pictures[place].forEach((picture, at) => {
    const alt = `image ${at + 1} of row ${row}; click to enlarge`;
    card.append(make("img", { src: data.pictures[picture], alt, "data-zoom": picture }));
  });
  const missing = rows.images[place] - rows.pictures[place].length;
  if (missing > 0) {
    const text = `${missing} image${missing > 1 ? "s" : ""} not in this page`;
    card.append(make("div", { class: "soft", text }));
  }
  const roles = { q: "question", a: "answer", r: "record" };
  for (const [who, text] of rows.turns[place]) {
    const turn = make("div", { class: `turn ${roles[who] ?? ""}`, dir: "auto" });
    turn.append(make("b", { text: roles[who] ?? who }), ` ${text}`);
    card.append(turn);
  }
  if (rows.more[place]) {
    card.append(make("div", { class: "soft", text: `and ${rows.more[place]} more rounds` }));
  }
  card.append(makeFacts(data, groups, place));
  return card;
}

function makeFacts(data, groups, place) {
  const { rows } = data;
  const facts = [["row", formatNumber(rows.row[place])]];
  if (rows.id[place]) facts.unshift(["id", rows.id[place]]);
  if (rows.source[place] >= 0) facts.push(["source", data.sources[rows.source[place]]]);
  const group = groups.get(rows.group[place]);
  if (group) facts.push(["cluster", nameGroup(group)]);
  const necessity = rows.necessity[place] ?? null;
  if (necessity !== null) facts.push(["necessity", necessity.toFixed(3)]);
  if (rows.rank[place] >= 0) facts.push(["rank", formatNumber(rows.rank[place] + 1)]);
  const list = make("dl");
  for (const [name, text] of facts) {
    list.append(make("dt", { text: name }), make("dd", { text }));
  }
  return list;
}

// Saves a text as a file, by the browser's own download.
function saveFile(name, text) {
  const url = URL.createObjectURL(new Blob([text], { type: "text/plain" }));
  const link = make("a", { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

// Copies the text of an area. The clipboard's own interface is missing on some pages
// that are opened as files.
async function copyArea(area) {
  try {
    await navigator.clipboard.writeText(area.value);
    return true;
  } catch {
    area.select();
    return document.execCommand("copy");
  }
}

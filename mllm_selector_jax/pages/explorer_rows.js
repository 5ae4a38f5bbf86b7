// Filters, orders, counts and writes rows. Nothing here touches the page.
"use strict";

const Z = 1.959963984540054; // of a 95 % interval
const LINE_BREAKS = /[\t\n\r"]/;

// Share of successes with Wilson's score interval (Wilson 1927).
function wilson(successes, count) {
  const share = successes / count;
  const shrink = 1 + (Z * Z) / count;
  const centre = (share + (Z * Z) / (2 * count)) / shrink;
  const spread = (share * (1 - share)) / count + (Z * Z) / (4 * count * count);
  const half = (Z * Math.sqrt(spread)) / shrink;
  const low = Math.min(share, Math.max(0, centre - half));
  return { share, low, high: Math.max(share, Math.min(1, centre + half)) };
}

// A cell of the `excel-tab` dialect of Python's csv module.
function formatCell(text) {
  return LINE_BREAKS.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

// A list of rows in the form that `select.force_in` and `select.leave_out` read.
function formatList(rows, places, more = {}) {
  const head = ["id", "row", "hash", ...Object.keys(more)].join("\t");
  const lines = places.map((place) =>
    [rows.id[place], String(rows.row[place]), rows.hash[place]]
      .concat(Object.values(more).map((read) => read(place)))
      .map(formatCell)
      .join("\t"),
  );
  return [head, ...lines, ""].join("\n");
}

// A number that orders rows at random, the same way every time.
function mixRow(row) {
  let mixed = Math.imul(row + 1, 0x9e3779b1);
  mixed = Math.imul(mixed ^ (mixed >>> 15), 0x85ebca6b);
  mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35);
  return (mixed ^ (mixed >>> 16)) >>> 0;
}

// The text of each row that is searched, made when it is first needed.
const searched = new Map();
function readSearched(rows, place) {
  if (!searched.has(place)) {
    const turns = rows.turns[place].map((turn) => turn[1]).join("\n");
    searched.set(place, `${rows.id[place]}\n${turns}`.toLowerCase());
  }
  return searched.get(place);
}

// Places of the rows that pass all filters, in the order of the page's data.
function filterRows(rows, filters) {
  const words = filters.search.toLowerCase().split(/\s+/).filter(Boolean);
  const bounded = filters.low !== null || filters.high !== null;
  return [...rows.row.keys()].filter((place) => {
    if (!filters.states.has(rows.state[place])) return false;
    if (filters.source !== null && rows.source[place] !== filters.source) return false;
    if (filters.group !== null && rows.group[place] !== filters.group) return false;
    if (bounded) {
      const necessity = rows.necessity[place] ?? null;
      if (necessity === null) return false;
      if (filters.low !== null && necessity < filters.low) return false;
      if (filters.high !== null && necessity > filters.high) return false;
    }
    return words.every((word) => readSearched(rows, place).includes(word));
  });
}

const ORDERS = {
  kept: (rows) => (place) => (rows.rank[place] < 0 ? Infinity : rows.rank[place]),
  pool: (rows) => (place) => rows.row[place],
  high: (rows) => (place) => -(rows.necessity[place] ?? -Infinity),
  low: (rows) => (place) => rows.necessity[place] ?? Infinity,
  random: (rows) => (place) => mixRow(rows.row[place]),
};

function sortRows(rows, places, name) {
  const key = ORDERS[name](rows);
  const order = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
  return [...places].sort(
    (a, b) => order(key(a), key(b)) || order(rows.row[a], rows.row[b]),
  );
}

// Counts the marks of some rows.
function countMarks(rows, places, marks) {
  const counts = { wrong: 0, right: 0, undecided: 0 };
  for (const place of places) {
    const mark = marks.get(rows.row[place]);
    if (mark) counts[mark] += 1;
  }
  return counts;
}

function formatShare(share) {
  return `${(100 * share).toFixed(1)} %`;
}

// Says what the marks show of a set of rows.
function describePrecision(counts, total, isSuspect) {
  const judged = counts.wrong + counts.right;
  const rest = `${judged + counts.undecided} of ${total} looked at`;
  const undecided = counts.undecided ? `, ${counts.undecided} undecided` : "";
  if (!judged) return `No row is marked yet (${rest}${undecided}).`;
  const found = wilson(counts.wrong, judged);
  const interval = `95 % interval ${formatShare(found.low)} to ${formatShare(found.high)}`;
  const name = isSuspect ? "Precision" : "Share of wrong answers";
  return `${name}: ${formatShare(found.share)} (${interval}): ${counts.wrong} wrong, ${counts.right} right; ${rest}${undecided}.`;
}

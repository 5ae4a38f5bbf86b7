// Draws the map: a scatter plot of the embeddings by BokehJS.
"use strict";

const SCALE = ["#00224e", "#35456c", "#666970", "#948e77", "#c8b866", "#fee838"];
const SOURCE_COLOURS = [
  "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#b8a800", "#000000",
];
const OTHERS = "#9aa5b1";

// A colour of the scale for a number between 0 and 1.
function scaleColour(value) {
  if (value === null || value === undefined) return "#d3d9df";
  const place = Math.min(0.9999, Math.max(0, value)) * (SCALE.length - 1);
  const [first, second] = [SCALE[Math.floor(place)], SCALE[Math.floor(place) + 1]];
  const share = place % 1;
  const parts = [1, 3, 5].map((at) => {
    const [a, b] = [first, second].map((c) => parseInt(c.slice(at, at + 2), 16));
    return Math.round(a + share * (b - a)).toString(16).padStart(2, "0");
  });
  return `#${parts.join("")}`;
}

// The colour of each row, and the entries of the legend.
function colourRows(data, kind) {
  const rows = data.rows;
  if (kind === "necessity") {
    return {
      colours: rows.row.map((_, place) => scaleColour(rows.necessity[place])),
      legend: null,
    };
  }
  if (kind === "state") {
    return {
      colours: rows.state.map((state) => data.states[state].colour),
      legend: data.states
        .filter((state) => state.shown && state.name !== "set aside")
        .map(({ name, colour }) => ({ name, colour })),
    };
  }
  const counts = new Map();
  for (const source of rows.source) counts.set(source, (counts.get(source) ?? 0) + 1);
  const known = [...counts.keys()].filter((source) => source >= 0);
  const largest = known.sort((a, b) => counts.get(b) - counts.get(a) || a - b);
  const shown = largest.slice(0, SOURCE_COLOURS.length);
  const colour = new Map(shown.map((source, at) => [source, SOURCE_COLOURS[at]]));
  const legend = shown.map((source, at) => ({
    name: data.sources[source],
    colour: SOURCE_COLOURS[at],
  }));
  if (counts.size > shown.length) legend.push({ name: "others", colour: OTHERS });
  return { colours: rows.source.map((s) => colour.get(s) ?? OTHERS), legend };
}

// Makes the map in an element.
//
// Returns null if there are no embeddings. `choose` is called with the places of the
// rows that were chosen by a click, a box or a lasso; with none when a choice ends.
function makeMap(element, data, choose) {
  const places = data.rows.places;
  if (!places) return null;
  const nothing = () => ({ x: [], y: [], colour: [], place: [], label: [] });
  const rest = new Bokeh.ColumnDataSource({ data: nothing() });
  const found = new Bokeh.ColumnDataSource({ data: nothing() });
  const narrow = window.matchMedia("(max-width: 900px)").matches;
  const plot = Bokeh.Plotting.figure({
    tools: "pan,box_zoom,wheel_zoom,lasso_select,box_select,tap,reset",
    sizing_mode: "stretch_both",
    background_fill_color: "#fff",
    border_fill_color: "#fff",
    outline_line_color: "#dde2e8",
    output_backend: "canvas",
  });
  plot.toolbar.logo = null;
  // On a touch screen, a drag over the map scrolls the page.
  plot.toolbar.active_drag = narrow ? null : "auto";
  const wheel = plot.toolbar.tools.find((tool) => tool.type === "WheelZoomTool");
  plot.toolbar.active_scroll = narrow ? null : wheel;
  plot.scatter({ field: "x" }, { field: "y" }, {
    source: rest, size: 4, fill_color: "#e4e7eb", line_color: null,
  });
  const size = places.length > 3000 ? 5 : 7;
  const dots = plot.scatter({ field: "x" }, { field: "y" }, {
    source: found, size, fill_color: { field: "colour" }, fill_alpha: 0.8,
    line_color: null, nonselection_fill_alpha: 0.15, selection_fill_alpha: 1,
  });
  plot.add_tools(
    new Bokeh.HoverTool({
      renderers: [dots],
      tooltips: [["", "@label"]],
    }),
  );
  let quiet = false;
  found.selected.properties.indices.change.connect(() => {
    if (!quiet) choose(found.selected.indices.map((at) => found.data.place[at]));
  });
  Bokeh.Plotting.show(plot, element);
  const label = (place) => {
    const turn = data.rows.turns[place][0];
    return `row ${data.rows.row[place]}: ${(turn ? turn[1] : "").slice(0, 80)}`;
  };
  // What there is less of is drawn above the rest.
  const above = (place) => data.states[data.rows.state[place]].shown;
  const gather = (wanted, colours, [first, second]) => {
    const columns = nothing();
    for (const place of [...wanted].sort((a, b) => above(b) - above(a))) {
      if (places[place][first] === null) continue;
      columns.x.push(places[place][first]);
      columns.y.push(places[place][second]);
      columns.colour.push(colours[place]);
      columns.place.push(place);
      columns.label.push(label(place));
    }
    return columns;
  };
  return {
    plot,
    // Shows some rows in their colours and all others in grey; ends any choice.
    draw(wanted, colours, axes) {
      const inside = new Set(wanted);
      const others = [...data.rows.row.keys()].filter((place) => !inside.has(place));
      quiet = true;
      found.selected.indices = [];
      rest.data = gather(others, colours, axes);
      found.data = gather(wanted, colours, axes);
      quiet = false;
      [plot.xaxis, plot.yaxis].forEach((axis, at) => {
        const share = data.shares[axes[at]];
        axis.axis_label = `component ${axes[at] + 1} (${formatShare(share)} of the variance)`;
      });
    },
    clear() {
      quiet = true;
      found.selected.indices = [];
      quiet = false;
    },
  };
}

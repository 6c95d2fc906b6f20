"use strict";
// Charts of the live page, drawn as SVG and on canvas; a chart keeps what it shows, and is drawn again when its width changes.
const SVG = "http://www.w3.org/2000/svg";

function set(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.filter((each) => each !== null && each !== undefined));
  return node;
}
const html = (name, attributes, ...children) => set(document.createElement(name), attributes, children);
const svg = (name, attributes, ...children) => set(document.createElementNS(SVG, name), attributes, children);
const known = (values) => values.filter((each) => each !== null && each !== undefined);

// A number in few digits; a dash where it is unknown.
function short(value, digits = 3) {
  if (value === null || value === undefined) return "–";
  const text = Math.abs(value) >= 1000 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(digits)));
  return text.replace("-", "−");
}
const worded = (value) => value === null || value === undefined ? "unknown" : short(value, 2);
const counted = (n, noun) => `${short(n)} ${noun}${n === 1 ? "" : "s"}`;
const percent = (value) => value === null || value === undefined ? "–" : `${short(Math.round(100 * value))} %`;

// Round positions between two numbers, about n of them.
function ticks(low, high, n) {
  const rough = (high - low) / Math.max(1, n), power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((each) => each * power).find((each) => each >= rough * 0.999);
  const found = [];
  for (let at = Math.ceil(low / step - 1e-9); at * step <= high + step * 1e-9; at++) found.push(Number((at * step).toPrecision(12)));
  return found;
}

// Lowest and highest of some numbers, a little apart; [0, 1] without any.
function range(values) {
  let low = Infinity, high = -Infinity;
  for (const each of values) if (each !== null && each !== undefined) { low = Math.min(low, each); high = Math.max(high, each); }
  if (low > high) return [0, 1];
  return low === high ? [low - 0.5, high + 0.5] : [low, high];
}

const CHARTS = new Map();  // what each place shows: its function and the content
function show(place, draw, content) {
  if (!CHARTS.has(place)) widths.observe(place);
  CHARTS.set(place, [draw, content]);
  draw(place, content);
}
const widths = new ResizeObserver((changes) => {
  for (const { target } of changes) {
    if (!target.isConnected) { widths.unobserve(target); CHARTS.delete(target); continue; }
    if (target.clientWidth && target.clientWidth !== target.drawnWidth) { const [draw, content] = CHARTS.get(target); draw(target, content); }
  }
});

// Axes with ticks and names; returns the drawing and the scales of both axes.
function frame(place, { xRange, yRange, xName, yName, height, format, label, whole }) {
  const wide = Math.max(220, place.clientWidth || 600), left = 58, right = 14, top = 8, bottom = 42;
  place.drawnWidth = place.clientWidth;
  const x = (value) => left + (value - xRange[0]) / (xRange[1] - xRange[0]) * (wide - left - right);
  const y = (value) => height - bottom - (value - yRange[0]) / (yRange[1] - yRange[0]) * (height - top - bottom);
  const drawing = svg("svg", { viewBox: `0 0 ${wide} ${height}`, width: wide, height, role: "img", "aria-label": label });
  for (const at of ticks(...yRange, height / 48)) {
    drawing.append(svg("line", { class: "grid", x1: left, x2: wide - right, y1: y(at), y2: y(at) }));
    drawing.append(svg("text", { x: left - 7, y: y(at) + 4, "text-anchor": "end" }, (format ?? short)(at)));
  }
  for (const at of ticks(...xRange, wide / 90).filter((each) => !whole || Number.isInteger(each))) {
    drawing.append(svg("text", { x: x(at), y: height - bottom + 16, "text-anchor": "middle" }, short(at, 6)));
  }
  drawing.append(svg("text", { x: (left + wide - right) / 2, y: height - 4, "text-anchor": "middle" }, xName));
  drawing.append(svg("text", { x: 12, y: (top + height - bottom) / 2, "text-anchor": "middle", transform: `rotate(-90 12 ${(top + height - bottom) / 2})` }, yName));
  return { drawing, x, y, wide, left, right, top, bottom };
}

// Path through points, broken where one is unknown; values beyond the range lie on its edge.
function path(xs, ys, x, y, [low, high]) {
  let text = "", on = false;
  ys.forEach((value, index) => {
    const there = value !== null && value !== undefined;
    if (there) text += `${on ? "L" : "M"}${x(xs[index]).toFixed(1)} ${y(Math.min(high, Math.max(low, value))).toFixed(1)}`;
    on = there;
  });
  return text;
}

function legend(items) {
  return items.map(([name, kind, shape, value]) =>
    html("span", {}, html("span", { class: `swatch ${shape ?? ""} t-${kind}` }), value === undefined ? name : `${name} ${value}`));
}

// Curves over one axis, with their values where the pointer is.
// content: series [{name, kind, x, y, shape}], and the properties of `frame`; zero: whether x = 0 is marked.
function curves(place, content) {
  const { series, zero, xRange, yRange, height, format = short, xWord } = content;
  const { drawing, x, y, wide, left, right, top, bottom } = frame(place, content);
  if (zero && xRange[0] < 0 && xRange[1] > 0) drawing.append(svg("line", { class: "zero", x1: x(0), x2: x(0), y1: top, y2: height - bottom }));
  for (const each of series) {
    if (each.shape === "point") {
      each.y.forEach((value, index) => drawing.append(svg("circle", { class: `c-${each.kind}`, r: 3.2, cx: x(each.x[index]), cy: y(Math.min(yRange[1], Math.max(yRange[0], value))) })));
    } else {
      drawing.append(svg("path", { class: `curve c-${each.kind} ${each.shape ?? ""}`, d: path(each.x, each.y, x, y, yRange) }));
      each.y.forEach((value, index) => {
        const alone = value !== null && (each.y[index - 1] ?? null) === null && (each.y[index + 1] ?? null) === null;
        if (alone) drawing.append(svg("circle", { class: `c-${each.kind}`, r: 2.5, cx: x(each.x[index]), cy: y(Math.min(yRange[1], Math.max(yRange[0], value))) }));
      });
    }
  }
  if (!series.some((each) => known(each.y).length)) {
    drawing.append(svg("text", { x: (left + wide - right) / 2, y: (top + height - bottom) / 2 - 10, "text-anchor": "middle" }, "no value yet"));
  }
  const row = html("p", { class: "legend-row" }), cursor = svg("line", { class: "cursor", y1: top, y2: height - bottom, visibility: "hidden" });
  const point = (at) => {
    const nearest = (xs) => xs.reduce((best, value, index) => Math.abs(value - at) < Math.abs(xs[best] - at) ? index : best, 0);
    const values = series.map((each) => at === null || !each.x.length ? undefined : format(each.y[nearest(each.x)]));
    const first = series[0].x;
    row.replaceChildren(...legend(series.map((each, index) => [each.name, each.kind, each.shape, values[index]])));
    if (at !== null && first.length) {
      const there = first[nearest(first)];
      row.append(html("span", {}, `${xWord} ${short(there, 6)}`));
      set(cursor, { x1: x(there), x2: x(there) }, []);
    }
    cursor.setAttribute("visibility", at === null ? "hidden" : "visible");
    place.pointed = at;
  };
  const pointed = (event) => {
    const box = drawing.getBoundingClientRect(), at = (event.clientX - box.left) / box.width * wide;
    point(xRange[0] + Math.min(1, Math.max(0, (at - left) / (wide - left - right))) * (xRange[1] - xRange[0]));
  };
  drawing.addEventListener("pointermove", pointed);
  drawing.addEventListener("pointerdown", pointed);
  drawing.addEventListener("pointerleave", () => point(null));
  drawing.append(cursor);
  place.replaceChildren(row, drawing);
  point(place.pointed ?? null);
}

// Units as dots: ceiling and correlation; a press on the drawing chooses the nearest one.
function scatter(place, { dots, chosen, choose }) {
  const low = Math.min(-0.1, ...dots.map((each) => each[2])), yRange = [Math.floor(low * 5) / 5, 1];
  const { drawing, x, y, wide } = frame(place, {
    xRange: [0, 1], yRange, height: 330, xName: "highest correlation that is possible with these data", yName: "correlation with the model",
    label: `Correlation of data and model of ${dots.length} units against its ceiling`,
  });
  drawing.append(svg("line", { class: "zero", x1: x(0), y1: y(0), x2: x(1), y2: y(1) }));
  for (const [unit, ceiling, score] of dots) drawing.append(svg("circle", { class: "unit-dot", cx: x(ceiling), cy: y(score), r: 3.5 }));
  const its = dots.find((each) => each[0] === chosen);
  if (its) drawing.append(svg("circle", { class: "unit-dot chosen", cx: x(its[1]), cy: y(its[2]), r: 5.5 }));
  drawing.addEventListener("click", (event) => {
    const box = drawing.getBoundingClientRect(), scale = wide / box.width;
    const distance = ([, a, b]) => Math.hypot((event.clientX - box.left) * scale - x(a), (event.clientY - box.top) * scale - y(b));
    const nearest = dots.reduce((best, each) => distance(each) < distance(best) ? each : best, dots[0]);
    if (nearest && distance(nearest) < 25) choose(nearest[0]);
  });
  place.replaceChildren(drawing);
}

// Colours of a heat map from 0 to 254, dark to light, also in grey.
const STOPS = [[20, 22, 54], [44, 66, 130], [38, 122, 142], [86, 178, 122], [250, 231, 110]];
function colour(level) {
  const at = level / 254 * (STOPS.length - 1), first = Math.min(STOPS.length - 2, Math.floor(at));
  return STOPS[first].map((value, index) => Math.round(value + (at - first) * (STOPS[first + 1][index] - value)));
}

// Levels of [rows, columns] on a canvas; 255 is transparent, nothing is known there.
function heatMap(canvas, levels, rows, columns) {
  canvas.width = Math.max(1, columns);
  canvas.height = Math.max(1, rows);
  const context = canvas.getContext("2d"), image = context.createImageData(canvas.width, canvas.height);
  for (let index = 0; index < rows * columns; index++) {
    if (levels[index] === 255) continue;
    image.data.set([...colour(levels[index]), 255], 4 * index);
  }
  context.putImageData(image, 0, 0);
}

// Effects in one row: a dot and its error for each model, a diamond for what was observed; the range is that of all rows.
function strip({ models, noise, observed }, [low, high]) {
  const at = (value) => `${(3 + 94 * (Math.min(high, Math.max(low, value)) - low) / (high - low)).toFixed(2)}%`;
  const said = `${known(models).map((each) => short(each)).join(", ")} Hz${observed === null ? "" : `, observed ${short(observed)} Hz`}`;
  const drawing = svg("svg", { role: "img", "aria-label": `Effects in the models: ${said}` });
  drawing.append(svg("line", { class: "grid", x1: "0%", x2: "100%", y1: 13, y2: 13 }), svg("line", { class: "zero", x1: at(0), x2: at(0), y1: 0, y2: 26 }));
  models.forEach((value, index) => {
    if (value === null) return;
    const y = 13 + (models.length > 1 ? (index / (models.length - 1) - 0.5) * 12 : 0), error = noise[index];
    if (error !== null) drawing.append(svg("line", { class: "c-model", x1: at(value - error), x2: at(value + error), y1: y, y2: y }));
    drawing.append(svg("circle", { class: "c-model", cx: at(value), cy: y, r: 3.4 }));
  });
  if (observed !== null) {
    const inner = svg("svg", { x: at(observed), y: 13, overflow: "visible" }, svg("path", { class: "c-observed", d: "M0 -6L6 0L0 6L-6 0Z" }));
    drawing.append(inner);
  }
  return drawing;
}

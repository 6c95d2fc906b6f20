"use strict";
// The live page: takes over the parts of the state that have changed, and draws what shows them.
const find = (selector) => document.querySelector(selector);
const saved = find("#data") ? JSON.parse(find("#data").textContent) : null;
const state = {}, choice = { pick: "best", unit: null, condition: null, map: 0 };
let paused = false, waiting = {}, asked = { unit: 0, map: 0, search: 0 }, connected = false, stream = null;

if (location.search && !saved) history.replaceState(null, "", location.pathname);  // the cookie stands for the token from now on

// An answer of the server, or of the saved page; null if there is none.
async function ask(kind, key, value) {
  if (saved) {
    if (kind === "unit") return saved.units.find((each) => each.unit === value) ?? null;
    if (kind === "map") return saved.maps.find((each) => each.condition === value) ?? null;
    const wanted = value.trim().toLowerCase();
    const units = saved.units.filter((each) => `${each.id}\0${each.region ?? ""}`.toLowerCase().includes(wanted));
    return { n: units.length, units: units.slice(0, 60) };
  }
  try {
    const answer = await fetch(`${kind}?${key}=${encodeURIComponent(value)}`);
    return answer.ok ? await answer.json() : null;
  } catch {
    return null;
  }
}

// The answer to the newest question of a kind; undefined if a newer one has been asked meanwhile.
async function newest(kind, key, value) {
  const number = ++asked[kind], answer = await ask(kind === "search" ? "units" : kind, key, value);
  return number === asked[kind] ? answer : undefined;
}

function table(place, head, rows, classes = []) {
  const cell = (name, value, index) => value instanceof Node && value.tagName === "TD" ? value : html(name, { class: classes[index] ?? null, scope: name === "th" ? "row" : null }, value);
  place.replaceChildren(
    html("thead", {}, html("tr", {}, ...head.map((each, index) => html("th", { scope: "col", class: classes[index] ?? null }, each)))),
    html("tbody", {}, ...rows.map((row) => html("tr", { class: row.first ? "first" : null }, ...row.cells.map((each, index) => cell(index ? "td" : "th", each, index))))),
  );
}

function status() {
  if (saved) return;
  const words = paused ? "Paused; the run goes on" : !connected ? "No connection: rlsnet live has ended, or does not answer" : state.running ? "Running" : state.running === false ? "Not running" : state.path === undefined ? "Reading the files of the run" : "Whether it is running is unknown";
  find("#status").replaceChildren(html("span", { class: `dot ${connected && state.running && !paused ? "running" : ""}` }), words, state.path === undefined ? "" : `: ${state.path}`);
}

function notes() {
  const all = [...(state.fault ? [state.fault] : []), ...(state.notes ?? [])];
  find("#notes").hidden = !all.length;
  find("#notes ul").replaceChildren(...all.map((each) => html("li", {}, each)));
}

function without() {
  const place = find("#without"), missing = state.recording === null && state.rates === null;
  place.hidden = !missing;
  place.textContent = state.iterations ? "Firing rates of data and model, and predictions, are shown for runs of rlsnet watch." : "No iteration is complete yet; this page shows each one as soon as it is.";
}

const LEAST = -0.5;  // of a score that is drawn; lower ones lie on the edge
const edge = (values) => known(values).some((each) => each < LEAST) ? ` At the lower edge: ${short(LEAST)} or less.` : "";

const render = {
  running: status,
  path: status,
  notes,
  fault: notes,
  tiles(tiles) {
    find("#tiles").replaceChildren(...tiles.map(([label, value, note]) =>
      html("div", { class: "tile" }, html("dt", {}, label), html("dd", { class: "value" }, value), note ? html("dd", { class: "more" }, note) : null)));
  },
  recording(rows) {
    find("#recording").hidden = !rows;
    find("#health").replaceChildren(...(rows ?? []).map(([name, value, good]) =>
      html("div", {}, html("dt", {}, name), html("dd", { class: good ? null : "bad" }, value))));
    without();
  },
  trials(trials) {
    find("#over-trials").hidden = find("#conditions-part").hidden = !trials;
    find("#scores").hidden = !trials && !state.iterations;
    if (!trials) return;
    const rows = trials.conditions.map((each) => ({ cells: [each.name, short(each.trials), short(each.held_out), short(each.spikes, 4)] }));
    table(find("#conditions"), ["condition", "trials", "held out", "spikes per trial"], rows, ["", "number", "number", "number"]);
    const low = Math.max(LEAST, Math.min(0, ...known(trials.score)));
    show(find("#over-trials .chart"), curves, {
      series: [
        { name: "model", kind: "model", x: trials.trial, y: trials.score },
        { name: "mean of earlier trials (ceiling)", kind: "data", shape: "dashed", x: trials.trial, y: trials.ceiling },
      ],
      xRange: range([1, ...trials.trial]), yRange: [low, Math.max(1, ...known(trials.ceiling).map((each) => Math.min(each, 1.5)))], height: 260, format: percent, whole: true,
      xName: "trial", xWord: "trial", yName: "explained signal variance", label: "Explained signal variance over trials, of the model and its ceiling",
    });
    const [score, ceiling] = trials.all, [ofHeldOut, itsCeiling] = trials.held_out;
    const heldOut = trials.n_held_out ? ` Over the ${counted(trials.n_held_out, "held-out trial")} alone, never learned: ${percent(ofHeldOut)}, ceiling ${percent(itsCeiling)}.` : "";
    find("#over-trials figcaption").textContent = `Share of the signal variance of single trials, each predicted before it is learned, over the last ${trials.window} trials; over all ${counted(trials.n, "trial")}: ${percent(score)}, ceiling ${percent(ceiling)}.${heldOut}${edge(trials.score)}`;
  },
  iterations(iterations) {
    find("#over-iterations").hidden = !iterations;
    find("#scores").hidden = !iterations && !state.trials;
    without();
    if (!iterations) return;
    const series = [
      { name: "correlation", kind: "model", x: iterations.iteration, y: iterations.correlation },
      { name: "explained variance", kind: "data", x: iterations.iteration, y: iterations.explained_variance },
      { name: "validation", kind: "observed", shape: "point", x: iterations.validations.map(([at]) => at), y: iterations.validations.map(([, value]) => value) },
    ].filter((each) => known(each.y).length);
    if (!series.length) return;
    show(find("#over-iterations .chart"), curves, {
      series, xRange: range([1, ...iterations.iteration]), yRange: [Math.max(LEAST, Math.min(0, ...series.flatMap((each) => known(each.y)))), 1],
      height: 260, whole: true, format: (value) => short(value, 2), xName: "iteration", xWord: "iteration", yName: "score", label: "Scores over iterations of training",
    });
    find("#over-iterations figcaption").textContent = "Correlation and explained variance: input currents and their targets, during learning." + (iterations.validations.length ? " Validation: population explained variance with frozen weights." : "") + edge(series.flatMap((each) => each.y));
  },
  rates(rates) {
    find("#rates").hidden = !rates;
    find("#regions").hidden = !rates?.regions.length;
    without();
    if (!rates) return;
    find("#rates-note").textContent = `After trial ${short(rates.trial)}: ${counted(rates.n_units, "unit")}; median correlation of data and model ${worded(rates.correlation)}, its ceiling ${worded(rates.ceiling)}.`;
    options();
    regions(rates.regions);
    find("#scatter").hidden = !rates.dots.length;
    chooseUnit();
    drawMaps();
  },
  prediction,
};

// The conditions in both lists.
function options() {
  const names = state.rates.conditions;
  if (choice.condition === null) choice.condition = names.length <= 4 ? "all" : 0;
  const fill = (place, all, value) => {
    const given = [...(all ? [["all", "all"]] : []), ...names.map((name, index) => [String(index), name])];
    if (JSON.stringify(given) === place.given) return;
    place.given = JSON.stringify(given);
    place.replaceChildren(...given.map(([key, name]) => html("option", { value: key }, name)));
    place.value = String(value);
  };
  fill(find("#condition"), names.length <= 12, choice.condition);
  fill(find("#map-condition"), false, choice.map);
}

function regions(rows) {
  table(find("#regions table"), ["region", "units", "correlation", "ceiling", "rate of data, Hz", "rate of model, Hz"],
    rows.map((each) => ({ cells: [each.name, short(each.units), short(each.correlation, 2), short(each.ceiling, 2), short(each.data_hz), short(each.model_hz)] })),
    ["", "number", "number", "number", "number", "number"]);
}

// Shows the chosen unit, or the best, median or worst one.
async function chooseUnit(unit = null) {
  if (!state.rates) return;
  if (unit !== null) Object.assign(choice, { unit, pick: null });
  if (choice.pick && state.rates.chosen[choice.pick] !== undefined) choice.unit = state.rates.chosen[choice.pick];
  choice.unit ??= 0;
  for (const each of document.querySelectorAll("[data-pick]")) {
    each.disabled = state.rates.chosen[each.dataset.pick] === undefined;  // no unit has a score yet
    each.setAttribute("aria-pressed", !each.disabled && each.dataset.pick === choice.pick);
  }
  if (state.rates.dots.length) {
    const dots = saved ? state.rates.dots.filter(([each]) => saved.units.some(({ unit }) => unit === each)) : state.rates.dots;
    show(find("#scatter .chart"), scatter, { dots, chosen: choice.unit, choose: chooseUnit });
    const some = dots.length < state.rates.n_scored ? `${short(dots.length)} of ${short(state.rates.n_scored)} units` : "All units";
    find("#scatter figcaption").textContent = `${some}, each the mean over conditions; a press on a dot shows its rates. Ceiling: from the reliability of odd and even trials.`;
  }
  const found = await newest("unit", "number", choice.unit);
  if (found) drawUnit(found);
  else if (found === null) find("#psth figcaption").textContent = "The rates of this unit are not in this page.";
}

function drawUnit(unit) {
  const names = state.rates.conditions, chosen = choice.condition === "all" ? names.map((_, index) => index) : [Number(choice.condition)];
  find("#psth figcaption").textContent = `Unit ${unit.id}${unit.region ? ` in ${unit.region}` : ""}; correlation ${worded(unit.correlation)}.`;
  const rates = chosen.flatMap((index) => [...known(unit.data[index] ?? []), ...known(unit.model[index] ?? [])]);
  const places = find("#psth .psths"), before = [...places.children];
  const charts = chosen.map((index) => {
    const same = before.find((each) => each.dataset.condition === String(index));
    return same ?? html("div", { "data-condition": index }, html("h4", {}), html("p", { class: "note" }), html("div", { class: "chart" }));
  });
  places.replaceChildren(...charts);
  chosen.forEach((index, at) => {
    const [r, ceiling] = [unit.correlations[index], unit.ceilings[index]];
    charts[at].children[0].textContent = names[index];
    charts[at].children[1].textContent = `correlation ${worded(r)}, ceiling ${worded(ceiling)}`;
    show(charts[at].lastChild, curves, {
      series: [{ name: "data", kind: "data", x: unit.time, y: unit.data[index] }, { name: "model", kind: "model", x: unit.time, y: unit.model[index] }],
      xRange: range(unit.time), yRange: [Math.min(0, ...rates), Math.max(1, ...rates) * 1.05], height: chosen.length > 2 ? 190 : 250, zero: true,
      xName: "time, s", xWord: "at", yName: "rate, Hz", label: `Firing rate of unit ${unit.id} in ${names[index]}, data and model`,
    });
  });
}

async function drawMaps() {
  const map = await newest("map", "condition", choice.map);
  if (map === undefined) return;
  find("#maps .maps").hidden = !map;
  if (!map) { find("#maps figcaption").textContent = "The rates of this condition are not in this page."; return; }
  const canvases = document.querySelectorAll("#maps canvas"), rows = map.units.length;
  [map.data, map.model].forEach((each, index) => {
    const levels = Uint8Array.from(atob(each), (character) => character.charCodeAt(0)), canvas = canvases[index], name = index ? "model" : "data";
    heatMap(canvas, levels, rows, map.columns);
    canvas.previousElementSibling.textContent = levels.every((level) => level === 255) ? `${name}: unknown until now` : name;
    canvas.setAttribute("aria-label", `Firing rates of ${map.n_units} units over time, ${name}`);
    canvas.onclick = (event) => {
      const box = canvas.getBoundingClientRect(), row = Math.floor((event.clientY - box.top) / box.height * rows);
      if (row >= 0 && row < rows) chooseUnit(map.units[row]);
    };
    canvas.nextElementSibling.replaceChildren(...[map.start, "time, s", map.end].map((value) => html("span", {}, typeof value === "number" ? short(value) : value)));
  });
  const scale = html("canvas", { class: "scale" }), grouped = map.per_row > 1 ? `, up to ${map.per_row} neighbours averaged in a row` : "";
  heatMap(scale, Uint8Array.from({ length: 255 }, (_, index) => index), 1, 255);
  find("#maps figcaption").replaceChildren("lowest", scale, `highest rate of each unit in the data of all conditions. ${counted(map.n_units, "unit")}, sorted by the time of the peak in the data${grouped}. A press on a row shows its unit.`);
}

function prediction(content) {
  const place = find("#prediction");
  place.hidden = !content?.perturbations.length;
  if (place.hidden) return;
  const rows = content.perturbations, all = rows.flatMap((each) => each.conditions);
  const spread = all.flatMap((each) => each.models.flatMap((value, index) => value === null ? [] : [value - (each.noise[index] ?? 0), value + (each.noise[index] ?? 0)]));
  const limits = range([0, ...spread, ...known(all.map((each) => each.observed))]);
  const first = rows[0];
  find("#differ").textContent = first.disagreement === null || rows.length < 2 || content.models < 2 ? "" : `The ${content.models} models differ most about “${first.name}” (s.d. ${short(first.disagreement, 2)} Hz): its observation tells most about which model is right.`;
  const head = html("span", {}, "effect on the mean rate, Hz", html("span", { class: "ends" }, html("span", {}, short(limits[0], 2)), html("span", {}, short(limits[1], 2))));
  const body = rows.flatMap((each) => each.conditions.map((condition, index) => ({
    first: index === 0,
    cells: [
      index ? "" : each.name, condition.name, html("td", { class: "strip" }, strip(condition, limits)),
      index ? "" : short(each.disagreement, 2), short(condition.observed, 3), short(condition.resemblance, 2),
    ],
  })));
  table(find("#prediction table"), ["perturbation", "condition", head, "disagreement, Hz", "observed, Hz", "correlation over units"], body, ["", "", "strip", "number", "number", "number"]);
  const more = content.n > rows.length ? ` ${short(content.n - rows.length)} others, about which the models differ less, are not shown.` : "";
  find("#prediction-note").replaceChildren(html("span", { class: "legend-row" }, ...legend([["models, with the s.d. due to few trials", "model", "point"], ["observed", "observed", "diamond"]])),
    `After trial ${short(content.trial)}. Mean over the units whose effect was observed or, where none was, over all. Disagreement: s.d. between models, root mean square over units and conditions, without what few trials cause. Correlation: of predicted and observed effects over units.${more}`);
}

function update(parts) {
  Object.assign(state, parts);
  for (const name of Object.keys(parts)) {
    try { render[name]?.(state[name]); } catch (error) { console.error(`${name}: ${error.stack}`); }
  }
}

function connect() {
  if (stream || document.hidden) return;
  stream = new EventSource("events");
  stream.onopen = () => { connected = true; status(); };
  stream.onerror = () => { connected = false; status(); if (stream.readyState === 2) { stream = null; setTimeout(connect, 3000); } };
  stream.onmessage = (event) => {
    const parts = JSON.parse(event.data);
    if (paused) Object.assign(waiting, parts);
    else update(parts);
  };
}

for (const each of document.querySelectorAll("[data-pick]")) each.addEventListener("click", () => { choice.pick = each.dataset.pick; chooseUnit(); });
find("#condition").addEventListener("change", (event) => { choice.condition = event.target.value; chooseUnit(choice.pick ? null : choice.unit); });
find("#map-condition").addEventListener("change", (event) => { choice.map = Number(event.target.value); drawMaps(); });
find("#search").addEventListener("input", async (event) => {
  const place = find("#found"), wanted = event.target.value;
  const found = wanted.trim() ? await newest("search", "search", wanted.slice(0, 60)) : (++asked.search, null);
  if (found === undefined) return;
  place.hidden = !found;
  if (!found) return;
  const choose = (unit) => { place.hidden = true; event.target.value = ""; chooseUnit(unit); };
  place.replaceChildren(...found.units.map((each) => html("button", { type: "button", onclick: () => choose(each.unit) }, each.id, html("span", {}, [each.region, short(each.correlation, 2)].filter(Boolean).join(" · ")))));
  if (found.n !== found.units.length || !found.n) place.append(html("p", {}, found.n ? `${short(found.units.length)} of ${short(found.n)} units are listed.` : "No unit has this in its name or region."));
});

if (saved) update(saved.state);
else {
  find("#pause").addEventListener("click", (event) => {
    paused = !paused;
    event.target.setAttribute("aria-pressed", paused);
    event.target.textContent = paused ? "Go on" : "Pause";
    if (!paused) { update(waiting); waiting = {}; }
    status();
  });
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) { stream?.close(); stream = null; }
    else connect();
  });
  connect();
}

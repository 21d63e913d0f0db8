"use strict";
// The efficiency table and its Pareto front, as `cifar10 report` left them.

const SVG = "http://www.w3.org/2000/svg";
const MARGIN = {top: 14, right: 20, bottom: 42, left: 50};
const SHOWN = 3;  // significant digits

function draw(tag, attributes, text) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

const known = (value) => value !== null && value !== undefined;
const figure = (value, scale = 1) => known(value)
  ? (value / scale).toLocaleString("en", {minimumSignificantDigits: SHOWN, maximumSignificantDigits: SHOWN}) : "–";
const whole = (value) => known(value) ? Math.round(value).toLocaleString("en") : "–";
const hundred = (value) => (100 * value).toFixed(2);
const isOnGpu = (row) => row.provider?.startsWith("CUDA") ?? false;

const isInOpenVino = (row) => row.provider === "OpenVINO";

/** Latency to compare by: of a model with an early exit the mean. Older records have p50 alone. */
const typical = (row) => row.latency_typical_ms ?? row.latency_p50_ms;

const COLUMNS = [
  ["Accuracy, % (95 % interval)", (row) => known(row.accuracy)
    ? `${hundred(row.accuracy)} (${hundred(row.accuracy_low)}–${hundred(row.accuracy_high)})` : "–"],
  ["Latency / p99, ms", (row) => `${figure(typical(row))} / ${figure(row.latency_p99_ms)}`],
  ["Requests/s, shared cores", (row) => whole(row.http_requests_per_second)],
  ["Size, MB", (row) => figure(row.size_bytes, 1e6)],
  ["MACs, M", (row) => figure(row.macs, 1e6)],
  ["Parameters", (row) => whole(row.parameters_total)],
  ["Test images", (row) => row.dataset?.replace(/-[0-9a-f]{8}$/, "") ?? "–"],
  ["On the Pareto front of accuracy against", (row) => row.pareto.join(", ") || "–"],
];

/** A name that may be broken after its underscores. */
const breakable = (name) => name.split(/(?<=_)/).flatMap((part, index) => index ? [make("wbr"), part] : [part]);

const nameOf = (row) => isInOpenVino(row) ? `${row.model} (OpenVINO)` : row.model;

/** What else has to be said of a row, and which of the models served here it is. */
function remarks(row, served) {
  const found = isOnGpu(row) ? ["on the GPU"] : isInOpenVino(row) ? ["in OpenVINO"] : [];
  const model = served.find(({name}) => name === row.model);
  if (model) found.push(model.digest === row.digest ? "served here" : "another file of this name is served here");
  if (row.quick) found.push("from a quick run");
  // The notes are inline Markdown, as in REPORT.md.
  return [...found, ...row.notes].join("; ").replaceAll("`", "");
}

function tableOf({conditions, models}, served) {
  const head = make("tr", {}, make("th", {scope: "col", textContent: "Model"}),
    ...COLUMNS.map(([title]) => make("th", {scope: "col", textContent: title})));
  const lines = models.map((row) => {
    const name = make("th", {scope: "row"}, ...breakable(row.model));
    const said = remarks(row, served);
    if (said) name.append(make("small", {textContent: said}));
    return make("tr", {className: row.pareto.includes("latency") ? "front" : ""}, name,
      ...COLUMNS.map(([, text]) => make("td", {textContent: text(row)})));
  });
  const table = make("table", {ariaLabel: `The efficiency table. ${conditions}`}, make("thead", {}, head), make("tbody", {}, ...lines));
  const scroll = make("div", {className: "scroll", tabIndex: 0, role: "region", ariaLabel: `All models. ${conditions}`});
  scroll.append(table);
  return scroll;
}

/** Round values from low to high: 1, 2 and 5 times powers of ten. */
function logTicks(low, high) {
  const found = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) {
    found.push(...[1, 2, 5].map((step) => step * 10 ** power));
  }
  return found.filter((tick) => tick >= low && tick <= high);
}

function linearTicks(low, high) {
  const step = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50].find((each) => (high - low) / each <= 6) ?? 100;
  const found = [];
  for (let tick = Math.ceil(low / step) * step; tick <= high + 1e-9; tick += step) found.push(Number(tick.toFixed(1)));
  return found;
}

/** How wide each of these names is, in pixels; the size is that of `.chart text` in the style sheet. */
function widthsOf(names) {
  const pen = document.createElement("canvas").getContext("2d");
  pen.font = `12px ${getComputedStyle(document.body).fontFamily}`;
  return names.map((name) => pen.measureText(name).width);
}

/** Where each name can stand without touching a point or another name; null where it cannot. */
function placeNames(points, width) {
  const taken = points.map(({x, y}) => ({left: x - 6, right: x + 6, top: y - 6, bottom: y + 6}));
  const free = (box) => box.left >= MARGIN.left && box.right <= width && !taken.some((other) =>
    box.left < other.right && box.right > other.left && box.top < other.bottom && box.bottom > other.top);
  const lengths = widthsOf(points.map(({row}) => nameOf(row)));
  return points.map(({x, y, front}, index) => {
    const length = lengths[index];
    const beside = [[x + 9, y + 4], [x - 9 - length, y + 4]];
    const over = [[x - length / 2, y - 11], [x - length / 2, y + 19], [x + 4, y - 9], [x - 4 - length, y - 9],
      [x + 4, y + 17], [x - 4 - length, y + 17]];
    const starts = front ? [...over, ...beside] : [...beside, ...over];  // the front's line is beside
    for (const [left, base] of starts) {
      const box = {left, right: left + length, top: base - 11, bottom: base + 3};
      if (free(box)) {
        taken.push(box);
        return {left, base};
      }
    }
    return null;
  });
}

/** The front as words, for who cannot see it. */
function frontInWords(rows) {
  const said = rows.filter((row) => row.pareto.includes("latency"))
    .sort((one, other) => typical(one) - typical(other))
    .map((row) => `${nameOf(row)}${isOnGpu(row) ? " on the GPU" : ""}, ${hundred(row.accuracy)} % at ${figure(typical(row))} ms`);
  return `Accuracy against latency of ${rows.length} models. On the Pareto front, fastest first: ${said.join("; ")}.`;
}

function chartOf(rows, width) {
  const height = Math.min(340, Math.max(240, width * 0.5));
  const latencies = rows.map((row) => typical(row)), accuracies = rows.map((row) => 100 * row.accuracy);
  const low = Math.min(...latencies) / 1.6, high = Math.max(...latencies) * 1.6;
  const pad = Math.max(1, (Math.max(...accuracies) - Math.min(...accuracies)) * 0.15);
  const bottom = Math.max(0, Math.min(...accuracies) - pad), top = Math.min(100, Math.max(...accuracies) + pad);
  const across = width - MARGIN.left - MARGIN.right, down = height - MARGIN.top - MARGIN.bottom;
  const x = (ms) => MARGIN.left + across * Math.log(ms / low) / Math.log(high / low);
  const y = (points) => MARGIN.top + down * (top - points) / (top - bottom);
  const svg = draw("svg", {viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": frontInWords(rows)});
  for (const tick of linearTicks(bottom, top)) {
    svg.append(draw("line", {class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: y(tick), y2: y(tick)}),
      draw("text", {x: MARGIN.left - 8, y: y(tick) + 4, "text-anchor": "end"}, String(tick)));
  }
  for (const tick of logTicks(low, high)) {
    svg.append(draw("line", {class: "grid", x1: x(tick), x2: x(tick), y1: MARGIN.top, y2: MARGIN.top + down}),
      draw("text", {x: x(tick), y: MARGIN.top + down + 17, "text-anchor": "middle"}, tick.toLocaleString("en", {maximumSignificantDigits: 1})));
  }
  svg.append(draw("text", {x: MARGIN.left + across / 2, y: height - 6, "text-anchor": "middle"}, "Latency of one image, ms (p50; mean with an early exit)"),
    draw("text", {transform: `translate(13 ${MARGIN.top + down / 2}) rotate(-90)`, "text-anchor": "middle"}, "Accuracy, %"));
  const points = rows.map((row) => ({row, x: x(typical(row)), y: y(100 * row.accuracy),
    front: row.pareto.includes("latency")})).sort((one, other) => other.front - one.front || one.x - other.x);
  // Fronts are of one provider and one set of images each.
  for (const group of new Set(points.map(({row}) => `${row.provider} ${row.dataset}`))) {
    const line = points.filter(({row, front}) => front && `${row.provider} ${row.dataset}` === group);
    const steps = line.map((point, index) => index ? `H${point.x}V${point.y}` : `M${point.x} ${point.y}`);
    svg.append(draw("path", {class: "front-line", d: steps.join("")}));
  }
  const places = placeNames(points, width);
  points.forEach(({row, x: left, y: base, front}, index) => {
    const looks = {class: front ? "point front" : "point"};
    const mark = isOnGpu(row) ? draw("rect", {...looks, x: left - 5, y: base - 5, width: 10, height: 10})
      : draw("circle", {...looks, cx: left, cy: base, r: 5});
    mark.append(draw("title", {}, `${nameOf(row)}: ${hundred(row.accuracy)} %, ${figure(typical(row))} ms`));
    svg.append(mark);
    const place = places[index];
    if (place) svg.append(draw("text", {class: front ? "name" : "", x: place.left, y: place.base}, nameOf(row)));
  });
  return svg;
}

/** One row of each recipe: of several training seeds the lowest, as in the report's plots. */
function oneOfEach(rows) {
  const same = (one, other) => ["recipe", "precision", "provider", "dataset"].every((key) => one[key] === other[key]);
  return rows.filter((row) => !(row.seeds > 1) || !rows.some((other) => same(row, other) && other.seed < row.seed));
}

function machineOf(machine, served) {
  const measured = machine.models.filter((row) => known(row.accuracy) && known(typical(row)));
  const rows = oneOfEach(measured);
  const chart = make("div", {className: "chart"});
  if (rows.length) {
    let width = 0;
    new ResizeObserver(() => {
      if (chart.clientWidth === width || !chart.clientWidth) return;
      width = chart.clientWidth;
      chart.replaceChildren(chartOf(rows, width));
    }).observe(chart);
  }
  const shapes = rows.some(isOnGpu) ? " Round: on the CPU, square: on the GPU." : "";
  const seeds = rows.length < measured.length ? " Of one recipe trained with several seeds, the lowest is drawn." : "";
  const legend = `Filled and ◆: on the Pareto front, no other model is both more accurate and faster.${shapes}${seeds}`;
  return make("div", {className: "machine"}, make("p", {className: "small", textContent: machine.conditions}),
    chart, make("p", {className: "small", textContent: legend}), tableOf(machine, served));
}

/** The served models in the order of the table, with the figures of the first machine that measured them. */
function tableOfServed(machines, served) {
  const rows = served.map((model) => {
    for (const machine of machines) {
      const row = machine.models.find(({digest}) => digest === model.digest);
      if (row) return {row, model, conditions: machine.conditions};
    }
    return {row: {model: model.name, size_bytes: model.size_bytes, macs: model.macs, parameters_total: model.parameters,
      accuracy: model.test_accuracy?.accuracy, accuracy_low: model.test_accuracy?.low,
      accuracy_high: model.test_accuracy?.high, pareto: [], notes: []}, model, conditions: ""};
  });
  rows.sort((one, other) => (other.row.accuracy ?? 0) - (one.row.accuracy ?? 0));
  const shown = COLUMNS.slice(0, -1);
  const head = make("tr", {}, make("th", {scope: "col", textContent: "Model"}),
    ...shown.map(([title]) => make("th", {scope: "col", textContent: title})));
  const lines = rows.map(({row, model}) => {
    const button = make("button", {type: "button", className: "choice"}, ...breakable(model.name));
    button.dataset.model = model.name;
    button.addEventListener("click", () => {
      byId("model").value = model.name;
      byId("model").dispatchEvent(new Event("change"));
    });
    return make("tr", {}, make("th", {scope: "row"}, button), ...shown.map(([, text]) => make("td", {textContent: text(row)})));
  });
  const scroll = make("div", {className: "scroll", tabIndex: 0, role: "region", ariaLabel: "Figures of the served models"},
    make("table", {className: "served"}, make("thead", {}, head), make("tbody", {}, ...lines)));
  const conditions = [...new Set(rows.map((each) => each.conditions).filter(Boolean))].join(" ");
  return [scroll, make("p", {className: "small", textContent: conditions || "Not measured yet: cifar10 bench run and cifar10 report fill this table."})];
}

function markChosen() {
  for (const button of document.querySelectorAll(".choice")) {
    const chosen = button.dataset.model === byId("model").value;
    button.ariaPressed = String(chosen);
    button.closest("tr").className = chosen ? "chosen" : "";
  }
}

async function showEfficiency() {
  const {models: served} = await modelsKnown;
  let machines = [];
  try {
    ({machines} = await read("efficiency"));
  } catch {
    byId("all").hidden = true;
  }
  byId("served").replaceChildren(...tableOfServed(machines, served));
  byId("machines").replaceChildren(...machines.map((machine) => machineOf(machine, served)));
  byId("all").hidden = !machines.length;
  markChosen();
}

document.addEventListener("model", markChosen);
showEfficiency();

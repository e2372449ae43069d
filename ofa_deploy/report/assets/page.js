// The page: charts with their legends, sliders and tools; one network in detail; what is copied.

const say = (text) => { document.getElementById("status").textContent = text; };
const DARK = matchMedia("(prefers-color-scheme: dark)");
let NETWORKS = null;
let FRAME = null;
let RAMP = null;

// The command that exports a network: of its file where one was kept, else from its description.
function exportCommand(net) {
  if (net in NETWORKS.kept) return NETWORKS.kept[net];
  const { run, target } = NETWORKS.groups[NETWORKS.group[net]];
  const name = NETWORKS.name[net];
  const fields = JSON.stringify(NETWORKS.fields[net]);
  return `printf '%s\\n' '${fields}' > ${name}.json && ofa-deploy export --run ${run || "RUN"} ` +
    `--arch ${name}.json --out bundles/${name}${target}`;
}

async function copy(text, button) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = el("textarea", { class: "unseen" });
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    button.focus();
    if (!done) return say("The browser did not allow copying; select the command by hand.");
  }
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = button.dataset.says; }, 2000);
  return say(`Copied: ${text}`);
}

function copyButton(command) {
  const says = "Copy export command";
  const button = el("button", { type: "button", class: "copy", "data-says": says }, says);
  button.addEventListener("click", () => copy(command(), button));
  return button;
}

function download(name, type, text) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const link = el("a", { href: url, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

const quoted = (value) => {
  const text = value === undefined || value === null ? "" : String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
};

// Every point of a chart as plain values.
function rowsOf(chart) {
  return chart.spec.series.flatMap((s) => s.x.map((x, i) => ({
    series: s.name, x, x_low: s.xl?.[i], x_high: s.xh?.[i], y: s.y[i], y_low: s.yl?.[i],
    y_high: s.yh?.[i], name: s.external?.[i],
    arch: s.net && s.net[i] >= 0 ? NETWORKS.arch[s.net[i]] : undefined,
  })));
}

function saveCsv(chart) {
  const names = ["series", "x", "x_low", "x_high", "y", "y_low", "y_high", "name", "arch"];
  const lines = rowsOf(chart).map((row) => names.map((name) => quoted(row[name])).join(","));
  download(`${chart.file}.csv`, "text/csv", `${[names.join(","), ...lines].join("\n")}\n`);
}

function saveJson(chart) {
  const { title, x, y, budgets } = chart.spec;
  download(`${chart.file}.json`, "application/json",
    `${JSON.stringify({ title, x, y, budgets, points: rowsOf(chart) }, null, 1)}\n`);
}

// -- one chart with all around it -------------------------------------------------------------

function pointText(chart, s, i) {
  const series = chart.spec.series[s];
  if (series.external) return [series.external[i], `${series.x[i]} ms`, `${series.y[i]} %`];
  const net = series.net[i];
  const here = [series.name];
  if (chart.spec.kind === "change") here.push(`change ${series.y[i].toFixed(2)} %`);
  return net < 0 ? here : [...here, ...NETWORKS.said[net], NETWORKS.arch[net]];
}

function swatch(series) {
  const icon = svg("svg", { viewBox: "-12 -12 24 24", "aria-hidden": "true" });
  const look = { stroke: series.colour, "stroke-width": 3,
    fill: series.hollow || series.marker === "x" ? "none" : series.colour };
  if (series.joined) icon.append(svg("path", { d: "M-12 0H12", stroke: series.colour, "stroke-width": 2 }));
  if (series.marker === "x") icon.append(svg("path", { ...look, d: "M-7-7L7 7M-7 7L7-7" }));
  else if (series.marker in MARKERS) {
    const corners = MARKERS[series.marker].map(([x, y]) => `${7 * x},${7 * y}`);
    icon.append(svg("polygon", { ...look, points: corners.join(" ") }));
  } else icon.append(svg("circle", { ...look, r: 7 }));
  return icon;
}

function legend(chart) {
  return el("ul", { class: "legend", "aria-label": "Fronts" }, ...chart.spec.series.map((s, index) => {
    const button = el("button", { type: "button", "aria-pressed": "true" }, swatch(s), s.name);
    button.addEventListener("click", () => {
      chart.shown[index] = !chart.shown[index];
      button.setAttribute("aria-pressed", String(chart.shown[index]));
      if (chart.at && !chart.shown[chart.at[0]]) chart.at = null;
      chart.draw();
      chart.choose?.();
    });
    return el("li", {}, button);
  }));
}

// The most accurate network within a latency, or the fastest that reaches an accuracy: one that was
// measured if any fits, of equal ones one whose weights were kept.
function bestOf(chart, { axis, value }) {
  let best = null;
  chart.spec.series.forEach((s, index) => {
    if (!chart.shown[index] || !s.steps) return;
    for (let i = 0; i < s.x.length; i++) {
      if (axis === "x" ? s.x[i] > value : s.y[i] < value) continue;
      const order = axis === "x" ? [s.y[i], -s.x[i]] : [-s.x[i], s.y[i]];
      const rank = [Number(!chart.hollow(s, i)), ...order, Number(s.net[i] in NETWORKS.kept)];
      if (!best || above(rank, best.rank)) best = { rank, at: [index, i] };
    }
  });
  return best && best.at;
}

// Whether the first number that differs is the greater one.
function above(rank, other) {
  const at = rank.findIndex((each, i) => each !== other[i]);
  return at >= 0 && rank[at] > other[at];
}

function slider(chart, axis, says, unit) {
  const values = chart.spec.series.flatMap((s) => (s.steps ? s[axis] : []));
  const ends = reach(axis === "x" ? chart.spec.budgets : [], reach(values, [Infinity, -Infinity]));
  const id = `${chart.file}-${axis}`;
  const [low, high] = ends;
  // Of steps the browser allows none beyond the last whole one, which lies short of the end.
  const input = el("input", { type: "range", id, min: low, max: high, step: "any" });
  const output = el("output", { for: id });
  const tell = () => {
    const text = `${Number(input.value).toPrecision(4)} ${unit}`;
    output.textContent = text;
    input.setAttribute("aria-valuetext", text);
  };
  input.addEventListener("input", () => {
    chart.limit = { axis, value: Number(input.value) };
    tell();
    chart.choose();
  });
  return { input, tell, parts: [el("label", { for: id }, says), input, output] };
}

function sliders(chart) {
  const latency = slider(chart, "x", "Latency at most", chart.spec.unit);
  const accuracy = slider(chart, "y", "Or top-1 at least", "%");
  const told = el("span", {});
  const netOf = () => chart.spec.series[chart.chosen[0]].net[chart.chosen[1]];
  const open = el("button", { type: "button" }, "Show");
  open.addEventListener("click", () => showNetwork(netOf(), open));
  const button = copyButton(() => exportCommand(netOf()));
  chart.choose = () => {
    chart.chosen = bestOf(chart, chart.limit);
    open.disabled = button.disabled = !chart.chosen;
    told.textContent = chart.chosen ? chosenText(chart) : "Chosen: none; no network shown fits.";
    chart.refresh();
  };
  const budgets = [...chart.spec.budgets].sort((a, b) => a - b);
  const first = budgets[Math.floor(budgets.length / 2)];
  latency.input.value = first ?? latency.input.max;
  accuracy.input.value = accuracy.input.min;
  latency.tell();
  accuracy.tell();
  chart.limit = { axis: "x", value: Number(latency.input.value) };
  chart.choose();
  return el("div", { class: "budget" }, ...latency.parts, ...accuracy.parts,
    el("div", { class: "chosen" }, told, open, button));
}

function chosenText(chart) {
  const [s, i] = chart.chosen;
  const series = chart.spec.series[s];
  const doubt = chart.hollow(series, i) ? "; not measured" : "";
  return `Chosen: ${series.y[i].toFixed(2)} % in ${series.x[i].toPrecision(3)} ${chart.spec.unit}, ` +
    `${series.name}${doubt}`;
}

function tools(chart) {
  const make = (text, act) => {
    const button = el("button", { type: "button" }, text);
    button.addEventListener("click", act);
    return button;
  };
  chart.reset = make("Reset zoom", () => chart.zoom({ ...chart.full }));
  chart.reset.disabled = true;
  return el("div", { class: "tools" }, chart.reset, make("CSV", () => saveCsv(chart)),
    make("JSON", () => saveJson(chart)));
}

function build(spec, index) {
  const chart = new Chart(spec, {
    text: pointText,
    open: (made, s, i) => {
      const net = spec.series[s].net?.[i] ?? -1;
      if (net >= 0) showNetwork(net, made.plot);
    },
    moved: (made) => { made.reset.disabled = !made.zoomed; },
  });
  chart.file = `chart-${index + 1}`;
  const around = [el("h2", {}, spec.title), chart.plot, legend(chart),
    el("p", { class: "note" }, spec.note)];
  if (spec.series.some((s) => s.x.length > CROWDED && (s.xl || s.yl))) {
    around.push(el("p", { class: "note" },
      "Crowded fronts show their intervals at the point in focus, and all once zoomed in."));
  }
  if (spec.kind === "front") around.push(sliders(chart));
  around.push(tools(chart));
  chart.figure = el("figure", { class: "chart", "aria-label": spec.title }, ...around);
  document.getElementById("charts").append(chart.figure);
  return chart;
}

// -- start ------------------------------------------------------------------------------------

async function unpacked() {
  const text = document.getElementById("data").textContent;
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).json();
}

async function start() {
  const data = await unpacked();
  [NETWORKS, FRAME, RAMP] = [data.networks, data.frame, data.ramp];
  const home = document.getElementById("charts");
  const several = data.charts.length > 1;
  home.classList.toggle("several", several);
  const charts = data.charts.map(build);
  const fronts = charts.filter((c) => c.spec.kind === "front");
  if (fronts.length === 1) fronts[0].figure.classList.add("wide");
  const y0 = Math.min(...fronts.map((c) => c.full.y0));
  const y1 = Math.max(...fronts.map((c) => c.full.y1));
  for (const chart of fronts) chart.share(y0, y1);
  const help = "Point at a network, or press Tab to reach a chart and then the arrow keys: left " +
    "and right along a front, up and down between fronts, Enter or a click for the network, " +
    "Escape to leave. Drag, + or − to zoom; 0 or a double click for all.";
  home.before(el("p", { class: "note keys" }, help));
  const draw = () => charts.forEach((chart) => chart.draw());
  draw();
  new ResizeObserver(draw).observe(home);
  DARK.addEventListener("change", draw);
  addEventListener("beforeprint", () => charts.forEach((c) => c.draw(false, 3)));
  addEventListener("afterprint", draw);
  window.report = { charts, exportCommand };
  document.documentElement.dataset.ready = String(performance.now());
}

start();

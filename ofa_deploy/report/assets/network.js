// One network: its drawing from glyphs, its blocks in a table, and the command that exports it.

function el(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function svg(name, attributes, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// The blocks of a network with ms, where all are known, and shares: of latency, or of MACs.
function blocksOf(net) {
  const group = NETWORKS.groups[NETWORKS.group[net]];
  const indices = NETWORKS.blocks[net];
  const glyphs = indices.map((i) => NETWORKS.glyphs[group.glyphs][i]);
  const times = indices.map((i) => group.ms[i]);
  const timed = times.every((ms) => typeof ms === "number");
  const weights = timed ? times : glyphs.map((glyph) => glyph.macs);
  const total = weights.reduce((a, b) => a + b, 0);
  return { glyphs, times, timed, shares: weights.map((w) => w / total) };
}

const shade = (share, greatest) =>
  RAMP[Math.min(RAMP.length - 1, Math.floor((RAMP.length * share) / greatest))];

// The same drawing as `ofa-deploy show --svg`.
function drawing({ glyphs, shares, timed }) {
  const { width, gap, left, top, middle, bottom, title, share } = FRAME;
  const half = middle - top;
  const greatest = Math.max(...shares);
  const whole = [2 * left + glyphs.length * (width + gap) - gap, middle + half + bottom];
  const text = (x, y, words, more = {}) => svg("text", { x, y, ...more }, words);
  const parts = glyphs.flatMap((glyph, i) => {
    const start = left + i * (width + gap);
    const centre = start + width / 2;
    const heading = i === 0 || glyph.stage !== glyphs[i - 1].stage;
    return [
      ...(heading ? [text(start, title, glyph.stage, { "text-anchor": "start", "font-weight": 600 })] : []),
      text(centre, share, `${(100 * shares[i]).toFixed(1)} %`),
      svg("polygon", { points: glyph.outline, transform: `translate(${start} ${middle})`,
        fill: shade(shares[i], greatest), stroke: "#57606a" }, svg("title", {}, glyph.about)),
      ...glyph.labels.flatMap((label, line) =>
        (label ? [text(centre, middle + half + 16 + 14 * line, label)] : [])),
    ];
  });
  return svg("svg", { viewBox: `0 0 ${whole[0]} ${whole[1]}`, width: whole[0], height: whole[1],
    "font-family": "system-ui, sans-serif", "font-size": 11, "text-anchor": "middle",
    fill: "#1b1f24", role: "img",
    "aria-label": `Drawing of the network's ${glyphs.length} blocks; the table below has the same.` +
      (timed ? "" : " Shares are of MACs.") }, ...parts);
}

function blockTable({ glyphs, times, timed, shares }) {
  const macs = glyphs.reduce((sum, glyph) => sum + glyph.macs, 0);
  const greatest = Math.max(...shares);
  const heads = ["Place", "Block", "MACs", "Share of MACs", ...(timed ? ["ms", "Share of latency"] : []), ""];
  const rows = glyphs.map((glyph, i) => {
    const bar = svg("svg", { class: "bar", viewBox: "0 0 100 10", preserveAspectRatio: "none",
      "aria-hidden": "true" }, svg("rect", { width: (100 * shares[i]) / greatest, height: 10,
      fill: "#0072B2" }));
    const cells = [glyph.place, glyph.key, glyph.macs.toLocaleString("en"),
      `${((100 * glyph.macs) / macs).toFixed(1)} %`,
      ...(timed ? [times[i].toPrecision(3), `${(100 * shares[i]).toFixed(1)} %`] : []), bar];
    return el("tr", {}, ...cells.map((cell, n) =>
      el("td", { class: n < 2 ? "text" : n < cells.length - 1 ? "number" : "" }, cell)));
  });
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Blocks" },
    el("table", {}, el("thead", {}, el("tr", {}, ...heads.map((head, n) =>
      el("th", { scope: "col", class: n > 1 ? "number" : "" }, head)))), el("tbody", {}, ...rows)));
}

function showNetwork(net, opener) {
  const section = document.getElementById("detail");
  const group = NETWORKS.groups[NETWORKS.group[net]];
  const leave = () => {
    section.hidden = true;
    section.onkeydown = null;
    opener.focus();
  };
  const close = el("button", { type: "button" }, "Close");
  close.addEventListener("click", leave);
  const command = exportCommand(net);
  const parts = [
    el("header", {}, el("h2", { id: "detail-title" }, `${group.name}: ${NETWORKS.arch[net]}`), close),
    el("ul", { class: "facts" }, ...NETWORKS.said[net].map((line) => el("li", {}, line))),
    el("pre", {}, el("code", {}, command)),
    copyButton(() => command),
  ];
  if (!group.run && !(net in NETWORKS.kept)) {
    parts.push(el("p", { class: "note" }, "RUN stands for the folder of the training run."));
  }
  if (group.glyphs >= 0) {
    const blocks = blocksOf(net);
    const what = blocks.timed ? "latency, by the table's blocks" : "MACs, since no latency table is known";
    const sum = blocks.times.reduce((a, b) => a + b, 0);
    parts.push(el("div", { class: "drawing", tabindex: "0", role: "region", "aria-label": "Drawing" },
      drawing(blocks)));
    parts.push(el("p", { class: "note" }, `Colour and percentages: share of ${what}. Height: square ` +
      `root of channels.${blocks.timed ? ` Sum of the blocks: ${sum.toPrecision(3)} ms.` : ""}`));
    parts.push(blockTable(blocks));
  } else parts.push(el("p", { class: "note" }, "The network's space is not known, so it is not drawn."));
  section.replaceChildren(...parts);
  section.hidden = false;
  section.onkeydown = (event) => { if (event.key === "Escape") leave(); };
  section.focus();
  section.scrollIntoView({ block: "nearest" });
}

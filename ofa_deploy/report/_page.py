"""The page's frame, its looks and its script; ``html.py`` fills it."""

__all__ = ["PAGE"]

# The policy lets the page load nothing: whatever a script tried, the browser would refuse it.
PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; \
script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>${title}</title>
<style>
:root { --ink: #1b1f24; --soft: #57606a; --paper: #ffffff; --panel: #f4f6f8; --line: #d0d7de; }
@media screen and (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ed; --soft: #9da7b3; --paper: #14171b; --panel: #1e2329; --line: #39414b; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem; max-width: 75rem; color: var(--ink);
  background: var(--paper); font: 1rem/1.5 system-ui, sans-serif; }
h1 { margin: 0 0 1rem; font-size: 1.6rem; line-height: 1.25; overflow-wrap: anywhere; }
h2 { margin: 2rem 0 .5rem; font-size: 1.15rem; }
.note, figcaption { color: var(--soft); font-size: .875rem; }
figure { margin: 0; }
#chart { width: 100%; height: 32rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1.2rem; margin: 0; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
table { width: 100%; border-collapse: collapse; font-size: .875rem; }
caption { text-align: left; }
th, td { padding: .4rem .6rem; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; }
thead th { color: var(--soft); font-weight: 600; border-bottom-width: 2px; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
thead .number { white-space: normal; }
td.text { min-width: 7rem; }
td.code { font-family: ui-monospace, monospace; font-size: .8rem; min-width: 16rem; }
pre { margin: .4rem 0; padding: .7rem .9rem; overflow-x: auto; background: var(--panel);
  border: 1px solid var(--line); border-radius: 6px; font: .85rem/1.45 ui-monospace, monospace; }
@media print {
  body { max-width: none; padding: 0; font-size: 10pt; }
  .scroll, pre { overflow: visible; }
  pre { white-space: pre-wrap; overflow-wrap: anywhere; }
  figure, tr, pre { break-inside: avoid; }
  .modebar-container { display: none; }
}
</style>
</head>
<body>
<main>
<h1>${title}</h1>
<figure>
<div id="chart" role="group" aria-label="Chart of top-1 accuracy against latency. \
The table of networks below holds the same numbers."></div>
<noscript><p>The chart needs JavaScript; the table below holds the same numbers.</p></noscript>
<figcaption>${caption}</figcaption>
</figure>
${sections}
</main>
<script type="application/json" id="chart-data">${figure}</script>
<script>${plotly}</script>
<script>
"use strict";
{
  const chart = document.getElementById("chart");
  const data = JSON.parse(document.getElementById("chart-data").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const colours = (isDark) => {
    const [ink, line, panel, paper] = isDark
      ? ["#e6e9ed", "#39414b", "#1e2329", "#14171b"]
      : ["#1b1f24", "#d0d7de", "#f4f6f8", "#ffffff"];
    return {
      "font.color": ink, "xaxis.gridcolor": line, "yaxis.gridcolor": line,
      "xaxis.linecolor": line, "yaxis.linecolor": line, "hoverlabel.bgcolor": panel,
      "hoverlabel.bordercolor": line, "hoverlabel.font.color": ink,
      "paper_bgcolor": paper, "plot_bgcolor": paper, "legend.bgcolor": paper,
    };
  };
  const paint = (isDark) => Plotly.relayout(chart, colours(isDark));
  // Plotly would offer to upload the chart to its maker.
  const config = { responsive: true, displaylogo: false, showSendToCloud: false,
    plotlyServerURL: "", modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]] };
  Plotly.newPlot(chart, data.data, data.layout, config).then(() => paint(dark.matches));
  dark.addEventListener("change", () => paint(dark.matches));
  addEventListener("beforeprint", () => paint(false));
  addEventListener("afterprint", () => paint(dark.matches));
}
</script>
</body>
</html>
"""

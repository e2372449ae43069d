// The frame of a chart: grid, numbers, names of the axes, latency budgets.

const NAME = 18; // pixels that the name of the y axis takes, upright at the left

const yTicks = ({ view, height }) => ticks(view.y0, view.y1, Math.max(2, height / 60));

// Room for the name of the y axis and the widest of its numbers; also sets the font of both.
function leftMargin(chart, context) {
  context.font = "13px system-ui, sans-serif";
  const widths = yTicks(chart).map(({ text }) => context.measureText(text).width);
  return Math.max(58, Math.ceil(NAME + 6 + Math.max(0, ...widths) + 8));
}

function drawAxes(chart, context) {
  const right = chart.width - MARGIN.right;
  const bottom = chart.height - MARGIN.bottom;
  context.lineWidth = 1;
  context.strokeStyle = chart.colours.line;
  context.fillStyle = chart.colours.soft;
  context.beginPath();
  context.textAlign = "center";
  context.textBaseline = "top";
  for (const { at, text } of ticks(chart.view.x0, chart.view.x1, Math.max(2, chart.width / 110))) {
    const x = Math.round(chart.px(at)) + 0.5;
    context.moveTo(x, MARGIN.top);
    context.lineTo(x, bottom);
    context.fillText(text, x, bottom + 6);
  }
  context.textAlign = "right";
  context.textBaseline = "middle";
  for (const { at, text } of yTicks(chart)) {
    const y = Math.round(chart.py(at)) + 0.5;
    context.moveTo(chart.left, y);
    context.lineTo(right, y);
    context.fillText(text, chart.left - 8, y);
  }
  context.stroke();
  context.fillStyle = chart.colours.ink;
  context.textAlign = "center";
  context.textBaseline = "bottom";
  context.fillText(chart.spec.x, (chart.left + right) / 2, chart.height - 2);
  context.save();
  context.translate(NAME, (MARGIN.top + bottom) / 2);
  context.rotate(-Math.PI / 2);
  context.fillText(chart.spec.y, 0, 0);
  context.restore();
  drawBudgets(chart, context, bottom);
}

function drawBudgets(chart, context, bottom) {
  context.setLineDash([5, 4]);
  context.strokeStyle = context.fillStyle = chart.colours.soft;
  context.textAlign = "center";
  let taken = -Infinity;
  for (const budget of [...chart.spec.budgets].sort((a, b) => a - b)) {
    const x = chart.px(budget);
    if (x < chart.left || x > chart.width - MARGIN.right) continue;
    context.beginPath();
    context.moveTo(x, MARGIN.top);
    context.lineTo(x, bottom);
    context.stroke();
    const text = `≤ ${budget} ms`;
    const half = context.measureText(text).width / 2 + 3;
    if (x - half > taken) {
      context.fillText(text, Math.min(x, chart.width - half), MARGIN.top - 4);
      taken = x + half;
    }
  }
  context.setLineDash([]);
}

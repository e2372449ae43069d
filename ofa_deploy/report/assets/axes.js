// The frame of a chart: grid, numbers, names of the axes, latency budgets.

function drawAxes(chart, context) {
  const right = chart.width - MARGIN.right;
  const bottom = chart.height - MARGIN.bottom;
  context.font = "13px system-ui, sans-serif";
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
  for (const { at, text } of ticks(chart.view.y0, chart.view.y1, Math.max(2, chart.height / 60))) {
    const y = Math.round(chart.py(at)) + 0.5;
    context.moveTo(MARGIN.left, y);
    context.lineTo(right, y);
    context.fillText(text, MARGIN.left - 8, y);
  }
  context.stroke();
  context.fillStyle = chart.colours.ink;
  context.textAlign = "center";
  context.textBaseline = "bottom";
  context.fillText(chart.spec.x, (MARGIN.left + right) / 2, chart.height - 2);
  context.save();
  context.translate(14, (MARGIN.top + bottom) / 2);
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
    if (x < MARGIN.left || x > chart.width - MARGIN.right) continue;
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

// What charts are drawn with: colours, markers, ticks.

const COLOURS = {
  light: { ink: "#1b1f24", soft: "#57606a", line: "#d8dee4", paper: "#ffffff" },
  dark: { ink: "#e6e9ed", soft: "#9da7b3", line: "#313943", paper: "#14171b" },
};
// Corners of markers for a radius of 1; a circle and a cross of lines are drawn by themselves.
const polygon = (n, turn) => Array.from({ length: n }, (_, i) => {
  const angle = turn + (2 * Math.PI * i) / n;
  return [1.15 * Math.sin(angle), -1.15 * Math.cos(angle)];
});
const MARKERS = {
  "square": [[-0.9, -0.9], [0.9, -0.9], [0.9, 0.9], [-0.9, 0.9]],
  "triangle-up": polygon(3, 0),
  "triangle-down": polygon(3, Math.PI),
  "diamond": polygon(4, 0),
  "pentagon": polygon(5, 0),
  "cross": [[-0.4, -1.1], [0.4, -1.1], [0.4, -0.4], [1.1, -0.4], [1.1, 0.4], [0.4, 0.4],
    [0.4, 1.1], [-0.4, 1.1], [-0.4, 0.4], [-1.1, 0.4], [-1.1, -0.4], [-0.4, -0.4]],
};

function addMarker(context, shape, x, y, r) {
  if (shape === "x") {
    context.moveTo(x - r, y - r);
    context.lineTo(x + r, y + r);
    context.moveTo(x - r, y + r);
    context.lineTo(x + r, y - r);
  } else if (shape in MARKERS) {
    MARKERS[shape].forEach(([dx, dy], i) => {
      if (i === 0) context.moveTo(x + r * dx, y + r * dy);
      else context.lineTo(x + r * dx, y + r * dy);
    });
    context.closePath();
  } else {
    context.moveTo(x + r, y);
    context.arc(x, y, r, 0, 2 * Math.PI);
  }
}

function ticks(low, high, wanted) {
  const rough = (high - low) / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5, 10].find((m) => m * power >= rough) ?? 10);
  const decimals = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  const made = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) {
    made.push({ at: i * step, text: (i * step).toFixed(Math.min(decimals, 20)) });
  }
  return made;
}

const reach = (values, start) => values.reduce(
  ([low, high], v) => [Math.min(low, v), Math.max(high, v)], start);

function pad([low, high]) {
  const margin = 0.06 * (high - low) || 0.1 * Math.abs(high) || 1;
  return [low - margin, high + margin];
}

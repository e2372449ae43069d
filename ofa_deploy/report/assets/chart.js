// One chart: points on a canvas, what is pointed at on a second one above it.

const MARGIN = { right: 16, top: 26, bottom: 44 }; // the left one follows the numbers that stand there
const CELL = 18; // pixels of the grid that finds the point below the pointer
const CROWDED = 400; // points in view beyond which error bars are drawn at the point in focus only

class Chart {
  // hooks: text(chart, s, i) -> lines for the tip; open(chart, s, i); moved(chart)
  constructor(spec, hooks) {
    this.spec = spec;
    this.hooks = hooks;
    this.shown = spec.series.map(() => true);
    this.left = 58;
    this.at = null; // [series, point] under the pointer or the keys
    this.chosen = null; // [series, point] that the sliders chose
    this.limit = null; // { axis, value } of the slider that was moved last
    this.order = spec.series.map((s) => s.x.map((_, i) => i).sort((a, b) => s.x[a] - s.x[b]));
    const series = [...spec.series.keys()];
    this.layers = [...series.filter((s) => spec.series[s].hollow),
      ...series.filter((s) => !spec.series[s].hollow)]; // what was measured on top
    this.canvas = el("canvas", {});
    this.over = el("canvas", { class: "over" });
    this.tip = el("div", { class: "tip", hidden: "" });
    this.plot = el("div", {
      class: "plot", tabindex: "0", role: "application", "aria-roledescription": "chart",
      "aria-label": `${spec.title}. ${spec.y} against ${spec.x}. ` +
        "Left and right move along a front, up and down change the front, Enter opens.",
    }, this.canvas, this.over, this.tip);
    this.full = this.extent();
    this.view = { ...this.full };
    this.listen();
  }

  extent(given) {
    let xs = [Infinity, -Infinity];
    let ys = [Infinity, -Infinity];
    for (const s of this.spec.series) {
      xs = reach(s.xh ?? [], reach(s.xl ?? [], reach(s.x, xs)));
      ys = reach(s.yh ?? [], reach(s.yl ?? [], reach(s.y, ys)));
    }
    xs = reach(this.spec.budgets, xs);
    if (this.spec.line === "zero") ys = reach([0], ys);
    if (this.spec.line === "diagonal") xs = ys = reach(ys, xs);
    const [x0, x1] = pad(xs);
    const [y0, y1] = given ?? pad(ys);
    return { x0, x1, y0, y1 };
  }

  // Common axes: all devices' charts show the same accuracies.
  share(y0, y1) {
    Object.assign(this.full, { y0, y1 });
    Object.assign(this.view, { y0, y1 });
  }

  px(x) {
    const { x0, x1 } = this.view;
    return this.left + ((x - x0) / (x1 - x0)) * (this.width - this.left - MARGIN.right);
  }

  py(y) {
    const { y0, y1 } = this.view;
    return this.height - MARGIN.bottom -
      ((y - y0) / (y1 - y0)) * (this.height - MARGIN.top - MARGIN.bottom);
  }

  value(px, py) {
    const { x0, x1, y0, y1 } = this.view;
    return [
      x0 + ((px - this.left) / (this.width - this.left - MARGIN.right)) * (x1 - x0),
      y0 + ((this.height - MARGIN.bottom - py) / (this.height - MARGIN.top - MARGIN.bottom)) *
        (y1 - y0),
    ];
  }

  inView(x, y) {
    const { x0, x1, y0, y1 } = this.view;
    return x >= x0 && x <= x1 && y >= y0 && y <= y1;
  }

  // One of a few sizes, so that each is drawn once and then copied; small where points crowd.
  radius(s, i) {
    if (s.x.length > CROWDED) return 3;
    return s.size ? Math.sqrt(16 + 8 * Math.round(8 * s.size[i])) : 5.5;
  }

  hollow(s, i) {
    return s.hollow || (s.toldSet ??= new Set(s.told ?? [])).has(i);
  }

  // -- drawing ------------------------------------------------------------------------------

  draw(dark = DARK.matches, scale = window.devicePixelRatio || 1) {
    this.width = this.plot.clientWidth;
    this.height = this.plot.clientHeight;
    if (!this.width || !this.height) return;
    this.colours = dark ? COLOURS.dark : COLOURS.light;
    this.dots = scale;
    for (const canvas of [this.canvas, this.over]) {
      canvas.width = Math.round(this.width * scale);
      canvas.height = Math.round(this.height * scale);
      canvas.getContext("2d").setTransform(scale, 0, 0, scale, 0, 0);
    }
    const context = this.canvas.getContext("2d");
    context.fillStyle = this.colours.paper;
    context.fillRect(0, 0, this.width, this.height);
    this.left = leftMargin(this, context);
    drawAxes(this, context);
    context.save();
    context.beginPath();
    context.rect(this.left, MARGIN.top, this.width - this.left - MARGIN.right,
      this.height - MARGIN.top - MARGIN.bottom);
    context.clip();
    this.cells = new Map();
    this.drawLine(context);
    for (const index of this.layers) {
      if (this.shown[index]) this.drawSeries(context, this.spec.series[index], index);
    }
    context.restore();
    this.drawOver();
  }

  drawLine(context) {
    if (!this.spec.line) return;
    const { x0, x1 } = this.view;
    const [from, to] = this.spec.line === "zero" ? [0, 0] : [x0, x1];
    context.strokeStyle = this.colours.soft;
    context.lineWidth = 1.2;
    context.beginPath();
    context.moveTo(this.px(x0), this.py(from));
    context.lineTo(this.px(x1), this.py(to));
    context.stroke();
  }

  drawSeries(context, s, index) {
    const near = [];
    for (let i = 0; i < s.x.length; i++) if (this.inView(s.x[i], s.y[i])) near.push(i);
    context.strokeStyle = s.colour;
    if (s.joined) this.drawSteps(context, s);
    if (near.length <= CROWDED) {
      context.lineWidth = 1;
      context.globalAlpha = 0.6;
      context.beginPath();
      for (const i of near) this.addBars(context, s, i);
      context.stroke();
      context.globalAlpha = 1;
    }
    const stamps = new Map();
    for (const i of near) {
      const [x, y] = [this.px(s.x[i]), this.py(s.y[i])];
      const [r, hollow] = [this.radius(s, i), this.hollow(s, i)];
      const key = hollow ? -r : r;
      if (!stamps.has(key)) stamps.set(key, this.stamp(s, r, hollow));
      const made = stamps.get(key);
      context.drawImage(made.canvas, x - made.half, y - made.half, 2 * made.half, 2 * made.half);
      this.note(index, i, x, y);
    }
  }

  // A marker as a small picture: copying it is many times as fast as drawing it.
  stamp(s, r, hollow) {
    const half = Math.ceil(1.2 * r + 2);
    const canvas = el("canvas", {});
    canvas.width = canvas.height = Math.ceil(2 * half * this.dots);
    const context = canvas.getContext("2d");
    context.scale(this.dots, this.dots);
    context.beginPath();
    addMarker(context, s.marker, half, half, r);
    const crowded = s.x.length > CROWDED;
    context.lineWidth = crowded ? 1.2 : 1.6;
    // A rim sets a filled marker off from those below it.
    context.strokeStyle = hollow || crowded || s.marker === "x" ? s.colour : this.colours.paper;
    context.fillStyle = hollow ? this.colours.paper : s.colour;
    if (s.marker !== "x") context.fill();
    context.stroke();
    return { canvas, half };
  }

  drawSteps(context, s) {
    context.lineWidth = 2;
    context.beginPath();
    let last = null;
    for (const i of s.steps) {
      const x = this.px(s.x[i]);
      const y = this.py(s.y[i]);
      if (last === null) context.moveTo(x, y);
      else context.lineTo(x, last);
      context.lineTo(x, y);
      last = y;
    }
    context.stroke();
  }

  addBars(context, s, i) {
    const x = this.px(s.x[i]);
    const y = this.py(s.y[i]);
    if (s.xl && s.xl[i] < s.xh[i]) {
      context.moveTo(this.px(s.xl[i]), y);
      context.lineTo(this.px(s.xh[i]), y);
    }
    if (s.yl && s.yl[i] < s.yh[i]) {
      context.moveTo(x, this.py(s.yl[i]));
      context.lineTo(x, this.py(s.yh[i]));
    }
  }

  drawOver() {
    const context = this.over.getContext("2d");
    context.clearRect(0, 0, this.width, this.height);
    if (this.limit) this.drawLimit(context);
    if (this.box) {
      const [a, b, c, d] = this.box;
      context.strokeStyle = this.colours.ink;
      context.lineWidth = 1;
      context.strokeRect(Math.min(a, c), Math.min(b, d), Math.abs(a - c), Math.abs(b - d));
    }
    if (this.chosen) this.ring(context, this.chosen, 7, [3, 3]);
    if (this.at) this.ring(context, this.at, 4, []);
    this.showTip();
  }

  drawLimit(context) {
    const { axis, value } = this.limit;
    context.strokeStyle = this.colours.ink;
    context.lineWidth = 1.5;
    context.beginPath();
    if (axis === "x") {
      context.moveTo(this.px(value), MARGIN.top);
      context.lineTo(this.px(value), this.height - MARGIN.bottom);
    } else {
      context.moveTo(this.left, this.py(value));
      context.lineTo(this.width - MARGIN.right, this.py(value));
    }
    context.stroke();
  }

  ring(context, [s, i], beyond, dashes) {
    const series = this.spec.series[s];
    if (!this.inView(series.x[i], series.y[i])) return;
    const [x, y] = [this.px(series.x[i]), this.py(series.y[i])];
    context.strokeStyle = series.colour;
    context.lineWidth = 1.5;
    context.beginPath();
    this.addBars(context, series, i);
    context.stroke();
    context.setLineDash(dashes);
    context.strokeStyle = this.colours.ink;
    context.lineWidth = 2;
    context.beginPath();
    context.arc(x, y, this.radius(series, i) + beyond, 0, 2 * Math.PI);
    context.stroke();
    context.setLineDash([]);
  }

  showTip() {
    this.tip.hidden = !this.at;
    if (!this.at) return;
    const [s, i] = this.at;
    const lines = this.hooks.text(this, s, i);
    this.tip.replaceChildren(...lines.map((line, n) => el(n ? "div" : "strong", {}, line)));
    const [x, y] = [this.px(this.spec.series[s].x[i]), this.py(this.spec.series[s].y[i])];
    const { offsetWidth: w, offsetHeight: h } = this.tip;
    const left = x + 16 + w > this.width ? Math.max(0, x - 16 - w) : x + 16;
    const top = Math.max(0, Math.min(y - h / 2, this.height - h));
    this.tip.style.transform = `translate(${Math.round(left)}px, ${Math.round(top)}px)`;
  }

  // -- finding and moving -------------------------------------------------------------------

  note(s, i, px, py) {
    const key = Math.floor(px / CELL) * 65536 + Math.floor(py / CELL);
    const cell = this.cells.get(key);
    if (cell) cell.push([s, i, px, py]);
    else this.cells.set(key, [[s, i, px, py]]);
  }

  nearest(px, py) {
    let best = null;
    let least = 20 * 20;
    const [column, row] = [Math.floor(px / CELL), Math.floor(py / CELL)];
    for (let c = column - 2; c <= column + 2; c++) {
      for (let r = row - 2; r <= row + 2; r++) {
        for (const [s, i, x, y] of this.cells.get(c * 65536 + r) ?? []) {
          const distance = (x - px) ** 2 + (y - py) ** 2;
          if (distance <= least) [least, best] = [distance, [s, i]];
        }
      }
    }
    return best;
  }

  point(at) {
    const same = at === this.at || (at && this.at && at[0] === this.at[0] && at[1] === this.at[1]);
    if (same) return;
    this.at = at;
    this.refresh();
  }

  refresh() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this.drawOver();
    });
  }

  zoom(view) {
    this.view = view;
    this.draw();
    this.hooks.moved(this);
  }

  scale(factor) {
    const { x0, x1, y0, y1 } = this.view;
    const s = this.at && this.spec.series[this.at[0]];
    const [x, y] = s ? [s.x[this.at[1]], s.y[this.at[1]]] : [(x0 + x1) / 2, (y0 + y1) / 2];
    this.zoom({ x0: x + (x0 - x) * factor, x1: x + (x1 - x) * factor,
      y0: y + (y0 - y) * factor, y1: y + (y1 - y) * factor });
  }

  get zoomed() {
    return ["x0", "x1", "y0", "y1"].some((k) => this.view[k] !== this.full[k]);
  }

  // Along the front by `by` points, or to the nearest point of the next one that is shown.
  step(by, front) {
    const seen = this.spec.series.map((_, s) => s).filter((s) => this.shown[s]);
    if (!seen.length) return;
    if (!this.at || !this.shown[this.at[0]]) {
      this.point([seen[0], this.order[seen[0]].at(by === Infinity ? -1 : 0)]);
    } else if (front) {
      const [s, i] = this.at;
      const next = seen[(seen.indexOf(s) + front + seen.length) % seen.length];
      const { x } = this.spec.series[next];
      const here = this.spec.series[s].x[i];
      this.point([next, this.order[next].reduce(
        (a, b) => (Math.abs(x[b] - here) < Math.abs(x[a] - here) ? b : a))]);
    } else {
      const [s, i] = this.at;
      const to = this.order[s].indexOf(i) + by;
      this.point([s, this.order[s][Math.max(0, Math.min(this.order[s].length - 1, to))]]);
    }
    this.bringIntoView();
    say(this.hooks.text(this, ...this.at).join(", "));
  }

  bringIntoView() {
    const [s, i] = this.at;
    const [x, y] = [this.spec.series[s].x[i], this.spec.series[s].y[i]];
    if (this.inView(x, y)) return;
    const { x0, x1, y0, y1 } = this.view;
    const [w, h] = [(x1 - x0) / 2, (y1 - y0) / 2];
    this.zoom({ x0: x - w, x1: x + w, y0: y - h, y1: y + h });
  }

  // -- what the reader does -----------------------------------------------------------------

  listen() {
    const place = (event) => {
      const box = this.plot.getBoundingClientRect();
      return [event.clientX - box.left, event.clientY - box.top];
    };
    this.plot.addEventListener("pointermove", (event) => {
      const [x, y] = place(event);
      if (this.box) {
        this.box = [this.box[0], this.box[1], x, y];
        this.refresh();
      } else this.point(this.nearest(x, y));
    });
    this.plot.addEventListener("pointerleave", () => this.point(null));
    this.plot.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || event.pointerType === "touch") return;
      const [x, y] = place(event);
      this.plot.setPointerCapture(event.pointerId);
      this.box = [x, y, x, y];
    });
    this.plot.addEventListener("pointerup", (event) => this.released(...place(event)));
    this.plot.addEventListener("pointercancel", () => { this.box = null; this.refresh(); });
    this.plot.addEventListener("dblclick", () => this.zoom({ ...this.full }));
    this.plot.addEventListener("keydown", (event) => this.key(event));
  }

  released(x, y) {
    const [a, b] = this.box ?? [x, y];
    this.box = null;
    if (Math.abs(x - a) > 8 && Math.abs(y - b) > 8) {
      const [p, q] = [this.value(a, b), this.value(x, y)];
      this.zoom({ x0: Math.min(p[0], q[0]), x1: Math.max(p[0], q[0]),
        y0: Math.min(p[1], q[1]), y1: Math.max(p[1], q[1]) });
      return;
    }
    const at = this.nearest(x, y);
    if (at) {
      this.point(at);
      this.hooks.open(this, ...at);
    }
    this.refresh();
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const far = this.at ? Math.ceil(this.order[this.at[0]].length / 10) : 1;
    const keys = {
      ArrowRight: () => this.step(1), ArrowLeft: () => this.step(-1),
      ArrowUp: () => this.step(0, -1), ArrowDown: () => this.step(0, 1),
      PageUp: () => this.step(far), PageDown: () => this.step(-far),
      Home: () => this.step(-Infinity), End: () => this.step(Infinity),
      Enter: () => this.at && this.hooks.open(this, ...this.at),
      Escape: () => this.point(null),
      "+": () => this.scale(0.6), "-": () => this.scale(1 / 0.6), "0": () => this.zoom({ ...this.full }),
    };
    if (!(event.key in keys)) return;
    event.preventDefault();
    keys[event.key]();
  }
}

// A line chart over time, as SVG: it takes its colours from the page, so light and dark need nothing here.

import { el, put, svg } from "./dom";

export interface Series { name: string; colour: string; fill?: boolean; values: (number | null)[] }

/** Where values stand between the bottom (0) and the top (1), and the values that have a line of their own. */
export type Scale = (values: number[]) => { marks: number[]; share: (value: number) => number };

/** From zero to the next round number. */
export const fromZero: Scale = (values) => {
  const top = Math.max(2, nice(Math.max(0, ...values)));
  return { marks: [top / 2, top], share: (value) => value / top };
};

/** From zero to one. */
export const ratio: Scale = () => ({ marks: [0.5, 1], share: (value) => value });

/** By powers of ten, so that microseconds and seconds are seen side by side. */
export const powers: Scale = (values) => {
  const positive = values.filter((value) => value > 0);
  const low = Math.floor(Math.log10(Math.min(0.1, ...positive)));
  const high = Math.max(low + 2, Math.ceil(Math.log10(Math.max(1, ...positive))));
  const marks = Array.from({ length: high - low }, (_, index) => 10 ** (low + 1 + index));
  return { marks, share: (value) => (Math.log10(Math.max(value, 1e-9)) - low) / (high - low) };
};

const WIDTH = 600;
const RIGHT = 6;
const TOP = 8;
const BOTTOM = 18;

/** A chart in a card, with a legend that shows the newest values or those under the pointer. */
export class Chart {
  readonly element: HTMLElement;
  private readonly canvas = svg("svg", { preserveAspectRatio: "none", role: "img" });
  private readonly legend = el("div", "legend");
  private readonly axis = el("div", "axis");
  private series: Series[] = [];
  private span = 1;
  private hovered: number | null = null;

  constructor(title: string, private readonly format: (value: number | null) => string, private readonly scale: Scale = fromZero) {
    this.canvas.setAttribute("aria-label", title);
    const plot = el("div", "plot", this.canvas, this.axis);
    this.element = el("section", "card chart", el("header", "", el("h2", "", title), this.legend), plot);
    plot.addEventListener("pointermove", (event) => {
      const box = this.canvas.getBoundingClientRect();
      this.hovered = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
      this.draw();
    });
    plot.addEventListener("pointerleave", () => {
      this.hovered = null;
      this.draw();
    });
  }

  show(series: Series[], span: number): void {
    this.series = series;
    this.span = span;
    this.draw();
  }

  private draw(): void {
    const height = this.canvas.clientHeight || 150;
    const length = Math.max(0, ...this.series.map((one) => one.values.length));
    const first = this.span + 1 - length;
    const x = (index: number) => ((first + index) / this.span) * (WIDTH - RIGHT);
    const known = this.series.flatMap((one) => one.values.filter((value) => value !== null)).slice(-4 * (this.span + 1));
    const { marks, share } = this.scale(known);
    const floor = height - BOTTOM;
    const y = (value: number) => TOP + (1 - Math.min(1, Math.max(0, share(value)))) * (floor - TOP);
    const parts: SVGElement[] = [svg("line", { x1: 0, x2: WIDTH, y1: floor, y2: floor, class: "base" })];
    for (const mark of marks) parts.push(svg("line", { x1: 0, x2: WIDTH, y1: y(mark), y2: y(mark), class: "grid" }));
    for (const one of this.series) parts.push(...paths(one, x, y, floor));
    let at = length - 1;
    if (this.hovered !== null && length > 0) {
      at = Math.min(length - 1, Math.max(0, Math.round(this.hovered * (WIDTH / (WIDTH - RIGHT)) * this.span - first)));
      parts.push(svg("line", { x1: x(at), x2: x(at), y1: TOP, y2: floor, class: "cross" }));
    }
    this.canvas.setAttribute("viewBox", `0 0 ${WIDTH} ${height}`);
    this.canvas.replaceChildren(...parts);
    this.label(at, length, marks.map((value) => ({ value, top: y(value) })));
  }

  private label(at: number, length: number, lines: { value: number; top: number }[]): void {
    const items = this.series.map((one) => {
      const value = one.values[at] ?? null;
      const key = el("i");
      key.style.background = one.colour;
      return el("span", "", key, one.name, " ", el("b", "", this.format(value)));
    });
    this.legend.replaceChildren(...items);
    const ago = length - 1 - at;
    const marks = lines.map(({ value, top }) => {
      const mark = el("span", "mark", this.format(value));
      mark.style.top = `${top}px`;
      return mark;
    });
    const time = el("span", "time", this.hovered !== null && ago > 0 ? `${ago} s ago` : "now");
    this.axis.replaceChildren(...marks, el("span", "from", this.span < 90 ? `${this.span} s ago` : `${Math.round(this.span / 60)} min ago`), time);
  }
}

/** A small line without axes. */
export class Sparkline {
  readonly element = svg("svg", { class: "spark", preserveAspectRatio: "none", viewBox: "0 0 100 28", "aria-hidden": "true" });

  show(values: (number | null)[], span: number, colour: string): void {
    const top = Math.max(1e-9, ...values.map((value) => value ?? 0));
    const first = span + 1 - values.length;
    const x = (index: number) => ((first + index) / span) * 100;
    const y = (value: number) => 26 - (value / top) * 23;
    this.element.replaceChildren(...paths({ name: "", colour, fill: true, values }, x, y, 27));
  }
}

/** A figure beside its name. */
export class Tile {
  readonly element: HTMLElement;
  private readonly value = el("b");
  private readonly note = el("small");
  private readonly spark = new Sparkline();

  constructor(title: string, private readonly colour: string) {
    this.element = el("section", "card tile", el("h2", "", title), this.value, this.note);
    this.element.append(this.spark.element);
  }

  show(value: string, note: string, values: (number | null)[], span: number): void {
    put(this.value, value);
    put(this.note, note);
    this.spark.show(values, span, this.colour);
  }
}

function paths(one: Series, x: (index: number) => number, y: (value: number) => number, floor: number): SVGElement[] {
  let line = "";
  let area = "";
  let start: number | null = null;
  const close = (end: number) => {
    if (start !== null) area += `L${x(end).toFixed(1)} ${floor.toFixed(1)}L${x(start).toFixed(1)} ${floor.toFixed(1)}Z`;
    start = null;
  };
  one.values.forEach((value, index) => {
    if (value === null) {
      close(index - 1);
      return;
    }
    const point = `${x(index).toFixed(1)} ${y(value).toFixed(1)}`;
    line += `${start === null ? "M" : "L"}${point}`;
    area += `${start === null ? "M" : "L"}${point}`;
    start ??= index;
  });
  close(one.values.length - 1);
  const stroke = svg("path", { d: line, class: "line" });
  stroke.style.stroke = one.colour;
  if (!one.fill) return [stroke];
  const fill = svg("path", { d: area, class: "area" });
  fill.style.fill = one.colour;
  return [fill, stroke];
}

/** The next round number: 1, 2 or 5 of some power of ten. */
function nice(value: number): number {
  if (value <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  for (const step of [1, 2, 5, 10]) if (value <= step * power) return step * power;
  return value;
}

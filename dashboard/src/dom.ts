// Elements without a framework, and numbers as people read them.

type Child = Node | string | null;

export function el<K extends keyof HTMLElementTagNameMap>(tag: K, className = "", ...children: Child[]): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children.filter((child): child is Node | string => child !== null));
  return element;
}

const SVG = "http://www.w3.org/2000/svg";

export function svg<K extends keyof SVGElementTagNameMap>(tag: K, attributes: Record<string, string | number> = {}): SVGElementTagNameMap[K] {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  return element;
}

/** Sets text only where it differs, so that a selection is left alone. */
export function put(element: Element, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}

export function count(value: number): string {
  if (value >= 1e9) return `${trim(value / 1e9)}\u00a0G`;
  if (value >= 1e6) return `${trim(value / 1e6)}\u00a0M`;
  if (value >= 1e4) return `${trim(value / 1e3)}\u00a0k`;
  return Math.round(value).toLocaleString("en");
}

export function perSecond(value: number): string {
  return value > 0 && value < 10 ? value.toFixed(1) : count(value);
}

export function bytes(value: number): string {
  const sign = value < 0 ? "−" : "";
  let rest = Math.abs(value);
  for (const unit of ["B", "kB", "MB", "GB"]) {
    if (rest < 1000 || unit === "GB") return `${sign}${unit === "B" ? Math.round(rest) : trim(rest)}\u00a0${unit}`;
    rest /= 1000;
  }
  return "";
}

export function milliseconds(value: number | null): string {
  if (value === null) return "–";
  if (value >= 1000) return `${trim(value / 1000)}\u00a0s`;
  return value < 1 ? `${Math.max(1, Math.round(value * 1000))}\u00a0µs` : `${trim(value)}\u00a0ms`;
}

export function percent(value: number | null): string {
  if (value === null) return "–";
  return `${(Math.floor(value * 1000) / 10).toFixed(1).replace(/\.0$/, "")}\u00a0%`;
}

export function duration(seconds: number): string {
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} days`;
}

function trim(value: number): string {
  return value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1).replace(/\.0$/, "") : value.toFixed(2).replace(/\.?0+$/, "");
}

// The dashboard: asks for figures every second and whenever something changed, follows the feed, and draws.

import { ask, type Figures, follow, Refused, setToken } from "./api";
import { Chart, powers, ratio, type Series, Tile } from "./chart";
import { bytes, count, duration, el, milliseconds, percent, perSecond, put } from "./dom";
import { History, total } from "./history";
import { Feed } from "./view/feed";
import { Letters } from "./view/letters";
import { Pipeline } from "./view/pipeline";
import { Pools } from "./view/pools";
import { Stores } from "./view/stores";

const FIGURES = "/api/v1/figures";
const STEP_MS = 1000;
/** Soonest after a change that figures are asked for again. */
const SOON_MS = 200;
const PIPELINE_MS = 3000;
const LINES = ["var(--line-a)", "var(--line-b)", "var(--line-c)", "var(--line-d)"];

const history_ = new History();
const tierNames: string[] = [];
const colourOf = (tier: string) => {
  if (!tierNames.includes(tier)) tierNames.push(tier);
  return LINES[tierNames.indexOf(tier) % LINES.length] ?? "";
};

const tiles = {
  requests: new Tile("Requests", "var(--line-a)"),
  latency: new Tile("Latency, p99", "var(--line-b)"),
  hits: new Tile("Answered by a tier", "var(--line-c)"),
  saved: new Tile("Memory saved by sharing", "var(--good)"),
};
const charts = {
  requests: new Chart("Requests per second", (value) => perSecond(value ?? 0)),
  latency: new Chart("Latency", milliseconds, powers),
  tiers: new Chart("Hit ratio by tier", percent, ratio),
  backlog: new Chart("Events waiting to be published", (value) => (value === null ? "–" : count(value))),
};
const pools = new Pools(colourOf);
const stores = new Stores();
const feed = new Feed();
const pipeline = new Pipeline();
const letters = new Letters();

const state = el("span", "pill");
const about = el("span", "about");
const trouble = el("p", "trouble");
trouble.hidden = true;
const theme = el("button", "theme", "◐");

function layout(): void {
  const title = el("h1", "", el("span", "mark"), "Flyweight");
  const links = el("nav", "", link("/docs", "API"), link("/openapi.json", "OpenAPI"), theme);
  const top = el("header", "top", title, state, about, links);
  const figures = el("div", "tiles", ...Object.values(tiles).map((tile) => tile.element));
  const lines = el("div", "charts", ...Object.values(charts).map((chart) => chart.element));
  const sides = el("div", "sides", stores.element, feed.element);
  const app = document.getElementById("app");
  app?.replaceChildren(top, trouble, figures, lines, pools.element, sides, pipeline.element, letters.element);
}

function link(path: string, text: string): HTMLElement {
  const anchor = el("a", "", text);
  anchor.href = path;
  return anchor;
}

async function refresh(): Promise<void> {
  try {
    const figures = await ask<Figures>(FIGURES);
    trouble.hidden = true;
    history_.take(figures, performance.now());
    head(figures);
    pools.show(history_);
  } catch (error) {
    fail(error);
  }
}

function head(figures: Figures): void {
  state.dataset["status"] = figures.status;
  put(state, figures.status);
  const processes = history_.processes > 1 ? `${history_.processes} processes` : `up ${duration(figures.uptime_s)}`;
  put(about, `${figures.service} · ${figures.version} · ${processes} · ${count(figures.live.connections)} live`);
  stores.show(figures.checks, history_);
}

function fail(error: unknown): void {
  trouble.hidden = false;
  if (error instanceof Refused && error.status === 401) {
    if (!trouble.querySelector("form")) trouble.replaceChildren("This service asks for a token.", tokenForm());
    return;
  }
  state.dataset["status"] = "unhealthy";
  put(state, "no answer");
  put(trouble, error instanceof Refused ? error.message : "The service does not answer; this page goes on asking.");
}

function tokenForm(): HTMLElement {
  const input = el("input");
  input.type = "password";
  input.placeholder = "Bearer token";
  const form = el("form", "", input, el("button", "", "Use it"));
  form.onsubmit = (event) => {
    event.preventDefault();
    setToken(input.value.trim());
    trouble.replaceChildren();
    void refresh();
  };
  return form;
}

/** One more point of every chart. */
function step(): void {
  history_.note(performance.now());
  const { moments, span } = history_;
  const last = moments.length - 1;
  const line = (name: string, colour: string, values: (number | null)[], fill = false): Series => ({ name, colour, values, fill });
  charts.requests.show([
    line("reads", "var(--line-a)", moments.map((moment) => moment.reads), true),
    line("writes", "var(--line-b)", moments.map((moment) => moment.writes), true),
    line("failed", "var(--bad)", moments.map((moment) => moment.errors)),
  ], span);
  const p50 = moments.map((_, index) => history_.percentile(index, 0.5));
  const p99 = moments.map((_, index) => history_.percentile(index, 0.99));
  charts.latency.show([line("p50", "var(--line-a)", p50), line("p99", "var(--line-b)", p99)], span);
  charts.backlog.show([line("events", "var(--line-d)", moments.map((moment) => moment.backlog), true)], span);

  const list = history_.pools();
  for (const pool of list) for (const tier of pool.tiers) colourOf(tier.name);
  charts.tiers.show(tierNames.map((name) => line(name, colourOf(name), moments.map((_, index) => history_.tierRatio(index, name)))), span);

  const rates = moments.map((moment) => moment.reads + moment.writes);
  tiles.requests.show(`${perSecond(rates[last] ?? 0)} /s`, `${perSecond(moments[last]?.writes ?? 0)} writes /s`, rates, span);
  tiles.latency.show(milliseconds(p99[last] ?? null), `p50 ${milliseconds(p50[last] ?? null)}`, p99, span);
  const hits = total(list, (pool) => total(pool.tiers, (tier) => tier.hits));
  const misses = total(list, (pool) => pool.tiers[pool.tiers.length - 1]?.misses ?? 0);
  const ratios = moments.map((_, index) => history_.answeredRatio(index));
  tiles.hits.show(percent(hits + misses > 0 ? hits / (hits + misses) : null), `${count(hits)} of ${count(hits + misses)} reads`, ratios, span);
  const [used, saved] = [total(list, (pool) => pool.bytes), Math.max(0, total(list, (pool) => pool.bytes_saved))];
  const entities = total(list, (pool) => pool.entities);
  tiles.saved.show(bytes(saved), `${bytes(used)} used for ${count(entities)} entities`, moments.map((moment) => Math.max(0, moment.saved)), span);
}

/** Calls at once, then after each answer with a pause, also when it failed. */
async function forever(work: () => Promise<void>, pause: number): Promise<void> {
  for (;;) {
    await work().catch(fail);
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
}

function themes(): void {
  const root = document.documentElement;
  const dark = () => root.dataset["theme"] === "dark" || (!root.dataset["theme"] && matchMedia("(prefers-color-scheme: dark)").matches);
  const kept = localStorage.getItem("flyweight-theme");
  if (kept) root.dataset["theme"] = kept;
  theme.title = "Light or dark";
  theme.onclick = () => {
    root.dataset["theme"] = dark() ? "light" : "dark";
    localStorage.setItem("flyweight-theme", root.dataset["theme"]);
  };
}

let soon: ReturnType<typeof setTimeout> | undefined;
themes();
layout();
feed.connected(false);
void forever(refresh, STEP_MS);
void forever(async () => letters.refresh(await pipeline.refresh()), PIPELINE_MS);
setInterval(step, STEP_MS);
follow(
  (event) => {
    feed.add(event);
    soon ??= setTimeout(() => {
      soon = undefined;
      void refresh();
    }, SOON_MS);
  },
  (connected) => feed.connected(connected),
);

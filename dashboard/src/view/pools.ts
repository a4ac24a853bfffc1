// The pools: what they hold, what sharing saves, how often each tier answers.

import type { Pool } from "../api";
import { Sparkline } from "../chart";
import { bytes, count, el, percent, perSecond, put } from "../dom";
import { History } from "../history";

interface Row {
  element: HTMLElement;
  entities: HTMLElement;
  distinct: HTMLElement;
  sharedBar: HTMLElement;
  memory: HTMLElement;
  saved: HTMLElement;
  memoryBar: HTMLElement;
  savedBar: HTMLElement;
  tiers: HTMLElement;
  rate: HTMLElement;
  spark: Sparkline;
}

export class Pools {
  readonly element: HTMLElement;
  private readonly list = el("div", "pools");
  private readonly rows = new Map<string, Row>();

  constructor(private readonly colourOf: (tier: string) => string) {
    this.element = el("section", "card wide", el("header", "", el("h2", "", "Pools")), this.list);
  }

  show(history: History): void {
    const pools = history.pools();
    const largest = Math.max(1, ...pools.map((pool) => pool.bytes + Math.max(0, pool.bytes_saved)));
    for (const pool of pools) {
      let row = this.rows.get(pool.name);
      if (!row) {
        row = makeRow(pool);
        this.rows.set(pool.name, row);
        this.list.append(row.element);
      }
      this.fill(row, pool, history, largest);
    }
  }

  private fill(row: Row, pool: Pool, history: History, largest: number): void {
    put(row.entities, count(pool.entities));
    put(row.distinct, pool.distinct > 0 ? `${count(pool.distinct)} distinct` : "not shared");
    row.sharedBar.style.width = width(pool.entities > 0 ? (pool.shared > 0 ? pool.distinct / pool.entities : 1) : 0);
    put(row.memory, bytes(pool.bytes));
    put(row.saved, pool.bytes_saved > 0 ? `${bytes(pool.bytes_saved)} saved` : "nothing saved");
    row.memoryBar.style.width = width(pool.bytes / largest);
    row.savedBar.style.width = width(Math.max(0, pool.bytes_saved) / largest);
    row.tiers.replaceChildren(...pool.tiers.map((tier) => this.meter(tier.name, tier.hits, tier.misses)));
    const values = history.moments.map((moment) => moment.pools.get(pool.name)?.requests ?? 0);
    put(row.rate, `${perSecond(values[values.length - 1] ?? 0)} /s`);
    row.spark.show(values, history.span, "var(--line-a)");
  }

  private meter(name: string, hits: number, misses: number): HTMLElement {
    const ratio = hits + misses > 0 ? hits / (hits + misses) : null;
    const bar = el("i");
    bar.style.width = width(ratio ?? 0);
    bar.style.background = this.colourOf(name);
    const meter = el("div", "meter", el("span", "", name), el("div", "bar", bar), el("b", "", percent(ratio)));
    meter.title = `${count(hits)} reads answered, ${count(misses)} passed on`;
    return meter;
  }
}

function makeRow(pool: Pool): Row {
  const [entities, distinct, memory, saved, rate] = [el("b"), el("span"), el("b"), el("span"), el("b")];
  const [sharedBar, memoryBar, savedBar] = [el("i", "a"), el("i", "b"), el("i", "saved")];
  const tiers = el("div", "tiers");
  const spark = new Sparkline();
  const name = el("div", "name", el("b", "", pool.name), el("span", "", pool.entity));
  const element = el(
    "article",
    "",
    name,
    el("div", "figure", el("label", "", "entities"), entities, distinct, el("div", "bar", sharedBar)),
    el("div", "figure", el("label", "", "memory"), memory, saved, el("div", "bar", memoryBar, savedBar)),
    el("div", "figure", el("label", "", "hit ratio by tier"), tiers),
    el("div", "figure rate", el("label", "", "requests"), rate, spark.element as unknown as HTMLElement),
  );
  element.dataset["pool"] = pool.name;
  return { element, entities, distinct, sharedBar, memory, saved, memoryBar, savedBar, tiers, rate, spark };
}

function width(share: number): string {
  return `${(Math.min(1, Math.max(0, share)) * 100).toFixed(1)}%`;
}

// Counters become rates here: what each process counted since it was last asked, summed over the processes that answer.

import type { Figures, Pool } from "./api";

/** Seconds that charts go back at most. */
const SPAN_MAX_S = 300;
/** Seconds that they show at first. */
const SPAN_MIN_S = 60;
/** Seconds that percentiles and ratios look back. */
const WINDOW_S = 10;
/** Seconds after which a process that no longer answers is left out. */
const GONE_S = 15;

const READS = new Set(["get", "list"]);

/** What happened within one second. */
export interface Moment {
  at: number;
  reads: number;
  writes: number;
  errors: number;
  buckets: number[];
  tiers: Map<string, Ratio>;
  pools: Map<string, PoolMoment>;
  /** Events that wait; null where no process knows it of some outbox. */
  backlog: number | null;
  saved: number;
}
export interface PoolMoment { requests: number; hits: number; misses: number }
export interface Ratio { hits: number; misses: number }

interface Known { figures: Figures; at: number; rates: Rates }
interface Rates { reads: number; writes: number; errors: number; buckets: number[]; tiers: Map<string, Ratio>; pools: Map<string, PoolMoment> }

export class History {
  readonly moments: Moment[] = [];
  bounds: number[] = [];
  private readonly known = new Map<string, Known>();

  /** Takes what one process says now. */
  take(figures: Figures, at: number): void {
    this.bounds = figures.bounds_s;
    const before = this.known.get(figures.process);
    const elapsed = before ? (at - before.at) / 1000 : 0;
    const rates = before && elapsed > 0.2 ? rate(before.figures, figures, elapsed) : (before?.rates ?? nothing());
    const kept = before && elapsed <= 0.2 ? { ...before, rates } : { figures, at, rates };
    this.known.set(figures.process, kept);
    for (const [name, process] of this.known) if (at - process.at > GONE_S * 1000) this.known.delete(name);
  }

  /** Notes how things stand, as one more point of every chart. */
  note(at: number): void {
    const moment: Moment = { at, ...nothing(), backlog: 0, saved: 0 };
    for (const { rates, figures } of this.known.values()) {
      moment.reads += rates.reads;
      moment.writes += rates.writes;
      moment.errors += rates.errors;
      rates.buckets.forEach((count, index) => (moment.buckets[index] = (moment.buckets[index] ?? 0) + count));
      for (const [name, ratio] of rates.tiers) addRatio(moment.tiers, name, ratio);
      for (const [name, pool] of rates.pools) {
        const sum = moment.pools.get(name) ?? { requests: 0, hits: 0, misses: 0 };
        sum.requests += pool.requests;
        sum.hits += pool.hits;
        sum.misses += pool.misses;
        moment.pools.set(name, sum);
      }
      moment.saved += total(figures.pools, (pool) => pool.bytes_saved);
    }
    // an outbox belongs to its store, so every process says the same of it
    const outboxes = new Map<string, number | null>();
    for (const { figures } of this.known.values()) {
      for (const { backend, backlog } of figures.outboxes) {
        const other = outboxes.get(backend) ?? null;
        outboxes.set(backend, backlog === null || other === null ? (backlog ?? other) : Math.max(backlog, other));
      }
    }
    const backlogs = [...outboxes.values()];
    moment.backlog = backlogs.includes(null) ? null : total(backlogs, (backlog) => backlog ?? 0);
    this.moments.push(moment);
    while (this.moments.length > SPAN_MAX_S + 1) this.moments.shift();
  }

  /** Seconds that charts go back now. */
  get span(): number {
    return Math.max(SPAN_MIN_S, this.moments.length - 1);
  }

  get processes(): number {
    return this.known.size;
  }

  /** The pools of all processes, summed. */
  pools(): Pool[] {
    const sums = new Map<string, Pool>();
    for (const { figures } of this.known.values()) {
      for (const pool of figures.pools) {
        const sum = sums.get(pool.name);
        sums.set(pool.name, sum ? add(sum, pool) : { ...pool, tiers: pool.tiers.map((tier) => ({ ...tier })) });
      }
    }
    return [...sums.values()];
  }

  /** A percentile of the answers' times around a moment, in milliseconds; null where nothing was asked. */
  percentile(index: number, share: number): number | null {
    const sums: number[] = [];
    for (const moment of this.window(index)) moment.buckets.forEach((count, at) => (sums[at] = (sums[at] ?? 0) + count));
    const all = sums[sums.length - 1] ?? 0;
    if (all < 0.05) return null;
    const rank = all * share;
    for (let at = 0; at < sums.length; at++) {
      const upto = sums[at] ?? 0;
      if (upto < rank) continue;
      const upper = this.bounds[at];
      const lower = this.bounds[at - 1] ?? 0;
      if (upper === undefined) return lower * 1000;
      const below = sums[at - 1] ?? 0;
      return (lower + (upper - lower) * ((rank - below) / Math.max(upto - below, 1e-9))) * 1000;
    }
    return null;
  }

  /** The share of reads that a tier answered around a moment; null where it was not asked. */
  tierRatio(index: number, tier: string): number | null {
    let hits = 0;
    let misses = 0;
    for (const moment of this.window(index)) {
      hits += moment.tiers.get(tier)?.hits ?? 0;
      misses += moment.tiers.get(tier)?.misses ?? 0;
    }
    return hits + misses < 0.05 ? null : hits / (hits + misses);
  }

  /** The share of reads that any tier answered around a moment; null where nothing was read. */
  answeredRatio(index: number): number | null {
    let hits = 0;
    let misses = 0;
    for (const { pools } of this.window(index)) {
      for (const pool of pools.values()) {
        hits += pool.hits;
        misses += pool.misses;
      }
    }
    return hits + misses < 0.05 ? null : hits / (hits + misses);
  }

  private window(index: number): Moment[] {
    return this.moments.slice(Math.max(0, index - WINDOW_S + 1), index + 1);
  }
}

export function total<T>(list: T[], value: (one: T) => number): number {
  return list.reduce((sum, one) => sum + value(one), 0);
}

function nothing(): Rates {
  return { reads: 0, writes: 0, errors: 0, buckets: [], tiers: new Map(), pools: new Map() };
}

function rate(before: Figures, now: Figures, elapsed: number): Rates {
  const rates = nothing();
  const per = (later: number, earlier: number | undefined) => Math.max(0, later - (earlier ?? 0)) / elapsed;
  for (const pool of now.pools) {
    const was = before.pools.find((other) => other.name === pool.name);
    const moment = { requests: 0, hits: 0, misses: 0 };
    for (const operation of pool.operations) {
      const earlier = was?.operations.find((other) => other.operation === operation.operation);
      const requests = per(operation.requests, earlier?.requests);
      moment.requests += requests;
      if (READS.has(operation.operation)) rates.reads += requests;
      else rates.writes += requests;
      rates.errors += per(operation.errors, earlier?.errors);
      operation.buckets.forEach((count, index) => {
        rates.buckets[index] = (rates.buckets[index] ?? 0) + per(count, earlier?.buckets[index]);
      });
    }
    pool.tiers.forEach((tier, index) => {
      const earlier = was?.tiers[index];
      const ratio = { hits: per(tier.hits, earlier?.hits), misses: per(tier.misses, earlier?.misses) };
      addRatio(rates.tiers, tier.name, ratio);
      moment.hits += ratio.hits;
      if (index === pool.tiers.length - 1) moment.misses = ratio.misses;
    });
    rates.pools.set(pool.name, moment);
  }
  return rates;
}

function addRatio(all: Map<string, Ratio>, name: string, ratio: Ratio): void {
  const sum = all.get(name) ?? { hits: 0, misses: 0 };
  all.set(name, { hits: sum.hits + ratio.hits, misses: sum.misses + ratio.misses });
}

function add(sum: Pool, pool: Pool): Pool {
  const tiers = sum.tiers.map((tier, index) => {
    const other = pool.tiers[index];
    return { ...tier, hits: tier.hits + (other?.hits ?? 0), misses: tier.misses + (other?.misses ?? 0), entries: tier.entries + (other?.entries ?? 0) };
  });
  return {
    ...sum,
    tiers,
    entities: sum.entities + pool.entities,
    distinct: sum.distinct + pool.distinct,
    shared: sum.shared + pool.shared,
    bytes: sum.bytes + pool.bytes,
    bytes_saved: sum.bytes_saved + pool.bytes_saved,
    evictions: sum.evictions + pool.evictions,
  };
}

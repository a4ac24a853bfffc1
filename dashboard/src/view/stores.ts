// The parts outside the process: whether each answers, and how fast.

import type { Check } from "../api";
import { Sparkline } from "../chart";
import { el, milliseconds, put } from "../dom";
import type { History } from "../history";

interface Card { element: HTMLElement; state: HTMLElement; latency: HTMLElement; spark: Sparkline; values: number[] }

export class Stores {
  readonly element: HTMLElement;
  private readonly list = el("div", "stores");
  private readonly cards = new Map<string, Card>();

  constructor() {
    this.element = el("section", "card", el("header", "", el("h2", "", "Stores")), this.list);
  }

  show(checks: Record<string, Check>, history: History): void {
    for (const [name, check] of Object.entries(checks)) {
      let card = this.cards.get(name);
      if (!card) {
        const [state, latency, spark] = [el("small"), el("b"), new Sparkline()];
        const head = el("div", "", el("i", "dot"), el("strong", "", name));
        const element = el("article", "", head, latency, state);
        element.append(spark.element);
        card = { element, state, latency, spark, values: [] };
        this.cards.set(name, card);
        this.list.append(element);
      }
      card.element.dataset["status"] = check.status;
      put(card.latency, milliseconds(check.latency_ms));
      put(card.state, check.message ?? (check.status === "healthy" ? "answers" : check.status));
      card.values.push(check.latency_ms);
      while (card.values.length > history.span + 1) card.values.shift();
      const colour = check.status === "healthy" ? "var(--good)" : "var(--bad)";
      card.spark.show(card.values, history.span, colour);
    }
  }
}

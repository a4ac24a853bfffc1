// The stages that orders go through.

import { ask, optional, type Stage } from "../api";
import { count, el, percent } from "../dom";

const PIPELINE = "/api/v1/pipeline";

export class Pipeline {
  readonly element = el("section", "card wide");
  private readonly stages = el("div", "stages");

  constructor() {
    this.element.append(el("header", "", el("h2", "", "Order pipeline")), this.stages);
    this.element.hidden = true;
  }

  /** Asks for the figures, and says which stages there are: none where this service has no pipeline. */
  async refresh(): Promise<string[]> {
    const pipeline = await optional(ask<{ stages: Stage[] }>(PIPELINE));
    this.element.hidden = pipeline === null;
    const stages = pipeline?.stages ?? [];
    this.stages.replaceChildren(...stages.map(card));
    return stages.map((stage) => stage.stage);
  }
}

function card(stage: Stage): HTMLElement {
  const ended = stage.done + stage.dead_letters;
  const bar = el("i", "a");
  bar.style.width = `${(ended > 0 ? (stage.done / ended) * 100 : 0).toFixed(1)}%`;
  const lost = el("i", "lost");
  lost.style.width = `${(ended > 0 ? (stage.dead_letters / ended) * 100 : 0).toFixed(1)}%`;
  const now = `${count(stage.queued)} queued, ${count(stage.in_flight)} with ${stage.workers} ${stage.workers === 1 ? "worker" : "workers"}`;
  const trouble = `${count(stage.retried)} retried, ${count(stage.dead_letters)} dead`;
  return el(
    "article",
    "",
    el("label", "", stage.stage),
    el("b", "", count(stage.done)),
    el("span", "", ended > 0 ? `${percent(stage.done / ended)} done well` : "nothing yet"),
    el("div", "bar", bar, lost),
    el("small", "", now),
    el("small", "", trouble),
  );
}

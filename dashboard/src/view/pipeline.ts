// The stages that orders go through, and the messages that ended as dead letters, which can be replayed from here.

import { ask, type DeadLetter, Refused, type Stage } from "../api";
import { count, el, percent } from "../dom";

const BASE = "/api/v1";
/** How long the answer to a replay stays. */
const SAID_MS = 5000;

export class Pipeline {
  readonly element = el("section", "card wide");
  private readonly stages = el("div", "stages");
  private readonly letters = el("ol", "letters");
  private readonly said = el("p", "said");
  private readonly all = el("button", "", "Replay all");
  private saidUntil = 0;

  constructor() {
    const dead = el("header", "", el("h3", "", "Dead letters"), this.all);
    this.element.append(el("header", "", el("h2", "", "Order pipeline")), this.stages, dead, this.said, this.letters);
    this.element.hidden = true;
    this.all.onclick = () => this.replay(this.all, `${BASE}/dead-letters/replay`, "All are on their way again.");
  }

  /** Asks for both; where this service has neither, nothing is shown. */
  async refresh(): Promise<void> {
    const [pipeline, letters] = await Promise.all([
      optional<{ stages: Stage[] }>(`${BASE}/pipeline`),
      optional<{ items: DeadLetter[]; total: number }>(`${BASE}/dead-letters?limit=20`),
    ]);
    this.element.hidden = pipeline === null && letters === null;
    const list = letters?.items ?? [];
    this.stages.replaceChildren(...(pipeline?.stages ?? []).map(card));
    this.letters.replaceChildren(...list.map((letter) => this.row(letter)));
    this.all.hidden = list.length === 0;
    if (performance.now() < this.saidUntil) return;
    const shown = list.length < (letters?.total ?? 0) ? `The first ${list.length} of ${count(letters?.total ?? 0)}.` : "";
    this.said.textContent = list.length === 0 ? "None: every message was handled." : shown;
  }

  private row(letter: DeadLetter): HTMLElement {
    const replay = el("button", "", "Replay");
    const path = `${BASE}/dead-letters/${encodeURIComponent(letter.id)}/replay`;
    replay.onclick = () => this.replay(replay, path, `${letter.subject ?? letter.id} is on its way again.`);
    const about = el("div", "", el("b", "", letter.stage), el("code", "", letter.subject ?? letter.id));
    const tried = [letter.class?.replaceAll("_", " "), `${letter.attempts ?? 0} attempts`].filter(Boolean).join(", ");
    return el("li", "", about, el("span", "why", letter.error ?? ""), el("small", "", tried), replay);
  }

  private async replay(button: HTMLButtonElement, path: string, done: string): Promise<void> {
    button.disabled = true;
    try {
      await ask(path, "POST");
      this.said.textContent = done;
    } catch (error) {
      this.said.textContent = error instanceof Error ? error.message : String(error);
    }
    this.saidUntil = performance.now() + SAID_MS;
    button.disabled = false;
    await this.refresh();
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

async function optional<T>(path: string): Promise<T | null> {
  try {
    return await ask<T>(path);
  } catch (error) {
    if (error instanceof Refused && (error.status === 404 || error.status === 403)) return null;
    throw error;
  }
}

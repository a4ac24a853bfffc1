// The stages that orders go through, and the messages that ended as dead letters, which can be replayed from here.

import { ask, type DeadLetter, Refused } from "../api";
import { count, el, percent } from "../dom";

const BASE = "/api/v1";

type Stage = Record<string, unknown> & { name?: string; stage?: string };

export class Pipeline {
  readonly element = el("section", "card wide");
  private readonly stages = el("div", "stages");
  private readonly letters = el("ol", "letters");
  private readonly said = el("p", "said");

  constructor() {
    this.element.append(el("header", "", el("h2", "", "Order pipeline")), this.stages, el("h3", "", "Dead letters"), this.said, this.letters);
    this.element.hidden = true;
  }

  /** Asks for both; where this service has neither, nothing is shown. */
  async refresh(): Promise<void> {
    const [pipeline, letters] = await Promise.all([optional(`${BASE}/pipeline`), optional(`${BASE}/dead-letters?limit=20`)]);
    this.element.hidden = pipeline === null && letters === null;
    if (this.element.hidden) return;
    this.stages.replaceChildren(...stagesOf(pipeline).map(stageCard));
    const list = listOf(letters) as DeadLetter[];
    this.letters.replaceChildren(...list.map((letter) => this.letter(letter)));
    if (!this.said.dataset["kept"]) this.said.textContent = list.length === 0 ? "None. Every message was handled." : "";
  }

  private letter(letter: DeadLetter): HTMLElement {
    const replay = el("button", "", "Replay");
    replay.onclick = async () => {
      replay.disabled = true;
      try {
        await ask(`${BASE}/dead-letters/${encodeURIComponent(letter.id)}/replay`, "POST");
        this.tell(`${letter.id} is on its way again.`);
      } catch (error) {
        this.tell(error instanceof Error ? error.message : String(error));
      }
      await this.refresh();
    };
    const text = (name: string) => (letter[name] === undefined || letter[name] === null ? "" : String(letter[name]));
    const about = el("div", "", el("b", "", text("stage") || "message"), el("code", "", text("key") || letter.id));
    return el("li", "", about, el("span", "why", text("error")), el("small", "", text("attempts") && `${text("attempts")} attempts`), replay);
  }

  private tell(text: string): void {
    this.said.textContent = text;
    this.said.dataset["kept"] = "yes";
    setTimeout(() => delete this.said.dataset["kept"], 5000);
  }
}

function stageCard(stage: Stage): HTMLElement {
  const number = (name: string) => (typeof stage[name] === "number" ? (stage[name] as number) : 0);
  const done = number("done");
  const dead = number("dead_letters") || number("dead");
  const inFlight = number("in_flight") || number("inFlight");
  const bar = el("i", "a");
  bar.style.width = `${(done + dead > 0 ? (done / (done + dead)) * 100 : 0).toFixed(1)}%`;
  const figures = [`${count(inFlight)} in flight`, `${count(number("retries"))} retries`, `${count(dead)} dead`].join(" · ");
  return el(
    "article",
    "",
    el("label", "", stage.name ?? stage.stage ?? "stage"),
    el("b", "", count(done)),
    el("span", "", done + dead > 0 ? `${percent(done / (done + dead))} done well` : "nothing yet"),
    el("div", "bar", bar),
    el("small", "", figures),
  );
}

function stagesOf(answer: unknown): Stage[] {
  const stages = (answer as { stages?: unknown } | null)?.stages;
  if (Array.isArray(stages)) return stages as Stage[];
  if (stages && typeof stages === "object") return Object.entries(stages).map(([name, stage]) => ({ name, ...(stage as Stage) }));
  return [];
}

function listOf(answer: unknown): unknown[] {
  const items = (answer as { items?: unknown } | null)?.items;
  return Array.isArray(items) ? items : [];
}

async function optional(path: string): Promise<unknown> {
  try {
    return await ask(path);
  } catch (error) {
    if (error instanceof Refused && (error.status === 404 || error.status === 403)) return null;
    throw error;
  }
}

// What could not be done: listed, filtered, inspected, replayed and dropped.

import { optional, Refused, why } from "../api";
import { el, put } from "../dom";
import { drop, first, type Letter, type Page, page, type Replayed, replay, replayMany } from "../letters";
import { confirmed } from "./confirm";
import { Filters } from "./filter";
import { type Acts, Row, subjectOf } from "./letter";

/** Letters at first, and with each press of "More". */
const STEP = 20;
/** How often a long replay says how far it is. */
const TELL_MS = 1000;

export class Letters {
  readonly element = el("section", "card wide");
  private readonly head = el("h2", "", "Dead letters");
  private readonly all = el("button");
  private readonly filters = new Filters(() => this.filtered());
  private readonly outcome = el("p", "outcome");
  private readonly list = el("ol", "letters");
  private readonly said = el("p", "said");
  private readonly more = el("button", "", "More");
  private readonly rows = new Map<string, Row>();
  private readonly acts: Acts = { replay: (letter) => this.replay(letter), drop: (letter) => this.drop(letter) };
  private shown: Page = { items: [], total: 0, next_cursor: null };
  private wanted = STEP;
  /** Counts what was asked, so that an answer that is overtaken is not shown. */
  private turn = 0;
  private stop: (() => void) | null = null;

  constructor() {
    this.element.append(
      el("header", "", this.head, this.all),
      this.filters.element,
      this.outcome,
      this.list,
      el("footer", "", this.said, this.more),
    );
    this.element.hidden = true;
    this.head.tabIndex = -1;
    this.outcome.setAttribute("role", "status");
    this.more.ariaLabel = "More dead letters";
    this.more.onclick = () => this.further();
    this.all.onclick = () => this.replayMany();
  }

  /** Asks again for what is shown; where this service keeps no letters, nothing is shown. */
  async refresh(stages: string[] = []): Promise<void> {
    this.filters.offer(stages);
    const turn = ++this.turn;
    const found = await optional(first(this.filters.value, this.wanted));
    if (turn !== this.turn) return;
    this.element.hidden = found === null;
    if (found) this.show(found);
  }

  private async filtered(): Promise<void> {
    this.wanted = STEP;
    // what is shown is not what would be replayed
    this.all.disabled = true;
    this.tell("");
    await this.refreshed();
  }

  private async further(): Promise<void> {
    const { items, next_cursor } = this.shown;
    if (!next_cursor) return;
    this.wanted = items.length + STEP;
    const turn = ++this.turn;
    try {
      const next = await page(this.filters.value, STEP, next_cursor);
      if (turn === this.turn) this.show({ ...next, items: [...items, ...next.items] });
      this.rows.get(next.items[0]?.id ?? "")?.focus();
    } catch (error) {
      this.tell(`No more could be read: ${why(error)}.`, true);
    }
  }

  private show(found: Page): void {
    this.shown = found;
    const { items, total, next_cursor } = found;
    this.filters.offer(items.map((letter) => letter.stage));
    this.arrange(items);
    const none = total === 0;
    const { any } = this.filters;
    this.filters.element.hidden = none && !any && !this.filters.element.contains(document.activeElement);
    const part = items.length < total ? `The first ${exactly(items.length)} of ${exactly(total)}.` : "";
    put(this.said, none ? (any ? "No letter is like that." : "None: nothing is left to be done again.") : part);
    this.more.hidden = next_cursor === null;
    this.offerReplay();
  }

  /** Puts the rows in the order of their letters. What stays is left where it is, with its focus, its selection and what is open. */
  private arrange(items: Letter[]): void {
    const focused = [...this.list.children].findIndex((row) => row.contains(document.activeElement));
    const kept = new Set(items.map((letter) => letter.id));
    for (const [id, row] of this.rows) {
      if (kept.has(id)) continue;
      row.element.remove();
      this.rows.delete(id);
    }
    for (const [index, letter] of items.entries()) {
      let row = this.rows.get(letter.id);
      if (row) row.show(letter);
      else this.rows.set(letter.id, (row = new Row(letter, this.acts)));
      const there = this.list.children[index];
      if (there !== row.element) this.list.insertBefore(row.element, there ?? null);
    }
    if (focused < 0 || this.list.contains(document.activeElement)) return;
    const next = items[Math.min(focused, items.length - 1)];
    if (next) this.rows.get(next.id)?.focus();
    else this.head.focus();
  }

  private offerReplay(): void {
    const { total } = this.shown;
    const focused = this.all === document.activeElement;
    put(this.all, this.stop ? "Stop" : `Replay ${this.filters.any ? "these" : "all"} ${exactly(total)}`);
    this.all.title = this.filters.value.class ? "One by one: the service replays by stage and subject, not by class" : "";
    this.all.hidden = total === 0 && !this.stop;
    this.all.disabled = false;
    if (focused && this.all.hidden) this.head.focus();
  }

  private async replay(letter: Letter): Promise<void> {
    await this.act(letter, () => replay(letter.id), "is on its way again", "was not replayed");
  }

  private async drop(letter: Letter): Promise<void> {
    const question = `Drop ${letter.stage} ${subjectOf(letter)}?`;
    const consequence = "What it stands for will never be done, and the letter is gone. An order that waits for it ends as failed.";
    if (!(await confirmed(question, consequence, "Drop it"))) return;
    await this.act(letter, () => drop(letter.id), "was dropped", "was not dropped");
  }

  private async act(letter: Letter, work: () => Promise<void>, done: string, undone: string): Promise<void> {
    const name = subjectOf(letter);
    try {
      await work();
      this.tell(`${name} ${done}.`);
    } catch (error) {
      const refused = error instanceof Refused ? ` ${undone}` : "";
      this.tell(`${name}${refused}: ${why(error)}.`, true);
    }
    await this.refreshed();
  }

  /** Replays what is found, and may be stopped on the way by the same button. */
  private async replayMany(): Promise<void> {
    if (this.stop) return this.stop();
    let stopped = false;
    let trouble = "";
    let sum: Replayed = { replayed: 0, failed: 0, more: true };
    let told = performance.now();
    this.stop = () => {
      stopped = true;
    };
    this.tell("");
    this.offerReplay();
    try {
      for await (sum of replayMany(this.filters.value)) {
        if (stopped) break;
        if (performance.now() - told < TELL_MS) continue;
        told = performance.now();
        this.tell(`So far ${summed(sum)}.`);
      }
      if (sum.more) trouble = stopped ? " Stopped: there may be more." : " There may be more.";
    } catch (error) {
      trouble = ` It ended early: ${why(error)}.`;
    }
    this.stop = null;
    const sentence = summed(sum);
    this.tell(`${sentence.charAt(0).toUpperCase()}${sentence.slice(1)}.${trouble}`, sum.failed > 0 || trouble !== "");
    await this.refreshed();
  }

  private tell(text: string, bad = false): void {
    put(this.outcome, text);
    this.outcome.classList.toggle("bad", bad);
  }

  /** Asks again because of what somebody did here. */
  private async refreshed(): Promise<void> {
    await this.refresh().catch((error) => this.tell(`The letters could not be read: ${why(error)}.`, true));
  }
}

function summed({ replayed, failed }: Replayed): string {
  const done = replayed === 0 ? "no letter is" : replayed === 1 ? "1 letter is" : `${exactly(replayed)} letters are`;
  const stay = failed === 1 ? "stays" : "stay";
  return `${done} on ${replayed > 1 ? "their" : "its"} way again${failed > 0 ? `, ${exactly(failed)} could not be replayed and ${stay}` : ""}`;
}

function exactly(value: number): string {
  return value.toLocaleString("en");
}

// One dead letter: a line, and under it all that is known, for who inspects it.

import { el, put } from "../dom";
import type { Letter } from "../letters";

export interface Acts {
  replay(letter: Letter): Promise<void>;
  drop(letter: Letter): Promise<void>;
}

const FACTS = ["error", "class", "attempts", "stage", "subject", "trace", "kept since", "last changed", "id"] as const;

export class Row {
  readonly element = el("li");
  private readonly inspect = el("button", "", "Inspect");
  private readonly replay = el("button", "", "Replay");
  private readonly drop = el("button", "", "Drop");
  private readonly stage = el("b");
  private readonly subject = el("code");
  private readonly error = el("span", "why");
  private readonly tried = el("small");
  private readonly details = el("div", "details");
  private readonly facts = new Map(FACTS.map((name) => [name, el("dd")]));
  private readonly payload = el("pre");

  constructor(private letter: Letter, acts: Acts) {
    const buttons = el("div", "actions", this.inspect, this.replay, this.drop);
    this.element.append(el("div", "", this.stage, this.subject), this.error, this.tried, buttons, this.details);
    const facts = [...this.facts].map(([name, value]) => el("div", "", el("dt", "", name), value));
    this.details.append(el("dl", "", ...facts), el("h3", "", "Payload"), this.payload);
    this.details.id = `letter-${letter.id}`;
    this.details.hidden = true;
    this.inspect.setAttribute("aria-controls", this.details.id);
    this.inspect.ariaExpanded = "false";
    this.payload.tabIndex = 0;
    this.inspect.onclick = () => this.open(this.inspect.ariaExpanded !== "true");
    this.replay.onclick = () => once(this.replay, () => acts.replay(this.letter));
    this.drop.onclick = () => once(this.drop, () => acts.drop(this.letter));
    this.show(letter);
  }

  show(letter: Letter): void {
    this.letter = letter;
    const name = subjectOf(letter);
    put(this.stage, letter.stage);
    put(this.subject, name);
    put(this.error, letter.error ?? "");
    put(this.tried, [kind(letter), attempts(letter)].filter(Boolean).join(", "));
    for (const button of [this.inspect, this.replay, this.drop]) button.ariaLabel = `${button.textContent} ${letter.stage} ${name}`;
    this.payload.ariaLabel = `Payload of ${letter.stage} ${name}`;
    if (!this.details.hidden) this.fill();
  }

  focus(): void {
    this.inspect.focus();
  }

  private open(is: boolean): void {
    if (is) this.fill();
    this.details.hidden = !is;
    this.inspect.ariaExpanded = String(is);
  }

  private fill(): void {
    const { letter } = this;
    const values: Record<(typeof FACTS)[number], string | null> = {
      error: letter.error,
      class: kind(letter),
      attempts: letter.attempts === null ? null : letter.attempts.toLocaleString("en"),
      stage: letter.stage,
      subject: letter.subject,
      trace: letter.trace,
      "kept since": moment(letter.created_at),
      "last changed": moment(letter.updated_at),
      id: letter.id,
    };
    for (const [name, value] of this.facts) put(value, values[name] || "none");
    put(this.payload, JSON.stringify(letter.payload ?? null, null, 2));
  }
}

/** What a letter is about, or what it is called where it does not say. */
export function subjectOf(letter: Letter): string {
  return letter.subject || letter.id;
}

function kind(letter: Letter): string | null {
  return letter.class?.replaceAll("_", " ") ?? null;
}

function attempts(letter: Letter): string {
  const made = letter.attempts ?? 0;
  return `${made} ${made === 1 ? "attempt" : "attempts"}`;
}

function moment(at: string): string {
  const time = new Date(at);
  return `${time.toLocaleDateString()} ${time.toLocaleTimeString([], { hour12: false })}`;
}

/** Does what a button is for, once at a time. The button keeps the focus, which one that is disabled loses. */
async function once(button: HTMLButtonElement, work: () => Promise<void>): Promise<void> {
  if (button.ariaDisabled === "true") return;
  button.ariaDisabled = "true";
  try {
    await work();
  } finally {
    button.ariaDisabled = "false";
  }
}

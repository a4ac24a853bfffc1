// Which dead letters are shown: of a stage, of a class, about a subject.

import { el } from "../dom";
import { CLASSES, type Filter } from "../letters";

/** Stages that are no stage of the order pipeline. */
const OTHERS = ["ingest", "events"];
/** So long after the last key a subject is looked for. */
const TYPED_MS = 300;
const SUBJECT_MAX = 128;

export class Filters {
  readonly element: HTMLElement;
  private readonly stage = el("select");
  private readonly class = el("select");
  private readonly subject = el("input");
  private readonly clear = el("button", "", "Clear");
  private readonly known = new Set<string>();
  private typed: ReturnType<typeof setTimeout> | undefined;
  /** What is looked for, which is not yet what is being typed. */
  value: Filter = { stage: "", class: "", subject: "" };

  constructor(private readonly changed: () => void) {
    this.stage.append(option("", "All stages"));
    this.class.append(option("", "All classes"), ...CLASSES.map((name) => option(name, words(name))));
    this.subject.type = "search";
    this.subject.placeholder = "whole id of an order or product";
    this.subject.maxLength = SUBJECT_MAX;
    this.subject.spellcheck = false;
    this.clear.type = "button";
    const form = el("form", "filter", named("Stage", this.stage), named("Class", this.class), named("Subject", this.subject), this.clear);
    form.setAttribute("role", "search");
    form.ariaLabel = "Dead letters";
    form.onsubmit = (event) => {
      event.preventDefault();
      this.tell();
    };
    this.stage.onchange = this.class.onchange = this.subject.onchange = () => this.tell();
    this.subject.oninput = () => {
      clearTimeout(this.typed);
      this.typed = setTimeout(() => this.tell(), TYPED_MS);
    };
    this.clear.onclick = () => {
      form.reset();
      this.tell();
      this.stage.focus();
    };
    this.element = form;
    this.clear.hidden = true;
    this.offer(OTHERS);
  }

  get any(): boolean {
    return Object.values(this.value).some(Boolean);
  }

  /** Stages that can be chosen from now on. */
  offer(stages: string[]): void {
    for (const stage of stages) {
      if (this.known.has(stage)) continue;
      this.known.add(stage);
      this.stage.append(option(stage, words(stage)));
    }
  }

  private tell(): void {
    clearTimeout(this.typed);
    const value = { stage: this.stage.value, class: this.class.value, subject: this.subject.value.trim() };
    const { stage, class: kind, subject } = this.value;
    if (value.stage === stage && value.class === kind && value.subject === subject) return;
    this.value = value;
    this.clear.hidden = !this.any;
    this.changed();
  }
}

function option(value: string, text: string): HTMLOptionElement {
  const element = el("option", "", text);
  element.value = value;
  return element;
}

function named(name: string, field: HTMLElement): HTMLElement {
  return el("label", "", name, field);
}

function words(name: string): string {
  return name.replaceAll("_", " ");
}

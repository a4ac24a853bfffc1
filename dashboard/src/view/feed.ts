// The live events, newest first.

import type { FeedEvent } from "../api";
import { el, put } from "../dom";

const SHOWN = 40;

export class Feed {
  readonly element: HTMLElement;
  private readonly list = el("ol", "feed");
  private readonly empty = el("p", "empty", "Nothing has changed since this page was opened.");
  private readonly state = el("span", "state");

  constructor() {
    const header = el("header", "", el("h2", "", "Live events"), this.state);
    this.element = el("section", "card", header, this.empty, this.list);
  }

  connected(is: boolean): void {
    this.element.dataset["connected"] = String(is);
    put(this.state, is ? "connected" : "connecting …");
  }

  add(event: FeedEvent): void {
    if (event.type === "health_check") return;
    this.empty.remove();
    const happening = event.type.slice(event.entity.length + 1);
    const time = new Date(event.at);
    const item = el(
      "li",
      happening,
      el("span", "kind", happening),
      el("b", "", event.entity.replaceAll("_", " ")),
      el("code", "", event.key),
      el("small", "", `v${event.version}`),
      el("time", "", time.toLocaleTimeString([], { hour12: false })),
    );
    item.title = `${event.id}\n${event.at}`;
    this.list.prepend(item);
    while (this.list.children.length > SHOWN) this.list.lastElementChild?.remove();
  }
}

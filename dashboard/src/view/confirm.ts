// A question before something that cannot be undone.

import { el } from "../dom";

/** Asks; whoever closes it without an answer says no. */
export function confirmed(question: string, consequence: string, yes: string): Promise<boolean> {
  const [head, text] = [el("h2", "", question), el("p", "", consequence)];
  const [keep, go] = [el("button", "", "Keep it"), el("button", "danger", yes)];
  const dialog = el("dialog", "card", head, text, el("div", "actions", keep, go));
  dialog.ariaLabel = question;
  text.id = "consequence";
  dialog.setAttribute("aria-describedby", text.id);
  keep.autofocus = true;
  keep.onclick = () => dialog.close();
  go.onclick = () => dialog.close("yes");
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.onclose = () => {
      dialog.remove();
      resolve(dialog.returnValue === "yes");
    };
  });
}

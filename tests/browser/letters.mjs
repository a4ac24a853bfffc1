// Dead letters on the dashboard: inspected, filtered, replayed and dropped, with the service's own and with ones that are made up here.
import assert from "node:assert/strict";

import { send } from "./browser.mjs";

const LETTERS = "/api/v1/dead-letters";
/** More than the dashboard shows at first. */
const MADE = 25;
const SHOWN = 20;

/** What is said of a completed order, by a template of the service. */
const TEXT = "/api/v1/notifications/templates/told";

/** Makes letters: orders whose message uses what is not given. Gives their subjects. */
export async function makeLetters(url) {
  await send(url, "POST", "/api/v1/notifications/templates", { id: "told", template: "order_completed", subject: "Done", body: "{{ nobody }}" });
  await send(url, "POST", "/api/v1/products", { id: "wanted", name: "Lamp", price: "1.00", stock: MADE });
  const subjects = Array.from({ length: MADE }, (_, n) => `missing-${Date.now()}-${n}`);
  const total = async () => (await list(url, "limit=1")).total;
  const before = await total();
  const items = [{ product_id: "wanted", quantity: 1 }];
  for (const id of subjects) await send(url, "POST", "/api/v1/orders", { id, user_id: "u1", items });
  const deadline = performance.now() + 30_000;
  while ((await total()) < before + MADE) {
    assert.ok(performance.now() < deadline, "the letters are not there");
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return subjects;
}

/** The service's own letters. */
export async function handlesLetters(url, dashboard, subjects) {
  const { page, faults, close } = await dashboard({});
  const { rows, row, press, outcome, filter, rowsAre } = parts(page);
  await rowsAre(SHOWN);
  const { total } = await list(url, "limit=1");
  await page.getByText(`The first ${SHOWN} of ${total}.`).waitFor();
  await page.getByRole("button", { name: "More dead letters" }).click();
  await rowsAre(Math.min(2 * SHOWN, total));
  await isFocused(rows.nth(SHOWN).getByRole("button", { name: /^Inspect/ }));

  const [subject, kept, dropped] = subjects;
  await filter("Subject").fill(subject);
  await rowsAre(1);
  await filter("Class").selectOption("retryable");
  await page.getByText("No letter is like that.").waitFor();
  await filter("Class").selectOption("validation");
  await rowsAre(1);
  await filter("Stage").selectOption("payments");
  await rowsAre(0);
  await filter("Stage").selectOption("notifications");
  await rowsAre(1);

  const { items } = await list(url, `subject=${subject}`);
  await press("Inspect", subject).focus();
  await page.keyboard.press("Enter");
  const facts = await factsOf(row(subject));
  const { error, attempts, trace, id, payload } = items[0];
  const expected = { error, class: "validation", attempts: String(attempts), stage: "notifications", subject, trace, id };
  for (const [name, value] of Object.entries(expected)) assert.equal(facts[name], value, name);
  assert.equal(await row(subject).locator("pre").textContent(), JSON.stringify(payload, null, 2));
  for (let n = 0; n < 2; n++) await page.waitForResponse((response) => response.url().includes(`${LETTERS}?`));
  assert.ok(await row(subject).locator("pre").isVisible(), "it is closed when the letters are read again");
  await isFocused(press("Inspect", subject));

  await send(url, "PATCH", TEXT, { body: "Your order is there." });
  await press("Replay", subject).click();
  await outcome(`${subject} is on its way again.`);
  await rowsAre(0);

  await page.getByRole("button", { name: "Clear" }).click();
  await rowsAre(SHOWN);
  await filter("Subject").fill(dropped);
  await rowsAre(1);
  await press("Drop", dropped).click();
  await page.getByRole("dialog").waitFor();
  await page.keyboard.press("Escape");
  await page.getByRole("dialog").waitFor({ state: "detached" });
  assert.equal((await list(url, `subject=${dropped}`)).total, 1, "it is dropped without a yes");
  await press("Drop", dropped).click();
  await page.getByRole("button", { name: "Drop it" }).click();
  await outcome(`${dropped} was dropped.`);
  await rowsAre(0);
  await isFocused(page.getByRole("heading", { name: "Dead letters" }));
  assert.equal((await list(url, `subject=${dropped}`)).total, 0);
  assert.equal((await list(url, `subject=${kept}`)).total, 1);
  assert.deepEqual(faults, []);
  await close();
}

/** Letters and answers that the service seldom has. */
export async function tellsTheTruthOfLetters(dashboard) {
  const made = (n, stage, kind) => ({
    id: `letter-${n}`, version: 1, created_at: "2026-01-01T00:00:00Z", updated_at: "2026-01-01T00:00:00Z",
    stage, subject: `order-${n}`, class: kind, error: "<img src=x onerror=alert(1)>", attempts: 3, trace: "t", payload: { n },
  });
  let letters = ["payments", "payments", "payments", "inventory"].map((stage, n) => made(n, stage, n < 2 ? "retryable" : "system"));
  const answers = [
    { replayed: 1000, failed: 2, more: true, next_cursor: "a" },
    { replayed: 240, failed: 0, more: true, next_cursor: "b" },
    { replayed: 0, failed: 1, more: false },
    { replayed: 5, failed: 0, more: true, next_cursor: "c" },
  ];
  const calls = [];
  let held = Promise.resolve();
  const { page, faults, close } = await dashboard({}, async (context) => {
    await context.route(`**${LETTERS}**`, async (route) => {
      const request = route.request();
      const { pathname, searchParams } = new URL(request.url());
      const json = (json, status = 200) => route.fulfill({ status, json });
      if (request.method() === "GET") {
        const fits = (letter) => ["stage", "class", "subject"].every((name) => (searchParams.get(name) ?? letter[name]) === letter[name]);
        const items = letters.filter(fits);
        const text = JSON.stringify({ items, total: items.length, next_cursor: null });
        return route.fulfill({ contentType: "application/json", body: text.replace('"n":3', '"n":12345678901234567890') });
      }
      const [, id, replay] = pathname.match(/dead-letters\/([^/]+)(\/replay)?$/);
      calls.push([request.method(), id, request.postDataJSON()]);
      await held;
      if (id === "replay") return json(answers.shift());
      if (id === "letter-2") return json({ status: 409, detail: "something is still to be given back" }, 409);
      letters = letters.filter((letter) => letter.id !== id);
      return route.fulfill({ status: replay ? 202 : 204 });
    });
  });
  const { row, press, outcome, filter, rowsAre } = parts(page);
  await rowsAre(4);
  await press("Inspect", "order-3").click();
  assert.equal((await factsOf(row("order-3"))).error, "<img src=x onerror=alert(1)>");
  assert.match(await row("order-3").locator("pre").textContent(), /"n": 12345678901234567890\n/);

  await filter("Stage").selectOption("payments");
  await page.getByRole("button", { name: "Replay these 3" }).click();
  await outcome("1,240 letters are on their way again, 3 could not be replayed and stay.");
  const steps = [{ stage: "payments" }, { stage: "payments", cursor: "a" }, { stage: "payments", cursor: "b" }];
  assert.deepEqual(calls.splice(0), steps.map((body) => ["POST", "replay", body]));

  let release;
  held = new Promise((resolve) => (release = resolve));
  await page.getByRole("button", { name: "Replay these 3" }).click();
  await page.getByRole("button", { name: "Stop" }).click();
  release();
  await outcome("5 letters are on their way again. Stopped: there may be more.");
  assert.deepEqual(calls.splice(0), [["POST", "replay", { stage: "payments" }]]);

  // not by class: those letters one by one, and no other
  await filter("Class").selectOption("system");
  await page.getByRole("button", { name: "Replay these 1" }).click();
  await outcome("No letter is on its way again, 1 could not be replayed and stays.");
  await filter("Class").selectOption("retryable");
  await page.getByRole("button", { name: "Replay these 2" }).click();
  await outcome("2 letters are on their way again.");
  await rowsAre(0);
  assert.deepEqual(calls.splice(0), ["letter-2", "letter-0", "letter-1"].map((id) => ["POST", id, null]));

  await filter("Class").selectOption("");
  await press("Drop", "order-2").click();
  await page.getByRole("button", { name: "Drop it" }).click();
  await outcome("order-2 was not dropped: something is still to be given back.");
  await rowsAre(1);
  assert.deepEqual(calls, [["DELETE", "letter-2", null]]);
  assert.deepEqual(faults.filter((fault) => !fault.startsWith("409")), []);
  await close();
}

async function list(url, query) {
  return (await send(url, "GET", `${LETTERS}?${query}`)).json();
}

/** The parts of the page, as a person finds them. */
function parts(page) {
  const rows = page.locator("ol.letters > li");
  const row = (subject) => rows.filter({ has: page.getByRole("button", { name: new RegExp(`^Inspect .*${subject}$`) }) });
  return {
    rows,
    row,
    press: (what, subject) => row(subject).getByRole("button", { name: new RegExp(`^${what}`) }),
    filter: (name) => page.getByRole("search", { name: "Dead letters" }).getByLabel(name),
    outcome: (text) => page.getByRole("status").filter({ hasText: text }).waitFor(),
    rowsAre: async (count) => {
      const deadline = performance.now() + 10_000;
      while ((await rows.count()) !== count) {
        assert.ok(performance.now() < deadline, `${await rows.count()} letters are shown, not ${count}`);
        await page.waitForTimeout(20);
      }
    },
  };
}

/** Whoever uses the keyboard goes on from where they were. */
async function isFocused(element) {
  await element.and(element.page().locator(":focus")).waitFor();
}

async function factsOf(row) {
  const facts = await row.locator("dl > div").evaluateAll((all) => all.map((fact) => [...fact.children].map((part) => part.textContent)));
  return Object.fromEntries(facts);
}

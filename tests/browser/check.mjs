// usage: check.mjs URL
// The pages in a real browser: they ask no other host, show what is there, follow a change within a second, fit every width,
// and let dead letters be handled.
import assert from "node:assert/strict";

import { SCHEMES, SIZES, launch, open, send } from "./browser.mjs";
import { handlesLetters, makeLetters, tellsTheTruthOfLetters } from "./letters.mjs";

const CHANGE_MS_MAX = 1000;
const [url] = process.argv.slice(2);
const browser = await launch();

/** The dashboard, once it shows something. */
async function dashboard(options, prepare) {
  const opened = await open(browser, `${url}/`, options, prepare);
  await opened.page.locator('.pill[data-status="healthy"]').waitFor();
  await opened.page.locator('[data-connected="true"]').waitFor();
  await opened.page.locator('article[data-pool="products"]').waitFor();
  return opened;
}

async function followsChanges() {
  const { page, faults, close } = await dashboard({});
  const took = [];
  for (let n = 0; n < 5; n++) {
    const key = `seen-${Date.now()}-${n}`;
    const before = performance.now();
    const shown = page.locator("ol.feed li", { hasText: key }).waitFor({ timeout: 10_000 });
    await send(url, "POST", "/api/v1/products", { id: key, name: "Lamp", price: "19.90" });
    await shown;
    took.push(Math.round(performance.now() - before));
  }
  assert.ok(Math.max(...took) < CHANGE_MS_MAX, `a change is shown after ${took} ms`);
  const entities = page.locator('article[data-pool="products"] .figure b').first();
  const [shown, start] = [Number(await entities.textContent()), performance.now()];
  const key = `read-${Date.now()}`;
  await send(url, "POST", "/api/v1/products", { id: key, name: "Lamp", price: "19.90" });
  await send(url, "GET", `/api/v1/products/${key}`);
  while (Number(await entities.textContent()) === shown) {
    assert.ok(performance.now() - start < 3000, "the number of entities stays as it was");
    await page.waitForTimeout(20);
  }
  console.log(`events shown after ${took} ms, figures after ${Math.round(performance.now() - start)} ms`);
  assert.deepEqual(faults, []);
  await close();
}

async function fitsEveryWidth() {
  for (const size of SIZES) {
    for (const scheme of SCHEMES) {
      const { page, faults, close } = await dashboard({ size, scheme });
      await page.getByRole("button", { name: /^Inspect/ }).first().click();
      const over = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      assert.ok(over <= 0, `${size.name}: ${over} pixels too wide`);
      const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
      const first = await ground();
      await page.locator("button.theme").click();
      assert.notEqual(await ground(), first, `${size.name}: light and dark look alike`);
      assert.deepEqual(faults, []);
      await close();
    }
  }
}

async function describesTheApi() {
  const { page, faults, close } = await open(browser, `${url}/docs`);
  await page.locator(".opblock-tag").first().waitFor();
  const documented = await (await fetch(`${url}/openapi.json`)).json();
  const tags = new Set(Object.values(documented.paths).flatMap((item) => Object.values(item).flatMap(({ tags }) => tags)));
  assert.equal(await page.locator(".opblock-tag").count(), tags.size);
  await page.locator('.opblock-tag[data-tag="products"]').click();
  await page.locator("#operations-products-listProducts").click();
  await page.locator("#operations-products-listProducts .execute").click();
  await page.locator("#operations-products-listProducts .live-responses-table .response-col_status", { hasText: "200" }).waitFor();
  assert.deepEqual(faults, []);
  await close();
}

try {
  const subjects = await makeLetters(url);
  await followsChanges();
  await handlesLetters(url, dashboard, subjects);
  await tellsTheTruthOfLetters(dashboard);
  await fitsEveryWidth();
  await describesTheApi();
  console.log("the pages are as they should be");
} finally {
  await browser.close();
}

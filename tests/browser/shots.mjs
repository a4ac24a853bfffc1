// usage: shots.mjs URL DIR [SECONDS]
// Makes some life, and pictures of the pages at every width, light and dark, to be looked at.
import { mkdir } from "node:fs/promises";

import { SCHEMES, SIZES, launch, open, send } from "./browser.mjs";

const [url, dir, seconds = "45"] = process.argv.slice(2);
await mkdir(dir, { recursive: true });
const browser = await launch();
const pages = [];
for (const size of SIZES) {
  for (const scheme of SCHEMES) pages.push({ name: `dashboard-${size.name}-${scheme}`, ...(await open(browser, `${url}/`, { size, scheme })) });
}
pages.push({ name: "docs", ...(await open(browser, `${url}/docs`)) });

const pick = (list) => list[Math.floor(Math.random() * list.length)];
const brands = ["Nordlys", "Kestrel", "Ohm & Sons"];
const end = Date.now() + Number(seconds) * 1000;
for (let n = 0; Date.now() < end; n++) {
  const id = `lamp-${n % 400}`;
  const description = `Made of oak and brass, in a workshop of our own. ${"It lasts. ".repeat(20)}`;
  const product = { name: `Lamp ${n % 400}`, price: (10 + (n % 90) / 10).toFixed(2), category: pick(["light", "desk"]), brand: pick(brands), description };
  if (n < 400) await send(url, "POST", "/api/v1/products", { id, ...product });
  else if (n % 6 === 0) await send(url, "PATCH", `/api/v1/products/${id}`, { stock: n });
  const load = 8 + 6 * Math.sin(n / 60);
  await Promise.all(Array.from({ length: load }, () => send(url, "GET", `/api/v1/products/lamp-${Math.floor(Math.random() ** 2 * Math.min(n + 1, 400))}`)));
  if (n % 25 === 0) {
    await send(url, "POST", "/api/v1/users", { email: `${Date.now()}@example.com`, name: "Ada" });
    await send(url, "GET", "/api/v1/users?limit=5");
  }
  await new Promise((resolve) => setTimeout(resolve, 15));
}
for (const { name, page } of pages) await page.screenshot({ path: `${dir}/${name}.png`, fullPage: true });
await browser.close();

// What the scripts in this folder share: a browser, and pages that note whatever a person should not have to see.
//
// PLAYWRIGHT is the folder of the playwright-core module, CHROMIUM the browser's program.
import { createRequire } from "node:module";

const { chromium } = createRequire(import.meta.url)(process.env.PLAYWRIGHT);

export const SIZES = [
  { name: "phone", width: 390, height: 844 },
  { name: "tablet", width: 1024, height: 768 },
  { name: "wide", width: 1920, height: 1080 },
];
export const SCHEMES = ["light", "dark"];

export function launch() {
  return chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox"] });
}

/** A page of its own context, which `prepare` sees first. `faults` collects requests to other hosts, errors, and answers that are none. */
export async function open(browser, url, { size = SIZES[1], scheme = "light" } = {}, prepare = async () => {}) {
  const viewport = { width: size.width, height: size.height };
  const context = await browser.newContext({ viewport, colorScheme: scheme, reducedMotion: "reduce" });
  await prepare(context);
  const page = await context.newPage();
  const faults = [];
  const own = new URL(url).host;
  page.on("request", (request) => {
    const { protocol, host } = new URL(request.url());
    if (protocol !== "data:" && host !== own) faults.push(`asks another host: ${request.url()}`);
  });
  page.on("response", (response) => {
    const optional = /\/(pipeline|dead-letters)(\?|$)/.test(response.url());
    if (response.status() >= 400 && !optional) faults.push(`${response.status()}: ${response.url()}`);
  });
  page.on("pageerror", (error) => faults.push(`throws: ${error.message}`));
  page.on("console", (message) => {
    // a browser reports each 404 here as well; those that matter were noted above
    if (message.type() === "error" && !message.text().startsWith("Failed to load resource")) faults.push(message.text());
  });
  await page.goto(url, { waitUntil: "load" });
  return { page, faults, close: () => context.close() };
}

/** Tells the API something. */
export async function send(url, method, path, body) {
  const response = await fetch(url + path, {
    method,
    headers: { "content-type": "application/json" },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${await response.text()}`);
  return response;
}

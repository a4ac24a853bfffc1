// Builds the dashboard and gathers the pages of the API's documentation into the data plane's assets.
// With --check nothing is written: it fails where the assets are not what the sources build.
import { build } from "esbuild";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const assets = join(here, "../dataplane/assets");
const swagger = join(here, "node_modules/swagger-ui-dist");
const BUNDLE_BYTES_MAX = 300_000;

const { outputFiles } = await build({
  entryPoints: [join(here, "src/app.ts"), join(here, "src/app.css"), join(here, "src/docs.ts")],
  outdir: "/",
  bundle: true,
  minify: true,
  write: false,
  target: "es2022",
  legalComments: "none",
});
const built = (name) => outputFiles.find((file) => file.path.endsWith(name)).contents;

const files = new Map([
  ["dashboard/index.html", await readFile(join(here, "src/index.html"))],
  ["dashboard/app.js", built("/app.js")],
  ["dashboard/app.css", built("/app.css")],
  ["docs/index.html", await readFile(join(here, "src/docs.html"))],
  ["docs/docs.js", built("/docs.js")],
  ["docs/swagger-ui.css", await swaggerFile("swagger-ui.css")],
  ["docs/swagger-ui-bundle.js", await swaggerFile("swagger-ui-bundle.js")],
  ["docs/LICENSE", await readFile(join(swagger, "LICENSE"))],
  ["docs/NOTICE", await readFile(join(swagger, "NOTICE"))],
  ["docs/swagger-ui-bundle.js.LICENSE.txt", await readFile(join(swagger, "swagger-ui-bundle.js.LICENSE.txt"))],
]);

let bundle = 0;
const stale = [];
for (const [name, contents] of files) {
  if (name.startsWith("dashboard/")) bundle += contents.length;
  const path = join(assets, name);
  if (process.argv.includes("--check")) {
    const found = await readFile(path).catch(() => Buffer.alloc(0));
    if (!found.equals(Buffer.from(contents))) stale.push(name);
  } else {
    await mkdir(dirname(path), { recursive: true });
    await writeFile(path, contents);
  }
}
console.log(`dashboard: ${bundle} bytes`);
if (bundle > BUNDLE_BYTES_MAX) throw new Error(`the dashboard has ${bundle} bytes, more than ${BUNDLE_BYTES_MAX}`);
if (stale.length > 0) throw new Error(`not what the sources build: ${stale.join(", ")}: run make dashboard`);

// A file of the vendored pages, without its comment that names a map.
async function swaggerFile(name) {
  const text = await readFile(join(swagger, name), "utf8");
  return Buffer.from(text.replace(/\n?(\/\/# sourceMappingURL=\S+|\/\*# sourceMappingURL=\S+ \*\/)\s*$/, "\n"));
}

// Builds everything that the node serves into dist: the SDK, the app, the ops page, their pages, precompressed.
import { build } from "esbuild";
import { slimDescriptor } from "./build-descriptor.mjs";
import { createHash } from "node:crypto";
import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import { brotliCompressSync, constants, gzipSync } from "node:zlib";

const here = fileURLToPath(new URL(".", import.meta.url));
const dist = join(here, "dist");
const sdkLimit = 40 * 1024; // bytes of gzip, of the core without the player

for (const name of readdirSync(dist)) {
  if (name !== ".gitignore") rmSync(join(dist, name), { recursive: true });
}

const shared = {
  absWorkingDir: here,
  bundle: true,
  format: "esm",
  target: ["es2022", "chrome109", "firefox115", "safari16"],
  minify: true,
  splitting: true,
  metafile: true,
  legalComments: "none",
  define: { "process.env.NODE_ENV": '"production"' },
};

// The SDK. The app loads a copy whose name holds its hash, so that browsers may keep both for ever.
await build({
  ...shared,
  entryPoints: { amphi: "src/sdk/index.ts" },
  outdir: "dist/sdk",
  chunkNames: "[name]-[hash]",
  plugins: [slimDescriptor],
});
// End-to-end encryption is a file of its own, page's side and worker in one, so nothing of it is in the core.
await build({ ...shared, splitting: false, entryPoints: { "amphi-e2ee": "src/e2ee/index.ts" }, outdir: "dist/sdk" });

function hashedCopy(name) {
  const script = readFileSync(join(dist, `sdk/${name}.js`));
  const path = `/sdk/${name}-${createHash("sha256").update(script).digest("hex").slice(0, 10)}.js`;
  writeFileSync(join(dist, path), script);
  return path;
}
const sdkPath = hashedCopy("amphi");
const e2eePath = hashedCopy("amphi-e2ee");

function types(name, source) {
  execFileSync(
    process.execPath,
    [
      join(here, "node_modules/dts-bundle-generator/dist/bin/dts-bundle-generator.js"),
      "--silent",
      "--no-check",
      "--no-banner",
      "-o",
      join(dist, `sdk/${name}.d.ts`),
      join(here, source),
    ],
    { cwd: here, stdio: "inherit" },
  );
}
types("amphi", "src/sdk/index.ts");
types("amphi-e2ee", "src/e2ee/index.ts");

// The app and the ops page, which know the SDK only by its address.
const pages = await build({
  ...shared,
  entryPoints: { app: "src/app/main.tsx", ops: "src/ops/main.tsx", start: "src/app/start.css" },
  outdir: "dist/assets",
  entryNames: "[name]-[hash]",
  chunkNames: "[name]-[hash]",
  jsx: "automatic",
  jsxImportSource: "preact",
  plugins: [
    {
      name: "sdk-address",
      setup(b) {
        b.onResolve({ filter: /^@amphi\/sdk$/ }, () => ({ path: sdkPath, external: true }));
        b.onResolve({ filter: /^@amphi\/sdk\/e2ee$/ }, () => ({ path: e2eePath, external: true }));
      },
    },
  ],
});

const assets = { sdk: sdkPath };
for (const [path, output] of Object.entries(pages.metafile.outputs)) {
  if (!output.entryPoint) continue;
  const address = "/" + path.replace(/^dist\//, "");
  const name = basename(output.entryPoint).includes("start") ? "start" : output.entryPoint.split("/")[1];
  assets[path.endsWith(".css") ? name + "Css" : name + "Js"] = address;
  if (output.cssBundle) assets[name + "Css"] = "/" + output.cssBundle.replace(/^dist\//, "");
}
for (const name of ["app", "ops", "index"]) {
  const page = readFileSync(join(here, "src/pages", name + ".html"), "utf8");
  const filled = page.replace(/\{\{(\w+)\}\}/g, (_, key) => {
    if (!assets[key]) throw new Error(`src/pages/${name}.html wants ${key}, which was not built`);
    return assets[key];
  });
  writeFileSync(join(dist, name + ".html"), filled);
}
writeFileSync(join(dist, "icon.svg"), readFileSync(join(here, "src/pages/icon.svg")));

function compress(folder) {
  for (const name of readdirSync(folder)) {
    const path = join(folder, name);
    if (statSync(path).isDirectory()) compress(path);
    else if (/\.(js|css|html|svg|ts)$/.test(name)) {
      const raw = readFileSync(path);
      const size = { [constants.BROTLI_PARAM_SIZE_HINT]: raw.length };
      writeFileSync(path + ".br", brotliCompressSync(raw, { params: size }));
      writeFileSync(path + ".gz", gzipSync(raw, { level: 9 }));
    }
  }
}
compress(dist);

const report = [];
for (const folder of ["sdk", "assets"]) {
  for (const name of readdirSync(join(dist, folder)).filter((n) => n.endsWith(".gz"))) {
    report.push([`${folder}/${name.slice(0, -3)}`, statSync(join(dist, folder, name)).size]);
  }
}
mkdirSync(dist, { recursive: true });
for (const [name, size] of report) console.log(`${String(size).padStart(8)} gzip  ${name}`);
const core = report.find(([name]) => name === "sdk/amphi.js")[1];
if (core > sdkLimit) {
  console.error(`the SDK's core has ${core} bytes of gzip, more than ${sdkLimit}`);
  process.exit(1);
}

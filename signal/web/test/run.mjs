// Bundles the unit tests and runs them with node:test.
import { build } from "esbuild";
import { slimDescriptor } from "../build-descriptor.mjs";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const here = fileURLToPath(new URL(".", import.meta.url));
const out = mkdtempSync(join(tmpdir(), "amphi-web-test-"));
const names = readdirSync(here).filter((name) => name.endsWith(".test.ts"));
try {
  await build({
    absWorkingDir: join(here, ".."),
    entryPoints: names.map((name) => "test/" + name),
    outdir: out,
    outExtension: { ".js": ".mjs" },
    bundle: true,
    format: "esm",
    platform: "node",
    target: "node20",
    sourcemap: "inline",
    plugins: [slimDescriptor],
    alias: { "@amphi/sdk": join(here, "../src/sdk/index.ts") },
    define: { TESTDATA: JSON.stringify(join(here, "../../../proto/testdata")) },
    banner: { js: 'import { createRequire } from "node:module"; const require = createRequire(import.meta.url);' },
  });
  const files = names.map((name) => join(out, name.replace(/\.ts$/, ".mjs")));
  const run = spawnSync(process.execPath, ["--enable-source-maps", "--test", "--test-timeout=60000", "--test-force-exit", "--test-concurrency=1", ...files], { stdio: "inherit" });
  process.exitCode = run.status ?? 1;
} finally {
  rmSync(out, { recursive: true, force: true });
}

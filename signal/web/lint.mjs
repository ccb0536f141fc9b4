// The house rules that a compiler does not know.
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join, relative } from "node:path";
import { fileURLToPath } from "node:url";

const here = fileURLToPath(new URL(".", import.meta.url));
const maxLines = 600;
const findings = [];

function files(folder) {
  return readdirSync(folder).flatMap((name) => {
    const path = join(folder, name);
    if (statSync(path).isDirectory()) return name === "gen" ? [] : files(path);
    return /\.(ts|tsx|css|mjs|html)$/.test(name) ? [path] : [];
  });
}

const rules = [
  { pattern: new RegExp("\\b(TO" + "DO|FIX" + "ME|X" + "XX)\\b"), why: "unfinished work belongs in an issue" },
  { pattern: /@ts-(ignore|nocheck|expect-error)|eslint-disable|oxlint-disable/, why: "no suppressed checks" },
  { pattern: /(:\s*any\b|\bas any\b|<any>)/, why: "no any" },
  { pattern: /\b(innerHTML|dangerouslySetInnerHTML|insertAdjacentHTML|document\.write)\b/, why: "no HTML from strings" },
  { pattern: /\bdebugger\b|console\.log\(/, why: "left over from debugging", except: /^test\/|\.mjs$/ },
];

for (const path of [...files(join(here, "src")), ...files(join(here, "test")), join(here, "build.mjs")]) {
  const name = relative(here, path);
  const lines = readFileSync(path, "utf8").split("\n");
  if (lines.length > maxLines) findings.push(`${name}: ${lines.length} lines, more than ${maxLines}`);
  if (/(^|\/)(utils?|common|helpers?)\.[a-z]+$/.test(name)) findings.push(`${name}: name it after its purpose`);
  const app = name.startsWith("src/app/") || name.startsWith("src/ops/");
  lines.forEach((line, i) => {
    const at = `${name}:${i + 1}`;
    if (app && /from "(\.\.\/)+(sdk|e2ee)\//.test(line)) findings.push(`${at}: the app is built on @amphi/sdk only`);
    if (name.startsWith("src/sdk/") && /from "(\.\.\/)+e2ee\//.test(line)) findings.push(`${at}: encryption is no part of the core`);
    if (/^src\/(sdk|e2ee)\//.test(name) && /from "(\.\.\/)+(app|ops)\/|from "preact/.test(line)) {
      findings.push(`${at}: the SDK knows no framework and no app`);
    }
    for (const { pattern, why, except } of rules) {
      if (pattern.test(line) && !except?.test(name)) findings.push(`${at}: ${why}`);
    }
  });
}

for (const finding of findings) console.error(finding);
process.exitCode = findings.length > 0 ? 1 : 0;

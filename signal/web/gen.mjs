// Generates src/gen from proto/ with protoc (Debian's protobuf-compiler, 3.21 or newer) and protoc-gen-es.
import { execFileSync } from "node:child_process";
import { mkdirSync, readdirSync, rmSync } from "node:fs";
import { fileURLToPath } from "node:url";

const here = fileURLToPath(new URL(".", import.meta.url));
const protos = fileURLToPath(new URL("../../proto", import.meta.url));
const out = here + "src/gen";
const files = readdirSync(protos + "/amphi/v1").filter((name) => name.endsWith(".proto"));

rmSync(out, { recursive: true, force: true });
mkdirSync(out, { recursive: true });
execFileSync(
  "protoc",
  [
    "-I",
    protos,
    "--plugin=protoc-gen-es=" + here + "node_modules/.bin/protoc-gen-es",
    "--es_out=" + out,
    "--es_opt=target=ts,import_extension=js,json_types=true",
    ...files.map((name) => "amphi/v1/" + name),
  ],
  { stdio: "inherit" },
);

// Reads every golden message with the web SDK's generated TypeScript: NAME.bin and NAME.json must be the same message,
// and be written again as they are. Run by TestGoldenMessagesInTypeScript; needs signal/web's node_modules.
import { readdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { deepStrictEqual } from "node:assert";
import { fileURLToPath } from "node:url";

const here = fileURLToPath(new URL(".", import.meta.url));
const web = here + "../signal/web/";
const { buildSync } = createRequire(web + "package.json")("esbuild");

const bundle = buildSync({
  stdin: {
    contents: `
      export { fromBinary, toBinary, fromJson, toJson, equals } from "@bufbuild/protobuf";
      export { ClientMessageSchema, ServerMessageSchema } from "./src/gen/amphi/v1/signal_pb.ts";
      export { RoomMessageSchema } from "./src/gen/amphi/v1/room_pb.ts";
      export { RegistryCommandSchema } from "./src/gen/amphi/v1/registry_pb.ts";`,
    resolveDir: web,
    loader: "ts",
  },
  bundle: true,
  format: "esm",
  platform: "node",
  write: false,
});
const code = bundle.outputFiles[0].contents;
const pb = await import("data:text/javascript;base64," + Buffer.from(code).toString("base64"));
const schemas = {
  client: pb.ClientMessageSchema,
  server: pb.ServerMessageSchema,
  room: pb.RoomMessageSchema,
  registry: pb.RegistryCommandSchema,
};

const names = readdirSync(here + "testdata")
  .filter((name) => name.endsWith(".bin"))
  .map((name) => name.slice(0, -".bin".length));
for (const name of names) {
  const schema = schemas[name.split("-")[0]];
  const binary = readFileSync(here + "testdata/" + name + ".bin");
  const json = JSON.parse(readFileSync(here + "testdata/" + name + ".json", "utf8"));
  const message = pb.fromBinary(schema, binary);
  if (message.body.case === undefined) throw new Error(name + ": no body; run make proto");
  if ((message.$unknown ?? []).length > 0) throw new Error(name + ": unknown fields; run make proto");
  if (!pb.equals(schema, message, pb.fromJson(schema, json))) throw new Error(name + ": JSON and binary differ");
  deepStrictEqual(pb.toJson(schema, message), json, name);
  if (!pb.equals(schema, message, pb.fromBinary(schema, pb.toBinary(schema, message)))) throw new Error(name + ": written again it differs");
}
if (names.length < 60) throw new Error("only " + names.length + " golden messages");
console.log(names.length + " golden messages read");

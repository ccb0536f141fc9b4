// The golden messages that Go wrote, read here, and written again to the same bytes' meaning.
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { equals, fromBinary, fromJsonString, toBinary } from "@bufbuild/protobuf";
import type { DescMessage } from "@bufbuild/protobuf";
import { ClientMessageSchema, ServerMessageSchema } from "../src/gen/amphi/v1/signal_pb.js";

declare const TESTDATA: string;

const schemas: Readonly<Record<string, DescMessage>> = { client: ClientMessageSchema, server: ServerMessageSchema };
const files = readdirSync(TESTDATA).filter((name) => name.endsWith(".bin") && schemas[name.split("-")[0]!]);

test("there are golden messages of both directions", () => {
  assert.ok(files.some((name) => name.startsWith("client-")) && files.some((name) => name.startsWith("server-")));
});

for (const file of files) {
  test(`golden ${file}`, () => {
    const schema = schemas[file.split("-")[0]!]!;
    const binary = fromBinary(schema, new Uint8Array(readFileSync(join(TESTDATA, file))));
    const json = fromJsonString(schema, readFileSync(join(TESTDATA, file.replace(/\.bin$/, ".json")), "utf8"));
    assert.ok(equals(schema, binary, json), "binary and JSON differ");
    assert.ok(equals(schema, fromBinary(schema, toBinary(schema, binary)), binary), "it does not survive a round trip");
    assert.notEqual((binary as unknown as { body: { case?: string } }).body.case, undefined, "its kind is not known here");
  });
}

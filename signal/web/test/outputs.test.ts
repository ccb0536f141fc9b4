import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { ControlOutput_Action as Action, OutputKind, OutputState } from "../src/gen/amphi/v1/output_pb.js";
import { ResultSchema } from "../src/gen/amphi/v1/room_pb.js";
import { Pushes, Recordings } from "../src/sdk/actions.js";
import type { CommandBody } from "../src/sdk/client.js";

/** Asks nobody, and notes what was asked. */
function asked() {
  const asks: CommandBody[] = [];
  const ask = (body: CommandBody) => {
    asks.push(body);
    const outputs = [{ id: "ou_1", kind: OutputKind.PUSH, state: OutputState.RETRYING, url: "rtmp://a/b/…", bytes: 7n, retries: 2 }];
    return Promise.resolve(create(ResultSchema, { body: { case: "controlOutput", value: { outputs } } }).body);
  };
  return { asks, ask };
}

test("recordings are asked for with their kind, and answered as plain values", async () => {
  const { asks, ask } = asked();
  const recordings = new Recordings(ask);
  await recordings.record({ stream: "main", variant: "720p" });
  await recordings.recordTracks({ sources: ["mic"] });
  await recordings.startDestination("archive");
  await recordings.pause("ou_1");
  await recordings.stop();
  assert.deepEqual(asks, [
    { case: "controlOutput", value: { stream: "main", variant: "720p", kind: OutputKind.RECORDING, action: Action.START } },
    { case: "controlOutput", value: { tracks: { peers: [], roles: [], sources: ["mic"] }, kind: OutputKind.TRACKS, action: Action.START } },
    { case: "controlOutput", value: { destination: "archive", kind: OutputKind.RECORDING, action: Action.START } },
    { case: "controlOutput", value: { action: Action.PAUSE, id: "ou_1", kind: OutputKind.RECORDING } },
    { case: "controlOutput", value: { action: Action.STOP, id: "", kind: OutputKind.RECORDING } },
  ]);
});

test("a push is answered without its key", async () => {
  const { asks, ask } = asked();
  const pushes = new Pushes(ask);
  const push = await pushes.add("rtmp://a/b/key", { variant: "360p" });
  assert.equal(push.url, "rtmp://a/b/…");
  assert.equal(push.phase, "retrying");
  assert.equal(push.bytes, 7);
  assert.equal((await pushes.remove("ou_1"))[0]?.id, "ou_1");
  await pushes.retry("ou_1");
  assert.deepEqual(asks.map((a) => (a.case === "controlOutput" ? [a.value.action, a.value.url ?? "", a.value.kind] : [])), [
    [Action.START, "rtmp://a/b/key", OutputKind.PUSH],
    [Action.STOP, "", OutputKind.PUSH],
    [Action.RETRY, "", OutputKind.PUSH],
  ]);
});

// What the SDK does with an encryption: asks nothing of the browser, so a fake keeps the books.
import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";
import type { EncryptionError, MediaEncryption } from "../src/sdk/encryption.js";
import { Room } from "../src/sdk/room.js";
import { FakeServer } from "./fake-server.js";
import { fakePlatform, until } from "./fake-platform.js";
import type { FakePlatform } from "./fake-platform.js";

let server: FakeServer;
let platform: FakePlatform;
let room: Room;

beforeEach(async () => {
  server = new FakeServer();
  server.encrypted = true;
  const address = await server.start();
  platform = fakePlatform();
  room = new Room({ server: address, code: "abc-defg-hij", platform });
});

afterEach(async () => {
  await room.leave();
  await server.stop();
});

class FakeEncryption implements MediaEncryption {
  canSend = false;
  readonly connection = {};
  readonly taken: string[] = [];
  readonly heard: string[] = [];
  closed = false;
  tell: (error: EncryptionError) => void = () => undefined;

  allowed<C extends { mimeType: string }>(codecs: readonly C[]): C[] {
    return [...codecs];
  }

  take(transceiver: RTCRtpTransceiver, side: "send" | "receive"): void {
    this.taken.push(`${side} ${transceiver.receiver.track.kind}, ${transceiver.mid === null ? "before" : "after"} the offer`);
  }

  from(_media: MediaStreamTrack, peerId: string): void {
    this.heard.push(peerId);
  }

  report(listener: (error: EncryptionError) => void): void {
    this.tell = listener;
  }

  close(): void {
    this.closed = true;
  }
}

const published = (): number =>
  server.messages("command").filter((m) => m.body.case === "command" && m.body.value.body.case === "publish").length;

test("without a key to send with, an encrypted room hears nothing of this client", async () => {
  const failures: string[] = [];
  room.on("local-failed", ({ source, error }) => failures.push(`${source} ${error.code}`));
  await room.join({ name: "Ada" });
  assert.equal(room.state.template?.endToEndEncrypted, true);
  await room.local.enable("mic");
  assert.deepEqual(failures, ["mic encryption_required"]);
  // An encryption without a key is not better, in any room.
  room.encryption = new FakeEncryption();
  await room.local.enable("camera");
  assert.deepEqual(failures, ["mic encryption_required", "camera encryption_required"]);
  assert.equal(published(), 0);
});

test("every section goes through the encryption before it is offered, and slots say whose media they carry", async () => {
  const encryption = new FakeEncryption();
  encryption.canSend = true;
  room.encryption = encryption;
  const track = { id: "tr_ben", kind: 2, source: "camera" };
  const ben = { id: "pe_ben", name: "Ben", role: "host", tracks: [track] };
  server.state = { seq: 1n, room: "demo", peers: [{ id: "pe_self", name: "Ada", role: "host" }, ben] };
  await room.join({ name: "Ada" });
  await Promise.all([room.local.enable("mic"), room.local.enable("camera")]);
  assert.equal(published(), 2);
  const { transceivers } = platform.connections[0]!;
  assert.equal(encryption.taken.length, transceivers.length);
  assert.deepEqual(encryption.taken.filter((t) => t.startsWith("send")).sort(), [
    "send audio, before the offer",
    "send video, before the offer",
  ]);
  assert.ok(encryption.taken.every((t) => t.endsWith("before the offer")));
  const slot = transceivers.find((t) => t.direction === "recvonly" && t.kind === "video")!;
  await until("the slot has its name", () => slot.mid !== null);
  server.last.send({ case: "slots", value: { generation: 1, slots: [{ mid: slot.mid!, trackId: "tr_ben" }] } });
  await until("the encryption heard of it", () => encryption.heard.includes("pe_ben"));
});

test("its errors are events of the room, and it ends with the room", async () => {
  const encryption = new FakeEncryption();
  room.encryption = encryption;
  const errors: EncryptionError[] = [];
  room.on("encryption-error", (error) => errors.push(error));
  await room.join({ name: "Ada" });
  const error: EncryptionError = { code: "missing_key", side: "receive", peerId: "pe_ben", keyIndex: 4, count: 7 };
  encryption.tell(error);
  assert.deepEqual(errors, [error]);
  await room.leave();
  assert.ok(encryption.closed);
});

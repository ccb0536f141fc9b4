import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";
import { RoomMode } from "../src/gen/amphi/v1/room_pb.js";
import type { RoomEvents } from "../src/sdk/events.js";
import { Room } from "../src/sdk/room.js";
import { FakeServer } from "./fake-server.js";
import { fakePlatform, until } from "./fake-platform.js";
import type { FakePlatform } from "./fake-platform.js";

let server: FakeServer;
let address: string;
let platform: FakePlatform;
let room: Room;

beforeEach(async () => {
  server = new FakeServer();
  address = await server.start();
  platform = fakePlatform();
  room = new Room({ server: address, code: "abc-defg-hij", platform });
});

afterEach(async () => {
  await room.leave();
  await server.stop();
});

const chat = (id: number, text: string) => ({
  case: "message" as const,
  value: { id: BigInt(id), sender: "pe_b", senderName: "B", type: "chat", text },
});

function record<K extends keyof RoomEvents>(name: K): RoomEvents[K][] {
  const seen: RoomEvents[K][] = [];
  room.on(name, (payload) => seen.push(payload));
  return seen;
}

test("preview learns the role and joins nothing; join brings the state", async () => {
  await room.preview();
  assert.equal(room.state.phase, "preview");
  assert.equal(room.state.roleName, "host");
  assert.equal(server.messages("command").length, 0);
  await room.join({ name: "Ada" });
  assert.equal(room.state.phase, "joined");
  assert.equal(room.state.selfId, "pe_self");
  assert.equal(room.state.peers.size, 1);
});

test("a refusal of the join is thrown with its code, and the preview stays", async () => {
  server.handler = (connection, message) => {
    if (message.body.case !== "command") return false;
    connection.refuse(message.id, "room_full", true);
    return true;
  };
  await room.preview();
  await assert.rejects(room.join({ name: "Ada" }), { code: "room_full", retryable: true });
  assert.equal(room.state.phase, "preview");
  server.handler = () => false;
  await room.join({ name: "Ada" });
  assert.equal(room.state.phase, "joined");
});

test("events arrive in order and once, across a resume that repeats some", async () => {
  const seen = record("message");
  await room.join({ name: "Ada" });
  server.last.event(5, chat(5, "one"));
  server.last.event(7, chat(7, "two"));
  await until("two messages came", () => seen.length === 2);
  server.handler = (connection, message) => {
    if (message.body.case !== "resume") return false;
    assert.equal(message.body.value.lastSeq, 7n);
    assert.equal(message.body.value.resumeToken, "resume-1");
    connection.send({
      case: "joined",
      value: { requestId: message.id, peerId: "pe_self", resumeToken: "resume-2", resumed: true },
    });
    for (const [seq, text] of [[5, "one"], [7, "two"], [8, "three"], [11, "four"]] as const) {
      connection.event(seq, chat(seq, text));
    }
    return true;
  };
  server.last.cut();
  await until("the missed ones came", () => seen.length >= 4);
  assert.deepEqual(seen.map((m) => m.text), ["one", "two", "three", "four"]);
  assert.deepEqual(room.state.messages.map((m) => m.id), [5, 7, 8, 11]);
  assert.equal(room.state.selfId, "pe_self");
});

test("the mode of the room is told, and normal after a resume that tells none", async () => {
  await room.join({ name: "Ada" });
  assert.equal(room.state.mode, "normal");
  server.last.send({ case: "modeChanged", value: { mode: RoomMode.FROZEN } });
  await until("it froze", () => room.state.mode === "frozen");
  server.last.send({ case: "modeChanged", value: { mode: RoomMode.NO_OWNER } });
  await until("the owner has gone", () => room.state.mode === "no-owner");
  server.last.cut();
  await until("it is back", () => room.state.phase === "joined" && room.state.mode === "normal");
});

test("a command given while reconnecting waits; one that was on its way is refused", async () => {
  await room.join({ name: "Ada" });
  server.handler = (_connection, message) => message.body.case === "command";
  const onItsWay = room.chat.send("lost");
  await until("it was sent", () => server.messages("command").length === 2);
  server.handler = () => false;
  server.last.cut();
  await assert.rejects(onItsWay, { code: "connection_lost", retryable: true });
  await until("it noticed", () => room.state.phase !== "joined");
  await room.chat.send("waits");
  const texts = server.messages("command").map((m) => m.body.case === "command" && m.body.value.body.case === "send" && m.body.value.body.value.text);
  assert.deepEqual(texts.filter(Boolean), ["lost", "waits"]);
});

test("a peer whose place is gone joins anew by itself", async () => {
  const back = record("reconnected");
  await room.join({ name: "Ada", metadata: "m" });
  server.handler = (connection, message) => {
    if (message.body.case !== "resume") return false;
    connection.refuse(message.id, "resume_expired");
    return true;
  };
  server.last.cut();
  await until("it is back", () => back.length === 1);
  assert.deepEqual(back, [{ resumed: false }]);
  const joins = server.messages("command").map((m) => m.body.case === "command" && m.body.value.body);
  const names = joins.map((j) => j && j.case === "join" && j.value.name);
  assert.deepEqual(names.filter(Boolean), ["Ada", "Ada"]);
});

test("who is sent to another node goes there once, and says so", async () => {
  const other = new FakeServer();
  const url = await other.start();
  try {
    server.handler = (connection, message) => {
      if (message.body.case !== "hello") return false;
      connection.goodbye("redirected", true, 4010, { url });
      return true;
    };
    await room.join({ name: "Ada" });
    assert.equal(room.state.phase, "joined");
    assert.equal(server.connections.length, 1);
    const hello = other.messages("hello")[0]!.body;
    assert.equal(hello.case === "hello" && hello.value.redirected, true);
    // It stays there when it comes back, and a node that sends it on again is not followed for ever.
    other.last.cut();
    await until("it resumed there", () => other.messages("resume").length === 1);
    assert.equal(server.connections.length, 1);
    await room.leave();
    other.handler = (connection, message) => {
      if (message.body.case !== "hello") return false;
      connection.goodbye("redirected", true, 4010, { url: address });
      return true;
    };
    const stray = new Room({ server: address, code: "abc-defg-hij", platform: fakePlatform() });
    await assert.rejects(stray.join({ name: "Bob" }), { code: "redirected" });
  } finally {
    await other.stop();
  }
});

test("a client whose node is gone comes back at a backup node; one whose node lives does not leave it", async () => {
  const backup = new FakeServer();
  server.backups = [await backup.start()];
  try {
    const back = record("reconnected");
    await room.join({ name: "Ada" });
    let refusals = 0;
    server.handler = (connection, message) => {
      if (message.body.case !== "resume" || refusals++ > 0) return false;
      connection.refuse(message.id, "unavailable", true);
      return true;
    };
    server.last.cut();
    await until("it is back", () => back.length === 1);
    assert.equal(backup.connections.length, 0);
    await server.stop();
    await until("it is back elsewhere", () => back.length === 2);
    const resume = backup.messages("resume")[0]!.body;
    assert.equal(resume.case === "resume" && resume.value.resumeToken, "resume-2");
  } finally {
    await backup.stop();
  }
});

test("a peer that is asked to move goes on at the other node without losing a command or an event", async () => {
  const other = new FakeServer();
  const url = await other.start();
  try {
    const seen = record("message");
    const reconnecting = record("reconnecting");
    await room.join({ name: "Ada" });
    let held: (() => void) | undefined;
    server.handler = (connection, message) => {
      if (message.body.case !== "command") return false;
      held = () => connection.ok(message.id);
      return true;
    };
    const under = room.chat.send("under way");
    await until("it was sent", () => held !== undefined);
    other.handler = (connection, message) => {
      if (message.body.case !== "resume") return false;
      assert.equal(message.body.value.resumeToken, "resume-1");
      connection.send({
        case: "joined",
        value: { requestId: message.id, peerId: "pe_self", resumeToken: "resume-2", resumed: true },
      });
      connection.event(5, chat(5, "seen twice"));
      connection.event(6, chat(6, "new"));
      return true;
    };
    server.last.send({ case: "move", value: { url } });
    server.last.event(5, chat(5, "seen twice"));
    await until("what was said before the move came", () => seen.length === 1);
    const after = room.chat.send("afterwards");
    await new Promise((resolve) => setTimeout(resolve, 50));
    assert.equal(other.connections.length, 0); // an answer is still to come
    held!();
    await Promise.all([under, after]);
    await until("what came there was seen", () => seen.length === 2);
    assert.deepEqual(seen.map((m) => m.text), ["seen twice", "new"]);
    assert.equal(other.messages("command").length, 1);
    assert.equal(room.state.phase, "joined");
    assert.equal(reconnecting.length, 0);
  } finally {
    await other.stop();
  }
});

test("addresses of streams are renewed over another connection", async () => {
  const reconnecting = record("reconnecting");
  const stream = { name: "main", state: 2, url: "/v1/hls/demo/main/index.m3u8" };
  const playback = (token: string) => [{ stream: "main", url: `${stream.url}?token=${token}` }];
  let joins = 0;
  server.handler = (connection, message) => {
    if (message.body.case !== "resume" && !(message.body.case === "command" && message.body.value.body.case === "join")) return false;
    const joined = { requestId: message.id, peerId: "pe_self", resumeToken: `resume-${++joins}`, playback: playback(String(joins)) };
    connection.send({ case: "joined", value: joins === 1 ? { ...joined, state: { streams: [stream] } } : { ...joined, resumed: true } });
    return true;
  };
  await room.join({ name: "Ada" });
  const url = (): string => room.state.streams.get("main")!.url;
  assert.match(url(), /token=1$/);
  (room as unknown as { client: { renew(olderThanMs: number): boolean } }).client.renew(0);
  await until("it has come back", () => room.state.phase === "joined" && joins === 2);
  assert.match(url(), /token=2$/);
  assert.equal(server.messages("resume").length, 1);
  assert.equal(reconnecting.length, 1);
});

test("a peer stays where it is when the node that it is sent to does not answer", async () => {
  await room.join({ name: "Ada" });
  server.last.send({ case: "move", value: { url: "http://127.0.0.1:9" } });
  await room.chat.send("still here");
  assert.equal(server.messages("resume").length, 0);
  assert.equal(room.state.phase, "joined");
});

test("removed, ended and replaced are final: no attempt to come back", async () => {
  const ended = record("ended");
  await room.join({ name: "Ada" });
  server.last.goodbye("removed", false, 4004);
  await until("it ended", () => ended.length === 1);
  assert.equal(ended[0]!.error.code, "removed");
  assert.equal(room.state.phase, "left");
  assert.equal(server.connections.length, 1);
});

test("a close code without a goodbye says enough", async () => {
  const ended = record("ended");
  await room.join({ name: "Ada" });
  server.last.goodbye("", true, 1013);
  await until("it came back", () => server.connections.length === 2 && room.state.phase === "joined");
  assert.equal(ended.length, 0);
});

test("silence is noticed by the heartbeat", async () => {
  server.pingIntervalMs = 30;
  server.pingTimeoutMs = 150;
  await room.join({ name: "Ada" });
  const first = server.connections.length;
  server.handler = (connection, message) => message.body.case === "ping" && connection === server.connections[first - 1];
  await until("it connected again", () => server.connections.length > first);
  await until("it is joined again", () => room.state.phase === "joined");
});

test("a reloaded page is the same peer, and counts its transports on", async () => {
  const memory = new Map<string, string>();
  const before = new Room({ server: address, code: "abc-defg-hij", platform: fakePlatform(memory) });
  await before.join({ name: "Ada" });
  await until("it negotiated", () => server.messages("negotiate").length === 1);
  const after = new Room({ server: address, code: "abc-defg-hij", platform: fakePlatform(memory) });
  assert.equal(await after.resume(), true);
  assert.equal(after.state.selfId, "pe_self");
  const resume = server.messages("resume")[0]!;
  assert.equal(resume.body.case === "resume" && resume.body.value.lastSeq, 0n, "a page without state asks for all of it");
  await until("the new page negotiated", () => server.messages("negotiate").length === 2);
  const generations = server.messages("negotiate").map((m) => m.body.case === "negotiate" && m.body.value.generation);
  assert.deepEqual(generations, [1, 2]);
  await Promise.all([before.leave(), after.leave()]);
  assert.equal(await new Room({ server: address, code: "abc-defg-hij", platform: fakePlatform(memory) }).resume(), false);
});

test("an unknown code and an unreachable server have their codes", async () => {
  const nowhere = new Room({ server: "http://127.0.0.1:9", code: "x", platform });
  await assert.rejects(nowhere.preview(), { code: "server_unreachable" });
  assert.equal(nowhere.state.phase, "failed");
  const refusing = new Room({
    server: address,
    code: "x",
    platform: {
      ...platform,
      fetch: async () =>
        new Response(JSON.stringify({ error: { code: "code_unknown", message: "no such code" } }), { status: 404 }),
    },
  });
  await assert.rejects(refusing.preview(), { code: "code_unknown", retryable: false });
});

// Cuts the connection; the place that is asked for then is given when the result is called.
async function cutWithoutAnswer(): Promise<() => void> {
  let answer: (() => void) | undefined;
  server.handler = (connection, message) => {
    if (message.body.case !== "resume") return false;
    const value = { requestId: message.id, peerId: "pe_self", resumeToken: "resume-2", resumed: true };
    answer = () => connection.send({ case: "joined", value });
    return true;
  };
  server.last.cut();
  await until("it asks for its place", () => answer !== undefined);
  return answer!;
}

test("who leaves while coming back has left, whatever the server answers after that", async () => {
  await room.join({ name: "Ada" });
  const answer = await cutWithoutAnswer();
  await room.leave();
  answer();
  await until("no connection is left", () => server.open === 0);
  assert.equal(room.state.phase, "left");
});

test("who leaves while entering has left", async () => {
  for (const [kind, enter] of [
    ["hello", () => room.preview()],
    ["hello", () => room.join({ name: "Ada" })],
    ["command", () => room.preview().then(() => room.join({ name: "Ada" }))],
  ] as const) {
    room = new Room({ server: address, code: "abc-defg-hij", platform });
    let answer: (() => void) | undefined;
    const held = server.handler;
    server.handler = (connection, message) => {
      if (message.body.case !== kind || answer) return false;
      answer = () => connection.send(
        kind === "hello"
          ? { case: "welcome", value: { requestId: message.id, room: "demo", role: "host" } }
          : { case: "joined", value: { requestId: message.id, peerId: "pe_self", resumeToken: "resume-1" } });
      return true;
    };
    const entering = enter().then(() => "entered", () => "refused");
    await until("it was asked for", () => answer !== undefined);
    await room.leave();
    answer!();
    assert.equal(await entering, "refused");
    await until("no connection is left", () => server.open === 0);
    assert.equal(room.state.phase, "left");
    server.handler = held;
  }
});

test("what waited for a connection is no more than a server takes at once; the rest is refused, to be tried again", async () => {
  await room.join({ name: "Ada" });
  const answer = await cutWithoutAnswer();
  const sent = Promise.allSettled(Array.from({ length: 300 }, (_, i) => room.chat.send(String(i))));
  answer();
  const outcomes = await sent;
  const refused = outcomes.filter((outcome) => outcome.status === "rejected");
  assert.equal(refused.every((outcome) => outcome.reason.code === "connection_lost" && outcome.reason.retryable), true);
  // Bursts of 200 are allowed (PROTOCOL.md section 2), and media has to be negotiated as well.
  assert.ok(server.last.received.length <= 150, `${server.last.received.length} at once`);
  assert.ok(outcomes.length - refused.length >= 50, `only ${outcomes.length - refused.length} waited`);
});

import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";
import { Path } from "../src/sdk/path.js";
import { Room } from "../src/sdk/room.js";
import type { RoomConfig } from "../src/sdk/room.js";
import { FakeServer } from "./fake-server.js";
import { fakePlatform, until } from "./fake-platform.js";
import type { FakePlatform } from "./fake-platform.js";

const turn = { urls: ["turn:n:1?transport=udp", "turn:n:1?transport=tcp", "turns:n:2?transport=tcp"], username: "u", credential: "c" };
let server: FakeServer;
let platform: FakePlatform;
let room: Room;

beforeEach(async () => {
  server = new FakeServer();
  server.iceServers = [turn];
  platform = fakePlatform();
});

afterEach(async () => {
  await room.leave();
  await server.stop();
});

async function join(options: Partial<RoomConfig> = {}): Promise<void> {
  room = new Room({ server: await server.start(), code: "abc-defg-hij", platform, ...options });
  await room.join({ name: "Ada" });
}

const restarts = () => platform.connections[0]!.offers.filter((offer) => offer.iceRestart).length;

/** Media of a connection comes all the time until the returned function is called. */
function flow(): () => void {
  const timer = setInterval(() => (platform.connections[0]!.received += 1_000), 50);
  return () => clearInterval(timer);
}

test("a direct way needs no relay", async () => {
  await join();
  await until("it is connected", () => room.state.transport === "connected");
  assert.deepEqual(platform.connections[0]!.configuration.iceServers, []);
});

test("without a direct way relays come in, and the next transport has them at once", async () => {
  platform.unreachable = true;
  await join();
  await until("ICE starts anew", () => restarts() === 1);
  const pc = platform.connections[0]!;
  assert.deepEqual(pc.configuration.iceServers?.[0]?.urls, turn.urls);
  pc.become("failed");
  await until("there is another", () => platform.connections.length === 2);
  assert.equal(platform.connections[1]!.configuration.iceServers?.length, 1);
});

test("where only relays are wanted, they are there from the start", async () => {
  await join({ iceTransportPolicy: "relay", tcpOnly: true });
  const { iceServers, iceTransportPolicy } = platform.connections[0]!.configuration;
  assert.equal(iceTransportPolicy, "relay");
  assert.deepEqual(iceServers?.[0]?.urls, turn.urls.slice(1));
});

test("tcpOnly leaves the server's candidates of TCP", async () => {
  await join();
  const udp = "a=candidate:1 1 udp 2130706431 192.0.2.1 7882 typ host";
  const tcp = "a=candidate:100 1 tcp 1671430143 192.0.2.1 7881 typ host tcptype passive";
  const answer = ["v=0", udp, tcp, ""].join("\r\n");
  assert.equal(new Path({ tcpOnly: true }, () => []).answer(answer), ["v=0", tcp, ""].join("\r\n"));
  assert.equal(new Path({}, () => []).answer(answer), answer);
});

test("a path that falls silent is left for another within a second or so, by the same transport", async () => {
  await join();
  const stop = flow();
  await until("it is connected", () => room.state.transport === "connected");
  await new Promise((done) => setTimeout(done, 1_500));
  assert.equal(restarts(), 0);
  stop();
  const silentMs = Date.now();
  await until("ICE starts anew", () => restarts() === 1);
  assert.ok(Date.now() - silentMs < 2_000, `after ${Date.now() - silentMs} ms`);
  assert.equal(room.state.transport, "interrupted");
  assert.deepEqual(platform.connections[0]!.configuration.iceServers?.[0]?.urls, turn.urls);
  const again = flow();
  await until("it goes on", () => room.state.transport === "connected");
  again();
  assert.equal(platform.connections.length, 1);
});

test("a network that is back gets a new signalling connection and another path at once", async () => {
  await join();
  await until("it is connected", () => room.state.transport === "connected");
  server.handler = (connection, message) => {
    if (message.body.case !== "resume") return false;
    connection.send({ case: "joined", value: { requestId: message.id, peerId: "pe_self", resumed: true, mediaKept: true } });
    return true;
  };
  const backMs = Date.now();
  platform.networkChanged(true);
  await until("ICE starts anew", () => restarts() === 1);
  assert.ok(Date.now() - backMs < 400, `after ${Date.now() - backMs} ms`);
  assert.equal(server.connections.length, 2);
  assert.equal(platform.connections.length, 1);
});

test("a browser that keeps to a dead pair gets a new transport, soon after ICE began anew", async () => {
  await join();
  const stop = flow();
  await until("it is connected", () => room.state.transport === "connected");
  await new Promise((done) => setTimeout(done, 1_500));
  stop();
  await until("ICE starts anew", () => restarts() === 1);
  const restartMs = Date.now();
  platform.connections[0]!.answers.other++;
  await until("there is a new transport", () => platform.connections.length === 2);
  const afterMs = Date.now() - restartMs;
  assert.ok(afterMs >= 450 && afterMs < 1_500, `after ${afterMs} ms`);
});

test("a path on which only the media has ended is kept", async () => {
  await join();
  const stop = flow();
  await until("it is connected", () => room.state.transport === "connected");
  await new Promise((done) => setTimeout(done, 1_500));
  stop();
  await until("ICE starts anew", () => restarts() === 1);
  const { answers } = platform.connections[0]!;
  answers.used++;
  answers.other++;
  await until("it goes on", () => room.state.transport === "connected");
  await new Promise((done) => setTimeout(done, 1_500));
  assert.equal(platform.connections.length, 1);
});

test("what others do in the room makes no silence longer", async () => {
  const bob = { id: "pe_b", role: "host", tracks: [{ id: "tr_b", source: "mic", kind: 1 }] };
  server.state = { seq: 1n, room: "demo", peers: [{ id: "pe_self", name: "Ada", role: "host" }, bob] };
  await join();
  const stop = flow();
  await until("it is connected", () => room.state.transport === "connected");
  await new Promise((done) => setTimeout(done, 1_500));
  let seq = 10;
  const chatter = setInterval(() => {
    server.last.event(seq++, { case: "peerUpdated", value: { peer: { ...bob, name: `Bob ${seq}` }, what: 1 } });
  }, 100);
  stop();
  const silentMs = Date.now();
  await until("ICE starts anew", () => restarts() === 1);
  clearInterval(chatter);
  assert.ok(Date.now() - silentMs < 2_000, `after ${Date.now() - silentMs} ms`);
});

test("a page that was open for long gets new credentials for relays before it uses them", async () => {
  let laterMs = 0;
  platform.now = () => Date.now() + laterMs;
  server.pingTimeoutMs = 1e9; // the jump of the clock is no silence
  await join();
  await until("it is connected", () => room.state.transport === "connected");
  const pc = platform.connections[0]!;
  pc.become("disconnected");
  platform.networkChanged();
  await until("ICE starts anew", () => restarts() === 1);
  assert.equal(pc.configuration.iceServers?.[0]?.username, "u");
  pc.become("connected");
  server.iceServers = [{ ...turn, username: "later" }];
  server.handler = (connection, message) => {
    if (message.body.case !== "resume") return false;
    const { iceServers } = server;
    connection.send({ case: "joined", value: { requestId: message.id, peerId: "pe_self", resumed: true, mediaKept: true, server: { iceServers, pingTimeoutMs: 1e9 } } });
    return true;
  };
  laterMs = 13 * 3_600_000; // the path falls silent by that as well
  await until("ICE starts anew", () => restarts() === 2);
  assert.equal(server.connections.length, 2);
  assert.equal(pc.configuration.iceServers?.[0]?.username, "later");
});

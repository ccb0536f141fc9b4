import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";
import { Room } from "../src/sdk/room.js";
import { FakeServer } from "./fake-server.js";
import { fakePlatform, until } from "./fake-platform.js";
import type { FakePlatform } from "./fake-platform.js";

let server: FakeServer;
let platform: FakePlatform;
let room: Room;

beforeEach(async () => {
  server = new FakeServer();
  const address = await server.start();
  platform = fakePlatform();
  room = new Room({ server: address, code: "abc-defg-hij", platform });
});

afterEach(async () => {
  await room.leave();
  await server.stop();
});

function offers() {
  return server.messages("negotiate").map((m) => {
    assert.ok(m.body.case === "negotiate");
    return m.body.value;
  });
}

function commands(): string[] {
  return server.messages("command").map((m) => {
    assert.ok(m.body.case === "command");
    const { body } = m.body.value;
    if (body.case === "updateTrack") return `updateTrack muted=${body.value.muted}`;
    return body.case ?? "";
  });
}

test("what was captured in the preview is published after the join, low layer first", async () => {
  await room.preview();
  await room.local.enable("camera");
  assert.equal(server.messages("command").length, 0);
  await room.join({ name: "Ada" });
  const camera = room.state.local.get("camera");
  assert.equal(camera?.status, "on");
  assert.equal(camera?.trackId, "tr_1");
  const sending = platform.connections[0]!.transceivers.find((t) => t.direction === "sendonly")!;
  assert.deepEqual(sending.sender.parameters.encodings.map((e) => e.rid), ["q", "h", "f"]);
  await until("the offer names it", () => offers().some((o) => o.publish.length === 1));
  const offer = offers().find((o) => o.publish.length === 1)!;
  assert.deepEqual([offer.publish[0]!.mid, offer.publish[0]!.trackId], [sending.mid, "tr_1"]);
});

test("a muted microphone sends nothing, a muted camera is released", async () => {
  await room.join({ name: "Ada" });
  await Promise.all([room.local.enable("mic"), room.local.enable("camera")]);
  const [mic, camera] = [0, 1].map((i) => platform.captured[i]!);
  await room.local.disable("mic");
  await room.local.disable("camera");
  const sending = platform.connections[0]!.transceivers.filter((t) => t.direction === "sendonly");
  assert.ok(sending.every((t) => t.sender.parameters.encodings.every((e) => e.active === false)));
  assert.equal(mic!.enabled, false);
  assert.equal(mic!.readyState, "live");
  assert.equal(camera!.readyState, "ended");
  assert.deepEqual(commands().filter((c) => c.startsWith("update")), ["updateTrack muted=true", "updateTrack muted=true"]);
  await room.local.enable("camera");
  assert.equal(platform.captured.length, 3);
  assert.equal(sending.find((t) => t.kind === "video")!.sender.track, platform.captured[2]);
});

test("a mute by somebody else is obeyed, and says so", async () => {
  server.state = { seq: 1n, room: "demo", peers: [{ id: "pe_self", role: "host", tracks: [{ id: "tr_1", source: "mic", kind: 1 }] }] };
  const told: string[] = [];
  room.on("muted-by-other", ({ by }) => told.push(by));
  await room.join({ name: "Ada" });
  await room.local.enable("mic");
  const track = { id: "tr_1", source: "mic", kind: 1, muted: true };
  server.last.event(9, { case: "trackUpdated", value: { peerId: "pe_self", by: "pe_mod", track } });
  await until("it is muted", () => room.state.local.get("mic")?.status === "muted");
  assert.deepEqual(told, ["pe_mod"]);
  assert.equal(platform.captured[0]!.enabled, false);
});

test("interest turns layers on and off", async () => {
  await room.join({ name: "Ada" });
  await room.local.enable("camera");
  const { sender } = platform.connections[0]!.transceivers.find((t) => t.direction === "sendonly")!;
  const active = (): boolean[] => sender.parameters.encodings.map((e) => e.active ?? true);
  for (const [maxSpatial, want] of [[0, [true, false, false]], [-1, [false, false, false]], [2, [true, true, true]]] as const) {
    server.last.send({ case: "interest", value: { trackId: "tr_1", maxSpatial } });
    await until(`layers up to ${maxSpatial}`, () => active().join() === want.join());
  }
});

test("a microphone that nobody hears rests, and is back at once; the last word counts", async () => {
  await room.join({ name: "Ada" });
  await room.local.enable("mic");
  const { sender } = platform.connections[0]!.transceivers.find((t) => t.direction === "sendonly")!;
  const active = (): boolean => sender.parameters.encodings[0]!.active ?? true;
  const say = (maxSpatial: number): void => server.last.send({ case: "interest", value: { trackId: "tr_1", maxSpatial } });
  say(-1);
  await until("it rests", () => !active());
  for (const maxSpatial of [0, -1, 3, -1, 0]) say(maxSpatial);
  await until("it is sent", active);
  await room.local.disable("mic");
  assert.equal(active(), false);
  say(0);
  await room.local.enable("mic");
  assert.equal(active(), true);
});

test("a preference goes to the server with the next subscriptions", async () => {
  server.state = { seq: 1n, room: "demo", peers: [{ id: "pe_self", role: "host" }, { id: "pe_b", role: "host", tracks: [{ id: "tr_mic", source: "mic", kind: 1 }] }] };
  await room.join({ name: "Ada" });
  const last = () => server.messages("setSubscriptions").map((m) => (m.body.case === "setSubscriptions" ? m.body.value.tracks : [])).at(-1);
  await until("it listens", () => last()?.[0]?.trackId === "tr_mic");
  room.prefer("tr_mic", { paused: true, maxSpatial: 0 });
  await until("it is paused", () => last()?.[0]?.paused === true && last()?.[0]?.maxSpatial === 0);
  room.prefer("tr_mic", {});
  await until("it is not", () => last()?.[0]?.paused === false && last()?.[0]?.maxSpatial === undefined);
});

test("why a track is as good as it is, is told", async () => {
  const told: string[] = [];
  room.on("track-quality", ({ trackId, reason }) => told.push(`${trackId} ${reason}`));
  await room.join({ name: "Ada" });
  for (const reason of ["starting", "codec", "codec", ""]) {
    server.last.send({ case: "quality", value: { network: 4, tracks: [{ trackId: "tr_x", max: 2, target: 2, current: -1, reason }] } });
  }
  await until("all was told", () => told.length === 4);
  assert.deepEqual(told, ["tr_x starting", "tr_x codec", "tr_x codec", "tr_x "]);
  assert.equal(room.state.qualities.get("tr_x")?.reason, "");
});

test("slots: more are offered when needed, and each carries what the server says", async () => {
  await room.join({ name: "Ada" });
  await until("it negotiated", () => offers().length === 1);
  const pc = platform.connections[0]!;
  const before = pc.transceivers.length;
  server.last.send({ case: "slotsNeeded", value: { audio: 4, video: 7 } });
  await until("there is another offer", () => offers().length === 2);
  const receiving = pc.transceivers.filter((t) => t.direction === "recvonly");
  assert.equal(receiving.length, 11);
  assert.ok(pc.transceivers.length > before);
  server.last.send({ case: "slotsNeeded", value: { audio: 1, video: 1 } });
  const video = receiving.find((t) => t.kind === "video")!;
  server.last.send({ case: "slots", value: { generation: 9, slots: [{ mid: video.mid!, trackId: "tr_old" }] } });
  server.last.send({ case: "slots", value: { generation: 1, slots: [{ mid: video.mid!, trackId: "tr_x" }] } });
  const media = (id: string) => (room as unknown as { engine: { media(id: string): unknown } }).engine.media(id);
  await until("the slot is known", () => media("tr_x") === video.receiver.track);
  assert.equal(media("tr_old"), undefined, "a list of another generation is ignored");
  assert.equal(offers().length, 2, "fewer than there are need no offer");
});

test("a failed transport is replaced by the next generation, which carries the same tracks", async () => {
  await room.join({ name: "Ada" });
  await room.local.enable("mic");
  await until("it is connected", () => room.state.transport === "connected");
  platform.connections[0]!.become("failed");
  assert.equal(room.state.transport, "interrupted");
  await until("there is another", () => platform.connections.length === 2);
  await until("it is connected again", () => room.state.transport === "connected");
  const last = offers().at(-1)!;
  assert.equal(last.generation, 2);
  assert.deepEqual(last.publish.map((p) => p.trackId), ["tr_1"]);
  assert.equal(platform.connections[0]!.connectionState, "closed");
});

test("an interrupted transport tries an ICE restart when the network changes", async () => {
  await room.join({ name: "Ada" });
  await until("it is connected", () => room.state.transport === "connected");
  const pc = platform.connections[0]!;
  pc.become("disconnected");
  platform.networkChanged();
  await until("it offered again", () => pc.offers.some((offer) => offer.iceRestart));
  pc.become("connected");
  assert.equal(room.state.transport, "connected");
  assert.equal(platform.connections.length, 1);
});

test("after a reconnection a kept transport goes on, a lost one is replaced", async () => {
  await room.join({ name: "Ada" });
  await until("it is connected", () => room.state.transport === "connected");
  for (const [mediaKept, connections] of [[true, 1], [false, 2]] as const) {
    server.handler = (connection, message) => {
      if (message.body.case !== "resume") return false;
      connection.send({ case: "joined", value: { requestId: message.id, peerId: "pe_self", resumed: true, mediaKept } });
      return true;
    };
    const back = new Promise((resolve) => room.on("reconnected", resolve));
    server.last.cut();
    await back;
    assert.equal(platform.connections.length, connections);
  }
});

test("from the live stream to the stage: connects, shows the old picture until the new one is there", async () => {
  server.role = "watcher";
  server.state = { seq: 1n, room: "demo", peers: [{ id: "pe_self", name: "Vera", role: "watcher" }] };
  await room.join({ name: "Vera" });
  assert.equal(room.state.picture.shown, "hls");
  assert.equal(platform.connections.length, 0, "the live-stream audience has no transport");
  const pictures: string[] = [];
  room.subscribe((state) => pictures.push(`${state.picture.shown}>${state.picture.next}`));
  await room.local.enable("camera"); // the preview of the role change
  assert.equal(commands().includes("publish"), false);
  server.last.event(20, { case: "peerUpdated", value: { peer: { id: "pe_self", name: "Vera", role: "host" }, what: 3 } });
  await until("the new picture is shown", () => room.state.picture.shown === "webrtc");
  await until("the camera is published", () => room.state.local.get("camera")?.trackId !== undefined);
  assert.ok(pictures.includes("hls>webrtc"), "the old one stayed while the new one was made");
  server.last.event(21, { case: "peerUpdated", value: { peer: { id: "pe_self", name: "Vera", role: "watcher" }, what: 3, forced: true } });
  await until("it watches again", () => room.state.picture.shown === "hls");
  assert.equal(room.state.local.size, 0);
  assert.equal(platform.captured[0]!.readyState, "ended", "the camera's light is off");
  await until("its transport is gone", () => platform.connections.at(-1)!.connectionState === "closed");
});

/** Vera on stage, connected, of a room whose live stream plays. */
async function onStageOfLiveRoom(): Promise<void> {
  server.state = {
    seq: 1n,
    room: "demo",
    peers: [{ id: "pe_self", name: "Vera", role: "host" }],
    streams: [{ name: "main", state: 2, url: "/hls/main.m3u8" }],
  };
  await room.join({ name: "Vera" });
  await until("it is connected", () => room.state.transport === "connected");
}

function moved(seq: number, role: string): void {
  server.last.event(seq, { case: "peerUpdated", value: { peer: { id: "pe_self", name: "Vera", role }, what: 3, forced: true } });
}

const handover = () => (room as unknown as { handover: { ready(delivery: string): void } }).handover;

test("from the stage to the live stream: the transport and its pictures stay until the stream plays", async () => {
  await onStageOfLiveRoom();
  const pc = platform.connections[0]!;
  moved(20, "watcher");
  await until("the stream is made ready", () => room.state.picture.next === "hls");
  pc.become("failed"); // the server ends the endpoint at the role change
  server.last.send({ case: "slotsNeeded", value: { audio: 9, video: 12 } });
  await new Promise((resolve) => setTimeout(resolve, 700)); // longer than a rescue takes to begin
  assert.deepEqual(room.state.picture, { shown: "webrtc", next: "hls" });
  assert.equal(pc.connectionState, "failed", "kept for its last frames");
  assert.equal(platform.connections.length, 1, "what the server ended is not rescued");
  assert.equal(offers().length, 1);
  handover().ready("hls");
  assert.deepEqual(room.state.picture, { shown: "hls", next: "hls" });
  assert.equal(pc.connectionState, "closed");
});

test("back on stage before the stream plays: a new transport, and subscriptions again", async () => {
  await onStageOfLiveRoom();
  moved(20, "watcher");
  await until("the stream is made ready", () => room.state.picture.next === "hls");
  const before = server.messages("setSubscriptions").length;
  moved(21, "host");
  await until("it is connected anew", () => platform.connections.length === 2 && room.state.transport === "connected");
  assert.equal(platform.connections[0]!.connectionState, "closed");
  assert.equal(room.state.picture.shown, "webrtc");
  await until("it subscribes", () => server.messages("setSubscriptions").length > before);
});

test("an offer that takes long to make does not cost the connection", async () => {
  const make = platform.peerConnection;
  platform.peerConnection = (config) => {
    const pc = make(config);
    const createOffer = pc.createOffer.bind(pc) as (options?: RTCOfferOptions) => Promise<RTCSessionDescriptionInit>;
    pc.createOffer = (async (options?: RTCOfferOptions) => {
      await new Promise((resolve) => setTimeout(resolve, 5_500)); // longer than the first time to connect
      return createOffer(options);
    }) as typeof pc.createOffer;
    return pc;
  };
  const slow = new Room({ server: room["server"], code: "abc-defg-hij", platform });
  await slow.join({ name: "Ada" });
  await until("it is connected", () => slow.state.transport === "connected", 12_000);
  assert.equal(platform.connections.length, 1);
  await slow.leave();
});

test("what goes wrong with a device has a code and can be tried again", async () => {
  platform.captureFails = Object.assign(new Error("denied"), { name: "NotAllowedError" });
  const failures: string[] = [];
  room.on("local-failed", ({ source, error }) => failures.push(`${source} ${error.code}`));
  await room.join({ name: "Ada" });
  await room.local.enable("camera");
  assert.equal(room.state.local.get("camera")?.status, "failed");
  assert.deepEqual(failures, ["camera device_denied"]);
  platform.captureFails = undefined;
  await room.local.enable("camera");
  assert.equal(room.state.local.get("camera")?.status, "on");
});

test("whoever joins anew publishes anew, and names no track of the old peer", async () => {
  await room.join({ name: "Ada" });
  await Promise.all([room.local.enable("mic"), room.local.enable("camera")]);
  const old = new Set([...room.state.local.values()].map((local) => local.trackId));
  const before = offers().length;
  server.handler = (connection, message) => {
    if (message.body.case !== "resume") return false;
    connection.refuse(message.id, "resume_expired");
    return true;
  };
  server.last.cut();
  await until("both are on again", () =>
    room.state.phase === "joined" &&
    ["mic", "camera"].every((source) => {
      const local = room.state.local.get(source);
      return local?.status === "on" && local.trackId !== undefined && !old.has(local.trackId);
    }));
  await until("an offer names both", () => offers().at(-1)!.publish.length === 2);
  const named = offers().slice(before).flatMap((offer) => offer.publish.map((p) => p.trackId));
  assert.deepEqual(named.filter((id) => old.has(id)), []);
});

test("the devices of a preview for an offered role outlive what is left of the role before", async () => {
  await room.join({ name: "Ada" });
  await room.local.enable("mic");
  const self = (role: string) => ({ id: "pe_self", name: "Ada", role });
  server.last.event(20, { case: "peerUpdated", value: { peer: self("watcher"), what: 3, forced: true } });
  await until("the microphone is released", () => room.state.local.get("mic")?.status !== "on");
  server.last.event(21, { case: "roleChangeRequested", value: { requestId: "rq", role: "host", by: "pe_mod" } });
  await until("it is asked", () => room.state.roleRequest !== undefined);
  await room.local.enable("camera");
  // The end of the old role's track comes late, and a look at what the server has follows it.
  const ended = new Promise((done) => room.on("track-unpublished", done));
  server.last.event(22, { case: "peerJoined", value: { peer: { ...self("watcher"), tracks: [{ id: "tr_1", source: "mic", kind: 1 }] } } });
  server.last.event(23, { case: "trackUnpublished", value: { peerId: "pe_self", trackId: "tr_1" } });
  await ended;
  await room.answerRoleRequest(true);
  // Longer than the look waits; the accepted role comes after it.
  await new Promise((done) => setTimeout(done, 400));
  assert.equal(room.state.local.get("camera")?.status, "on");
  server.last.event(24, { case: "peerUpdated", value: { peer: self("host"), what: 3 } });
  await until("the camera is published", () => room.state.local.get("camera")?.trackId !== undefined);
  assert.equal(room.state.acceptedRole, undefined);
});

test("a device that opens after its room was left is closed at once", async () => {
  await room.join({ name: "Ada" });
  let allow = (): void => undefined;
  platform.captureWaits = new Promise((resolve) => (allow = resolve));
  const opening = [room.local.enable("mic"), room.local.enable("camera"), room.local.shareScreen()];
  await room.leave();
  allow();
  await Promise.allSettled(opening);
  assert.deepEqual(platform.captured.map((track) => track.readyState), ["ended", "ended", "ended"]);
  assert.equal(room.state.local.size, 0);
  await room.local.enable("camera");
  assert.equal(platform.captured.length, 3, "a room that was left opens nothing");
});

test("another screen takes the place of the one before, which is shared no more", async () => {
  await room.join({ name: "Ada" });
  await room.local.shareScreen();
  await room.local.shareScreen();
  assert.deepEqual(platform.captured.map((track) => track.readyState), ["ended", "live"]);
  platform.captured[0]!.onended?.();
  await room.local.enable("mic");
  assert.equal(room.state.local.get("screen")?.status, "on");
});

const asked = (requestId: string) => ({ case: "roleChangeRequested" as const, value: { requestId, peerId: "pe_self", role: "host", by: "pe_mod" } });

async function offStage(): Promise<void> {
  server.role = "watcher";
  server.state = { seq: 1n, room: "demo", peers: [{ id: "pe_self", name: "Ada", role: "watcher" }] };
  await room.join({ name: "Ada" });
}

test("a request that nobody answered in time is gone, with the devices that were opened for it", async () => {
  await offStage();
  server.last.event(20, asked("rq_1"));
  await until("it is asked", () => room.state.roleRequest !== undefined);
  await room.local.enable("camera");
  const told: unknown[] = [];
  room.on("role-change-answered", (payload) => told.push(payload));
  server.last.event(21, { case: "roleChangeAnswered", value: { requestId: "rq_0", peerId: "pe_self", by: "pe_mod", expired: true } });
  server.last.event(22, { case: "roleChangeAnswered", value: { requestId: "rq_1", peerId: "pe_self", by: "pe_mod", expired: true } });
  await until("both were told", () => told.length === 2);
  assert.equal(room.state.roleRequest, undefined);
  await until("the camera is closed", () => platform.captured[0]!.readyState === "ended");
  assert.deepEqual(told[1], { requestId: "rq_1", peerId: "pe_self", accepted: false, expired: true, by: "pe_mod" });
});

test("an accept that is refused for now can be given again; one that is refused for good closes the devices", async () => {
  await offStage();
  server.last.event(20, asked("rq_1"));
  await until("it is asked", () => room.state.roleRequest !== undefined);
  await room.local.enable("camera");
  let refusal: [code: string, retryable: boolean] = ["role_full", true];
  server.handler = (connection, message) => {
    if (message.body.case !== "command" || message.body.value.body.case !== "answerRoleChange") return false;
    connection.refuse(message.id, ...refusal);
    return true;
  };
  await assert.rejects(room.answerRoleRequest(true), { code: "role_full" });
  assert.equal(room.state.roleRequest?.requestId, "rq_1");
  assert.equal(platform.captured[0]!.readyState, "live");
  refusal = ["not_found", false];
  await assert.rejects(room.answerRoleRequest(true), { code: "not_found" });
  assert.equal(room.state.roleRequest, undefined);
  assert.equal(platform.captured[0]!.readyState, "ended");
});

const self = (role: string) => ({ id: "pe_self", name: "Ada", role });

test("who was on stage and joins anew with the role of its token sees the live stream again", async () => {
  await offStage();
  server.last.event(20, { case: "peerUpdated", value: { peer: self("host"), what: 3 } });
  await until("it is on stage", () => room.state.picture.shown === "webrtc" && room.state.transport === "connected");
  await room.local.enable("camera");
  const failures: string[] = [];
  room.on("local-failed", ({ error }) => failures.push(error.code));
  server.handler = (connection, message) => {
    if (message.body.case === "resume") connection.refuse(message.id, "resume_expired");
    else if (message.body.case === "negotiate") connection.refuse(message.id, "permission_denied");
    else return false;
    return true;
  };
  server.last.cut();
  await until("it is back in the audience", () => room.state.phase === "joined" && room.state.roleName === "watcher");
  await until("the stream is shown", () => room.state.picture.shown === "hls");
  await until("its camera is closed", () => platform.captured[0]!.readyState === "ended");
  assert.equal(room.state.transport, "none");
  assert.deepEqual(failures, []);
});

test("who was given another role while away, and comes back too late for the events, has it all the same", async () => {
  await offStage();
  assert.equal(platform.connections.length, 0);
  server.handler = (connection, message) => {
    if (message.body.case !== "resume") return false;
    const value = { requestId: message.id, peerId: "pe_self", resumeToken: "resume-2", resumed: true };
    connection.send({ case: "joined", value: { ...value, state: { seq: 9_999n, room: "demo", peers: [self("listener")] } } });
    return true;
  };
  server.last.cut();
  await until("it has a transport", () => platform.connections.length === 1);
  await until("the stage is shown", () => room.state.picture.shown === "webrtc");
});

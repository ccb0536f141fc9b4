import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { bestGrid, promoteSpeakers, tilesPerPage } from "../src/app/grid.js";
import { EventSchema } from "../src/gen/amphi/v1/room_pb.js";
import { templateOf } from "../src/sdk/convert.js";
import { TemplateSchema } from "../src/gen/amphi/v1/model_pb.js";
import { captureError } from "../src/sdk/devices.js";
import { Emitter } from "../src/sdk/emitter.js";
import { Handover } from "../src/sdk/handover.js";
import { activeEncodings, fullHeight, layersFor, mayPublish, needsTransport, preferCodecs, videoEncodings } from "../src/sdk/publishing.js";
import { applyEvent, maxMessages, takePlayback } from "../src/sdk/reduce.js";
import { emptyState, ownRole, raisedHands, recordingOf } from "../src/sdk/state.js";
import type { RoomState } from "../src/sdk/state.js";
import { slotsToStartWith, wantedTracks } from "../src/sdk/subscriptions.js";
import { qualityInWords, reasonInWords } from "../src/app/words.js";
import type { TrackQuality } from "../src/sdk/model.js";
import { downTrackRows, matches, worthALook } from "../src/ops/rows.js";
import { byRegion, relayTrees } from "../src/ops/tree.js";
import { template } from "./fake-server.js";

type Body = NonNullable<MessageInitShape<typeof EventSchema>["body"]>;

const start: RoomState = { ...emptyState, selfId: "pe_a", roleName: "host", template: templateOf(create(TemplateSchema, template())) };

function after(state: RoomState, ...bodies: Body[]): [RoomState, string[]] {
  const names: string[] = [];
  for (const [i, body] of bodies.entries()) {
    const [next, notices] = applyEvent(state, create(EventSchema, { seq: BigInt(i + 1), body }), "http://node");
    state = next;
    names.push(...notices.map((notice) => notice.name));
  }
  return [state, names];
}

const joined = (id: string, role = "host"): Body => ({ case: "peerJoined", value: { peer: { id, name: id, role } } });
const published = (peerId: string, id: string, source: string, kind: number): Body => ({
  case: "trackPublished",
  value: { peerId, track: { id, source, kind } },
});

test("peers come and go, and are counted once", () => {
  const [state, names] = after(start, joined("pe_a"), joined("pe_b", "watcher"), joined("pe_b", "watcher"), {
    case: "peerLeft",
    value: { peerId: "pe_a", reason: 2 },
  });
  assert.deepEqual([...state.peers.keys()], ["pe_b"]);
  assert.deepEqual(names, ["peer-joined", "peer-joined", "peer-left"]);
  assert.equal(state.total, 1);
  assert.deepEqual(state.roleCounts, { host: 0, watcher: 1 });
});

test("a change of one's own role changes the role and answers the request", () => {
  const [state, names] = after(
    start,
    joined("pe_a"),
    { case: "roleChangeRequested", value: { requestId: "rq", role: "watcher", by: "pe_b" } },
    { case: "peerUpdated", value: { peer: { id: "pe_a", role: "watcher" }, what: 3 } },
  );
  assert.equal(state.roleName, "watcher");
  assert.equal(state.roleRequest, undefined);
  assert.deepEqual(names, ["peer-joined", "role-change-requested", "role-changed"]);
});

test("chat is kept and bounded, hidden messages go, other types are only told", () => {
  const said = (id: number, type: string): Body => ({ case: "message", value: { id: BigInt(id), type, text: "t", sender: "x" } });
  const many = Array.from({ length: maxMessages + 5 }, (_, i) => said(i + 1, "chat"));
  const [state, names] = after(start, ...many, said(9_000, "reaction"), {
    case: "chatModerated",
    value: { action: { action: { case: "hide", value: 100n } } },
  });
  assert.equal(state.messages.length, maxMessages - 1);
  assert.equal(state.messages[0]!.id, 6);
  assert.equal(names.filter((name) => name === "message").length, maxMessages + 6);
});

test("hands are in the order in which they were raised", () => {
  const hand = (id: string, ms: number): Body => ({ case: "peerUpdated", value: { peer: { id, role: "host", handRaisedMs: BigInt(ms) }, what: 4 } });
  const [state] = after(start, hand("pe_c", 30), hand("pe_b", 10), hand("pe_d", 0), hand("pe_e", 20));
  assert.deepEqual(raisedHands(state).map((peer) => peer.id), ["pe_b", "pe_e", "pe_c"]);
});

test("the store changes by key, streams get whole addresses, unknown events change nothing", () => {
  const [state] = after(
    start,
    { case: "storeChanged", value: { entry: { key: "a", value: "1", revision: 1n } } },
    { case: "storeChanged", value: { entry: { key: "b", value: "2", revision: 1n } } },
    { case: "storeChanged", value: { entry: { key: "a" }, deleted: true } },
    { case: "streamChanged", value: { stream: { name: "main", state: 2, url: "/v1/hls/demo/main/index.m3u8" } } },
  );
  assert.deepEqual([...state.store.keys()], ["b"]);
  assert.equal(state.streams.get("main")?.url, "http://node/v1/hls/demo/main/index.m3u8");
  assert.equal(state.streams.get("main")?.phase, "live");
  assert.deepEqual(applyEvent(state, create(EventSchema, { seq: 9n }), "http://node"), [state, []]);
});

test("outputs are kept in order, the oldest that ended go, and tell whether the room is recorded", () => {
  const changed = (id: string, kind: number, outputState: number): Body => ({ case: "outputChanged", value: { output: { id, kind, state: outputState, bytes: 5n } } });
  let [state, names] = after(start, changed("ou_p", 3, 2));
  assert.deepEqual(names, ["output-changed"]);
  assert.equal(recordingOf(state), "off");
  [state] = after(state, changed("ou_1", 1, 1));
  assert.equal(recordingOf(state), "starting");
  [state] = after(state, changed("ou_1", 1, 3));
  assert.equal(recordingOf(state), "paused");
  [state] = after(state, changed("ou_2", 2, 2));
  assert.equal(recordingOf(state), "on");
  [state] = after(state, changed("ou_1", 1, 6), changed("ou_2", 2, 5));
  assert.equal(recordingOf(state), "off");
  for (let i = 0; i < 70; i++) [state] = after(state, changed("ou_x" + i, 3, 5));
  assert.equal(state.outputs.size, 64);
  assert.equal(state.outputs.get("ou_p")?.phase, "active");
  assert.equal(state.outputs.has("ou_1"), false);
});

test("streams are played at the addresses that a peer was given, and others after it has come back", () => {
  const change = { case: "streamChanged", value: { stream: { name: "main", state: 2, url: "/v1/hls/demo/main/index.m3u8" } } } as const;
  const own = (token: string): Map<string, string> => new Map([["main", "/v1/hls/demo/main/index.m3u8?token=" + token]]);
  const [state] = after(takePlayback(start, own("a"), "http://node"), change);
  assert.equal(state.streams.get("main")?.url, "http://node/v1/hls/demo/main/index.m3u8?token=a");
  assert.equal(takePlayback(state, own("b"), "http://node").streams.get("main")?.url, "http://node/v1/hls/demo/main/index.m3u8?token=b");
});

test("subscribed are all microphones, and the pictures that are shown, at their size", () => {
  const [state] = after(start, joined("pe_a"), joined("pe_b"), joined("pe_w", "watcher"), published("pe_b", "tr_mic", "mic", 1), published("pe_b", "tr_cam", "camera", 2), published("pe_b", "tr_scr", "screen", 2), published("pe_w", "tr_w", "mic", 1), published("pe_a", "tr_own", "mic", 1));
  const wanted = wantedTracks(state, new Map([["tr_cam", { width: 321, height: 181 }], ["tr_gone", { width: 9, height: 9 }]]));
  assert.deepEqual(wanted, [
    { trackId: "tr_cam", width: 336, height: 192 },
    { trackId: "tr_mic", width: 16, height: 16 },
  ]);
  const preferences = new Map([["tr_cam", { maxSpatial: 1 }], ["tr_mic", { paused: true }], ["tr_scr", { paused: true }]]);
  assert.deepEqual(wantedTracks(state, new Map([["tr_cam", { width: 320, height: 180 }]]), preferences), [
    { trackId: "tr_cam", width: 320, height: 192, maxSpatial: 1 },
    { trackId: "tr_mic", width: 16, height: 16, paused: true },
  ]);
  assert.deepEqual(slotsToStartWith(state), { audio: 2, video: 3 });
  const viewer = { ...state, roleName: "watcher" };
  assert.deepEqual(wantedTracks(viewer, new Map()), []);
  assert.deepEqual(slotsToStartWith(viewer), { audio: 0, video: 0 });
});

test("every reason for a picture's quality has words, and those worth it are shown", () => {
  const quality = (reason: string, current = 0): TrackQuality => ({ trackId: "tr_cam", max: 2, target: 1, current, reason, bitrateKbps: 0 });
  for (const reason of ["", "size", "preference", "hidden", "muted", "not_loudest", "starting", "bandwidth", "publisher", "codec"]) {
    assert.notEqual(reasonInWords(reason), reason);
    const shown = ["bandwidth", "publisher", "codec"].includes(reason);
    assert.equal(qualityInWords(quality(reason)) !== undefined, shown, reason);
  }
  assert.match(qualityInWords(quality("bandwidth", -1))!, /^Paused/);
  assert.match(qualityInWords(quality("codec", -1))!, /decode/);
  assert.equal(reasonInWords("of a newer server"), "of a newer server");
  assert.equal(qualityInWords(undefined), undefined);
});

test("what a role may do follows from its data", () => {
  const role = (name: string) => ownRole({ ...start, roleName: name });
  assert.deepEqual(["host", "listener", "watcher", "nobody"].map((name) => needsTransport(role(name))), [true, true, false, false]);
  assert.equal(mayPublish(role("host"), "x-slides", "video"), true);
  assert.equal(mayPublish(role("listener"), "mic", "audio"), false);
});

test("simulcast: layers low first for most browsers, high first for Firefox, none too small", () => {
  const params = ownRole(start)!.publish.videoParams!;
  assert.deepEqual(videoEncodings(params, 720, false).map((e) => e.rid), ["q", "h", "f"]);
  assert.deepEqual(videoEncodings(params, 720, true).map((e) => e.rid), ["f", "h", "q"]);
  for (const [width, height, rids] of [[1280, 720, "qhf"], [960, 540, "qhf"], [800, 600, "hf"], [640, 360, "hf"], [360, 640, "hf"], [480, 270, "hf"], [320, 180, "f"]] as const) {
    const media = { getSettings: () => ({ width, height }) } as unknown as MediaStreamTrack;
    assert.equal(layersFor(params, fullHeight(media)).map((l) => l.rid).join(""), rids, `${width} × ${height}: as many as Chromium sends`);
  }
  assert.deepEqual(layersFor(params, 0).map((l) => l.rid), ["q", "h", "f"]);
  assert.deepEqual(videoEncodings(params, 100, false).map((e) => [e.rid, e.maxBitrate]), [[undefined, 1_500_000]]);
  assert.deepEqual(videoEncodings(params, 720, false, { scalabilityMode: "L1T3" }).map((e) => [e.rid, e.scalabilityMode]), [["q", "L1T3"], ["h", "L1T3"], ["f", "L1T3"]]);
  assert.deepEqual(videoEncodings(params, 720, false, { scalabilityMode: "L3T3_KEY" }).map((e) => [e.rid, e.scalabilityMode]), [[undefined, "L3T3_KEY"]]);
  for (const [codec, mode] of [["vp8", undefined], ["h264", undefined], ["vp9", "L1T3"], ["av1", "L1T3"]] as const) {
    assert.deepEqual(videoEncodings(params, 720, false, { codec }).map((e) => e.scalabilityMode), [mode, mode, mode], codec);
  }
  assert.deepEqual(videoEncodings(params, 180, false, { codec: "av1" }).map((e) => e.scalabilityMode), [undefined]);
  const low = [{ scaleResolutionDownBy: 4 }, { scaleResolutionDownBy: 2 }, { scaleResolutionDownBy: 1 }] as RTCRtpEncodingParameters[];
  assert.deepEqual(activeEncodings(low, 1), [true, true, false]);
  assert.deepEqual(activeEncodings([...low].reverse(), 1), [false, true, true]);
  assert.deepEqual(activeEncodings([{}] as RTCRtpEncodingParameters[], -1), [false]);
});

test("codecs: the role's order, then what belongs to them; a browser without any keeps its own", () => {
  const codecs = ["video/VP8", "video/rtx", "video/H264", "video/AV1"].map((mimeType) => ({ mimeType }));
  assert.deepEqual(preferCodecs(codecs, ["h264", "vp8"]).map((c) => c.mimeType), ["video/H264", "video/VP8", "video/rtx"]);
  assert.deepEqual(preferCodecs(codecs, ["vp8"], "av1").map((c) => c.mimeType), ["video/AV1", "video/VP8", "video/rtx"]);
  assert.deepEqual(preferCodecs(codecs, ["vp8"], "vp9").map((c) => c.mimeType), ["video/VP8", "video/rtx"]);
  assert.deepEqual(preferCodecs([{ mimeType: "video/AV1" }], []).map((c) => c.mimeType), ["video/AV1"]);
});

test("handover keeps the old picture until the new one plays", () => {
  const seen: string[] = [];
  const handover = new Handover((shown, next) => seen.push(`${shown}>${next}`));
  handover.aim("hls");
  handover.aim("webrtc");
  handover.ready("hls");
  handover.ready("webrtc");
  handover.aim("none");
  handover.stop();
  assert.deepEqual(seen, ["hls>hls", "hls>webrtc", "webrtc>webrtc", "none>none"]);
});

test("a listener that throws does not keep others from hearing", (context) => {
  context.mock.method(console, "error", () => undefined);
  const emitter = new Emitter<{ a: number }>();
  const heard: number[] = [];
  emitter.on("a", () => {
    throw new Error("no");
  });
  const end = emitter.on("a", (n) => heard.push(n));
  emitter.emit("a", 1);
  end();
  emitter.emit("a", 2);
  assert.deepEqual(heard, [1]);
});

test("device failures have codes", () => {
  const named = (name: string, message = ""): Error => Object.assign(new Error(message), { name });
  assert.equal(captureError(named("NotAllowedError"), "video").code, "device_denied");
  assert.equal(captureError(named("NotAllowedError", "Permission denied by system"), "video").code, "device_denied_by_system");
  assert.equal(captureError(named("NotReadableError"), "audio").code, "device_in_use");
  assert.equal(captureError(named("NotFoundError"), "audio").code, "device_not_found");
  assert.equal(captureError(named("TypeError"), "audio").code, "device_failed");
});

test("the grid fills the box and stays inside", () => {
  for (const box of [{ width: 1600, height: 800 }, { width: 374, height: 640 }, { width: 900, height: 900 }]) {
    for (let n = 1; n <= 25; n++) {
      const { columns, tileWidth, tileHeight } = bestGrid(n, box, 10);
      const rows = Math.ceil(n / columns);
      assert.ok(columns * tileWidth + (columns - 1) * 10 <= box.width, `${n} tiles are too wide`);
      assert.ok(rows * tileHeight + (rows - 1) * 10 <= box.height, `${n} tiles are too high`);
      assert.ok(tileWidth * tileHeight * n > box.width * box.height * 0.3, `${n} tiles are too small`);
    }
  }
  assert.ok(tilesPerPage({ width: 374, height: 640 }) <= 8);
});

test("who speaks on a later page comes to the first", () => {
  const order = promoteSpeakers(["a", "b", "c", "d", "e"], new Set(["c", "e"]), 3);
  assert.deepEqual(order.slice(0, 3).sort(), ["a", "c", "e"]);
  assert.deepEqual([...order].sort(), ["a", "b", "c", "d", "e"]);
});

test("ops rows join DownTracks with who publishes them; a search needs every word", () => {
  const rooms = [
    {
      name: "demo",
      peers: [
        { peerId: "pe_a", name: "Ada", up: [{ trackId: "tr_1", source: "camera" }] },
        { peerId: "pe_b", name: "Bea", down: [{ trackId: "tr_1", mid: "3", publisher: "pe_a", reason: "bandwidth" }] },
      ],
    },
  ];
  const [row] = downTrackRows(rooms);
  assert.equal(row?.publisher, "Ada");
  assert.equal(row?.source, "camera");
  assert.equal(matches("bea band", "Bea", "bandwidth"), true);
  assert.equal(matches("bea hidden", "Bea", "bandwidth"), false);
  assert.equal(worthALook("bandwidth"), true);
  assert.equal(worthALook("size"), false);
});

test("relay trees are drawn from the plan, with what each hop carries", () => {
  const plan = {
    nodes: ["s1", "t1", "t2"],
    trees: [{ home: 0, hops: [{ node: 1, parent: 0, backup: 0 }, { node: 2, parent: 1, backup: 0 }] }],
  };
  const relays = [
    { trackId: "a", home: "s1", from: "s1", to: "t1", bitrateKbps: 500 },
    { trackId: "b", home: "s1", from: "s1", to: "t1", bitrateKbps: 40 },
    { trackId: "c", home: "t1", from: "t1", to: "s1", bitrateKbps: 7 },
  ];
  const [tree] = relayTrees({ plan, relays });
  assert.equal(tree?.node, "s1");
  assert.deepEqual(tree?.children.map((b) => [b.node, b.tracks, b.kbps, b.backup]), [["t1", 2, 540, ""]]);
  assert.deepEqual(tree?.children[0]?.children.map((b) => [b.node, b.backup]), [["t2", "s1"]]);
  assert.deepEqual(relayTrees({}), []);
  // A plan that makes no sense is drawn as far as it does, and ends.
  const loop = { nodes: ["a", "b"], trees: [{ home: 0, hops: [{ node: 1, parent: 1 }, { node: 0, parent: 0 }] }] };
  assert.equal(relayTrees({ plan: loop })[0]?.node, "a");
});

test("nodes are shown by region, in the order of their names", () => {
  const nodes = [{ id: "b", region: "y" }, { id: "a", region: "y" }, { id: "c", region: "x" }, { id: "d" }];
  assert.deepEqual(byRegion(nodes).map(([region, list]) => [region, list.map((n) => n.id)]), [["–", ["d"]], ["x", ["c"]], ["y", ["a", "b"]]]);
});

// The format of encrypted frames, the keys, and what the worker does with them: without a browser.
import assert from "node:assert/strict";
import { test } from "node:test";
import { dress, Opener, Sealer } from "../src/e2ee/cipher.js";
import type { Refusal } from "../src/e2ee/cipher.js";
import {
  clearBytes,
  join,
  nonceOf,
  readHeader,
  ReplayWindow,
  tagBytes,
  unwrapObu,
  wrapObu,
  writeHeader,
} from "../src/e2ee/frame.js";
import { deriveKey, indexOf, KeyRing, newKid } from "../src/e2ee/keys.js";
import type { FromWorker } from "../src/e2ee/messages.js";
import { Works } from "../src/e2ee/worker.js";
import type { EncodedFrame } from "../src/e2ee/worker.js";

const hex = (text: string): Uint8Array<ArrayBuffer> => new Uint8Array(text.match(/../g)!.map((b) => parseInt(b, 16)));
const toHex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");

function material(seed: number): Promise<CryptoKey> {
  return crypto.subtle.importKey("raw", new Uint8Array(32).fill(seed), "HKDF", false, ["deriveBits"]);
}

/** A generator of the same numbers every time (mulberry32). */
function random(seed: number): (below: number) => number {
  return (below) => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) % below;
  };
}

function randomBytes(next: (below: number) => number, length: number): Uint8Array<ArrayBuffer> {
  return Uint8Array.from({ length }, () => next(256));
}

/** A plausible frame: of VP8 with its first bit saying whether it is a keyframe. */
function frameOf(next: (below: number) => number, keyframe: boolean, length: number): Uint8Array<ArrayBuffer> {
  const data = randomBytes(next, length);
  data[0] = (data[0]! & 0xfe) | (keyframe ? 0 : 1);
  return data;
}

async function pair(): Promise<{ ring: KeyRing; sealer: Sealer; opener: Opener }> {
  const ring = new KeyRing();
  ring.set("everybody", 0, await material(1));
  return { ring, sealer: new Sealer(ring), opener: new Opener(ring) };
}

async function sealed(sealer: Sealer, codec: string, data: Uint8Array<ArrayBuffer>, keyframe = false) {
  const outcome = await sealer.seal(codec, data);
  assert.equal(outcome.refusal, undefined);
  return dress(codec, outcome.data!, keyframe);
}

test("RFC 9605 appendix C.1: headers", () => {
  for (const [kid, ctr, want] of [
    [0n, 0, "00"],
    [0n, 7, "07"],
    [0n, 8, "0808"],
    [0n, 255, "08ff"],
    [7n, 0xff00, "79ff00"],
    [8n, 0, "8008"],
    [255n, 255, "88ffff"],
    [256n, 256, "9901000100"],
    [0x123n, 0x4567, "9901234567"],
    [0xffffffffffffffffn, 0, "f0ffffffffffffffff"],
  ] as const) {
    assert.equal(toHex(writeHeader(kid, ctr)), want);
    assert.deepEqual(readHeader(hex(want + "aabb")), { kid, ctr, length: want.length / 2 });
  }
  for (const bad of ["", "80", "8007", "0807", "990001", "99012345", "9900010001", "0fffffffffffffffff"]) {
    assert.equal(readHeader(bad ? hex(bad) : new Uint8Array(0)), undefined, bad);
  }
});

test("RFC 9605 appendix C.3: keys, nonce and ciphertext of AES_128_GCM_SHA256_128", async () => {
  const base = hex("000102030405060708090a0b0c0d0e0f");
  const imported = await crypto.subtle.importKey("raw", base, "HKDF", false, ["deriveBits"]);
  const { key, salt } = await deriveKey(imported, 0x123n);
  assert.equal(toHex(salt), "75234edefe07819026751816");
  const iv = nonceOf(salt, 0x4567);
  assert.equal(toHex(iv), "75234edefe07819026755d71");
  const header = writeHeader(0x123n, 0x4567);
  const additionalData = join(header, hex("4945544620534672616d65205747"));
  const plain = hex("64726166742d696574662d736672616d652d656e63");
  const body = new Uint8Array(await crypto.subtle.encrypt({ name: "AES-GCM", iv, additionalData }, key, plain));
  assert.equal(
    toHex(join(header, body)),
    "9901234567b7412c2513a1b66dbb48841bbaf17f598751176ad847681a69c6d0b091c07018ce4adb34eb",
  );
});

test("what is sealed opens as it was, of every codec and size, with the clear bytes in front", async () => {
  const { sealer, opener } = await pair();
  const next = random(7);
  for (let i = 0; i < 200; i++) {
    const codec = ["opus", "vp8", "vp9", "av1"][next(4)]!;
    const keyframe = next(4) === 0;
    const data = frameOf(next, keyframe, (codec === "vp8" ? 10 : 1) + next(i % 10 === 0 ? 40_000 : 300));
    const wire = await sealed(sealer, codec, data, keyframe);
    const clear = clearBytes(codec, data)!;
    assert.deepEqual(wire.subarray(0, clear), data.subarray(0, clear));
    assert.ok(wire.length - data.length <= 1 + 8 + 8 + tagBytes + 5, `${wire.length - data.length} bytes more`);
    const outcome = await opener.open(codec, wire);
    assert.deepEqual(outcome.data, data);
  }
  assert.equal(clearBytes("vp8", new Uint8Array(20)), 10);
  assert.equal(clearBytes("vp8", new Uint8Array(20).fill(1)), 1);
  assert.equal(clearBytes("vp9", new Uint8Array(20)), 0);
  assert.equal((await sealer.seal("vp8", new Uint8Array(9))).refusal, "unsupported_codec");
});

test("a frame in which any one byte or bit was changed is dropped", async () => {
  const { sealer, opener } = await pair();
  const next = random(11);
  for (const codec of ["opus", "vp8", "vp9", "av1"]) {
    for (const keyframe of [true, false]) {
      const wire = await sealed(sealer, codec, frameOf(next, keyframe, 60), keyframe);
      // The two bytes around an AV1 frame are not the frame's: packetizers rewrite them.
      for (let at = codec === "av1" ? 2 : 0; at < wire.length; at++) {
        const changed = new Uint8Array(wire);
        changed[at]! ^= 1 << next(8);
        const { data } = await opener.open(codec, changed);
        assert.equal(data, undefined, `${codec}: byte ${at} was changed and the frame accepted`);
      }
      for (const cut of [1, tagBytes, wire.length - 1]) {
        const { data } = await opener.open(codec, wire.slice(0, wire.length - cut));
        assert.equal(data, undefined);
      }
      assert.notEqual((await opener.open(codec, wire)).data, undefined, "the unchanged one");
    }
  }
});

test("no input makes the opener throw, and none that is not authentic is let through", async () => {
  const { sealer, opener } = await pair();
  const next = random(23);
  const seeds = [await sealed(sealer, "vp8", frameOf(next, true, 90)), await sealed(sealer, "opus", randomBytes(next, 30))];
  for (let i = 0; i < 2_000; i++) {
    const seed = seeds[next(seeds.length)]!;
    const length = next(120);
    const data = next(2) ? randomBytes(next, length) : join(seed.subarray(0, next(seed.length)), randomBytes(next, 1 + next(40)));
    const codec = ["opus", "vp8", "vp9", "av1", "h264", ""][next(6)]!;
    const outcome = await opener.open(codec, data);
    assert.ok(outcome.refusal, `accepted ${codec} ${toHex(data)}`);
    unwrapObu(data);
    readHeader(data);
  }
});

test("an AV1 frame is one unit, with and without its size, as packetizers leave it", () => {
  for (const length of [0, 1, 127, 128, 16_383, 16_384, 2_097_152]) {
    const frame = new Uint8Array(length).fill(9);
    for (const keyframe of [true, false]) {
      const unit = wrapObu(frame, keyframe);
      assert.equal(unit[0]! >> 3, keyframe ? 1 : 6);
      assert.equal(unwrapObu(unit)?.length, length);
      const bare = join(new Uint8Array([unit[0]! & ~2]), frame);
      assert.equal(unwrapObu(bare)?.length, length);
    }
  }
  assert.equal(unwrapObu(hex("320309")), undefined);
  assert.equal(unwrapObu(hex("3203090909ff")), undefined);
  assert.equal(unwrapObu(hex("32ffffffff0f")), undefined);
});

test("nonces never repeat: counters are unlike for each counter, and KIDs for each use of a key", async () => {
  // Of one key: salt XOR counter is unlike for unlike counters, over millions and at the edges of each byte.
  const salt = randomBytes(random(3), 12);
  const seen = new Set<string>();
  const counters = [...Array(10_000).keys(), 2 ** 16, 2 ** 24, 2 ** 32, 2 ** 40, 2 ** 48, Number.MAX_SAFE_INTEGER];
  for (const ctr of counters) seen.add(toHex(nonceOf(salt, ctr)));
  assert.equal(seen.size, counters.length);
  const back = (nonce: Uint8Array): number => nonce.reduce((sum, byte, i) => sum * 256 + (byte ^ salt[i]!), 0);
  for (let ctr = 0; ctr < 3_000_000; ctr += 1 + (ctr % 61)) {
    if (back(nonceOf(salt, ctr)) !== ctr) assert.fail(`the nonce of ${ctr} is that of another`);
  }
  // Two senders with one key, or one before and after a reload, have unlike KIDs and so unlike derived keys.
  const kids = new Set(Array.from({ length: 20_000 }, () => newKid(5)));
  assert.equal(kids.size, 20_000);
  assert.ok([...kids].every((kid) => indexOf(kid) === 5));
  const { ring } = await pair();
  const frame = new Uint8Array(50);
  const [one, other] = await Promise.all([new Sealer(ring), new Sealer(ring)].map((s) => sealed(s, "opus", frame)));
  assert.notDeepEqual(one!.subarray(-50), other!.subarray(-50));
});

test("overlapping calls take unlike counters, and a sender takes a new KID when its limit is reached", async () => {
  const { ring } = await pair();
  const sealer = new Sealer(ring, 10);
  const wires = await Promise.all(Array.from({ length: 25 }, () => sealed(sealer, "vp9", new Uint8Array(8))));
  const headers = wires.map((wire) => readHeader(wire)!);
  assert.equal(new Set(headers.map(({ kid, ctr }) => `${kid} ${ctr}`)).size, 25);
  assert.equal(new Set(headers.map(({ kid }) => kid)).size, 3);
  assert.ok(headers.every(({ ctr }) => ctr < 10));
  const opener = new Opener(ring);
  for (const wire of wires) assert.ok((await opener.open("vp9", wire)).data);
});

test("a frame is accepted once, late ones while they are not too late", async () => {
  const window = new ReplayWindow(64);
  const seen = new Set<number>();
  const next = random(5);
  let newest = 0;
  let highest = -1;
  for (let i = 0; i < 20_000; i++) {
    newest += next(10) === 0 ? next(200) : 0;
    const ctr = Math.max(0, newest + 20 - next(80));
    const fresh = window.fresh(ctr);
    if (seen.has(ctr)) assert.equal(fresh, false, `${ctr} twice`);
    else if (ctr > highest - 64) assert.equal(fresh, true, `${ctr} with ${highest}`);
    if (fresh) {
      window.mark(ctr);
      seen.add(ctr);
      highest = Math.max(highest, ctr);
    }
  }
  const { sealer, opener } = await pair();
  const wires = [];
  for (let i = 0; i < 3; i++) wires.push(await sealed(sealer, "opus", new Uint8Array([i])));
  for (const [i, want] of [[2, undefined], [0, undefined], [2, "replayed"], [1, undefined], [0, "replayed"]] as const) {
    assert.equal((await opener.open("opus", wires[i]!)).refusal, want);
  }
});

async function refusalOf(opener: Opener, wire: Uint8Array<ArrayBuffer>): Promise<Refusal | undefined> {
  return (await opener.open("opus", wire)).refusal;
}

test("keys: none, a wrong one, the next one, the one before, one replaced under its index", async () => {
  const mine = new KeyRing();
  const yours = new KeyRing();
  const sealer = new Sealer(mine);
  const opener = new Opener(yours);
  const frame = new Uint8Array([1, 2, 3]);
  assert.equal((await sealer.seal("opus", frame)).refusal, "missing_key");
  assert.equal((await sealer.seal("h264", frame)).refusal, "unsupported_codec");
  mine.set("everybody", 0, await material(1));
  const first = await sealed(sealer, "opus", frame);
  assert.equal(await refusalOf(opener, first), "missing_key");
  yours.set("everybody", 0, await material(9));
  assert.equal(await refusalOf(opener, first), "decryption_failed");
  yours.set("everybody", 0, await material(1));
  assert.equal(await refusalOf(opener, first), undefined);
  // The next key is not used before it is said, and the one before still opens what comes late.
  mine.set("everybody", 1, await material(2));
  const late = await sealed(sealer, "opus", frame);
  const later = await sealed(sealer, "opus", frame);
  assert.equal(indexOf(readHeader(late)!.kid), 0);
  mine.use(1);
  const second = await sealed(sealer, "opus", frame);
  assert.equal(indexOf(readHeader(second)!.kid), 1);
  yours.set("everybody", 1, await material(2));
  assert.equal(await refusalOf(opener, second), undefined);
  assert.equal(await refusalOf(opener, late), undefined);
  yours.remove("everybody", 0);
  assert.equal(await refusalOf(opener, later), "missing_key");
  // Replaced under its index: the old one opens nothing any more.
  mine.set("everybody", 1, await material(3));
  const third = await sealed(sealer, "opus", frame);
  assert.notEqual(readHeader(third)!.kid, readHeader(second)!.kid);
  assert.equal(await refusalOf(opener, third), "decryption_failed");
  yours.set("everybody", 1, await material(3));
  assert.equal(await refusalOf(opener, third), undefined);
  mine.remove("everybody", 1);
  assert.equal((await sealer.seal("opus", frame)).refusal, "missing_key");
});

test("keys of single peers: one peer's media cannot be shown as another's for long", async () => {
  const ada = new KeyRing();
  ada.set("own", 0, await material(1));
  const ring = new KeyRing();
  ring.set({ peer: "pe_ada" }, 0, await material(1));
  ring.set({ peer: "pe_ben" }, 0, await material(2));
  let now = 0;
  const opener = new Opener(ring, () => now);
  const sealer = new Sealer(ada);
  const next = () => sealed(sealer, "opus", new Uint8Array([1]));
  opener.from("pe_ada");
  assert.equal(await refusalOf(opener, await next()), undefined);
  // A slot's news may come after its media, so for a moment either is right.
  opener.from("pe_ben");
  assert.equal(await refusalOf(opener, await next()), undefined);
  now = 1_999;
  assert.equal(await refusalOf(opener, await next()), undefined);
  now = 2_001;
  assert.equal(await refusalOf(opener, await next()), "wrong_sender");
  opener.from("pe_ada");
  assert.equal(await refusalOf(opener, await next()), undefined);
  // One's own key opens nothing.
  assert.equal(await refusalOf(new Opener(ada), await next()), "missing_key");
});

/** A worker with a clock of the test's, and the ends of one track. */
function works(side: "send" | "receive", kind: "audio" | "video" = "video") {
  const told: FromWorker[] = [];
  let now = 10_000;
  const made = new Works({ postMessage: (message) => void told.push(message), now: () => now });
  const input = new TransformStream<EncodedFrame, EncodedFrame>();
  const output = new TransformStream<EncodedFrame, EncodedFrame>();
  const asked: number[] = [];
  made.transform(
    { id: 1, side, kind },
    {
      readable: input.readable,
      writable: output.writable,
      sendKeyFrameRequest: async () => void asked.push(now),
    },
  );
  const writer = input.writable.getWriter();
  const reader = output.readable.getReader();
  return { made, told, asked, writer, reader, later: (ms: number) => (now += ms) };
}

function encoded(data: Uint8Array<ArrayBuffer>, type = "delta", metadata: object = { mimeType: "video/VP8" }): EncodedFrame {
  return { data: data.slice().buffer, type, getMetadata: () => metadata };
}

test("the worker sends nothing in the clear, tells it once in a while, and asks for a keyframe when a key comes", async () => {
  const sender = works("send");
  const next = random(1);
  for (let i = 0; i < 3; i++) await sender.writer.write(encoded(frameOf(next, i === 0, 100)));
  await until(() => sender.told.length > 0);
  assert.deepEqual(sender.told, [{ type: "refused", id: 1, side: "send", code: "missing_key", keyIndex: -1, peer: "", count: 1 }]);
  sender.made.take({ type: "key", holder: "everybody", index: 3, material: await material(1) });
  const plain = frameOf(next, true, 100);
  void sender.writer.write(encoded(plain, "key"));
  const first = (await sender.reader.read()).value!;
  assert.ok(!toHex(new Uint8Array(first.data)).includes(toHex(plain.subarray(10, 40))));

  const receiver = works("receive");
  receiver.made.take({ type: "from", id: 1, peer: "pe_ada" });
  void receiver.writer.write(encoded(new Uint8Array(first.data), "key"));
  void receiver.writer.write(encoded(plain)); // as it was: of a peer that does not encrypt
  await until(() => receiver.told.length === 2);
  assert.deepEqual(
    receiver.told.map((m) => m.type === "refused" && [m.code, m.keyIndex, m.peer]),
    [["missing_key", 3, "pe_ada"], ["not_encrypted", -1, "pe_ada"]],
  );
  assert.deepEqual(receiver.asked, []);
  receiver.made.take({ type: "key", holder: "everybody", index: 3, material: await material(1) });
  assert.deepEqual(receiver.asked, [10_000]);
  void receiver.writer.write(encoded(new Uint8Array(first.data), "key"));
  assert.deepEqual(new Uint8Array((await receiver.reader.read()).value!.data), plain);
  receiver.made.take({ type: "stats", request: 5 });
  assert.deepEqual(receiver.told.at(-1), {
    type: "stats",
    request: 5,
    stats: { encrypted: 0, decrypted: 1, refused: { missing_key: 1, not_encrypted: 1 } },
  });
});

test("the worker asks for the codec where frames do not say it, and lets empty frames pass", async () => {
  const sender = works("send");
  sender.made.take({ type: "key", holder: "everybody", index: 0, material: await material(1) });
  const data = frameOf(random(2), true, 50);
  for (let i = 0; i < 3; i++) await sender.writer.write(encoded(data, "key", { payloadType: 96 }));
  void sender.writer.write(encoded(new Uint8Array(0)));
  assert.equal((await sender.reader.read()).value!.data.byteLength, 0);
  assert.deepEqual(sender.told, [{ type: "ask-codecs", id: 1 }]);
  sender.made.take({ type: "codecs", id: 1, codecs: { 96: "vp8" } });
  void sender.writer.write(encoded(data, "key", { payloadType: 96 }));
  assert.deepEqual(new Uint8Array((await sender.reader.read()).value!.data).subarray(0, 10), data.subarray(0, 10));
});

async function until(holds: () => boolean): Promise<void> {
  const deadline = Date.now() + 5_000;
  while (!holds()) {
    if (Date.now() > deadline) assert.fail("waited in vain");
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

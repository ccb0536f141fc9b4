import assert from "node:assert/strict";
import { test } from "node:test";
import { heard, stuck } from "../src/sdk/pairs.js";
import type { Pairs } from "../src/sdk/pairs.js";
import { Pulse } from "../src/sdk/pulse.js";
import type { Platform } from "../src/sdk/platform.js";

/** A path that brings something at each beat while `alive`; `beat` lets a quarter of a second pass. */
function path() {
  const state = { nowMs: 1000, alive: true, bytes: 0, answers: 0, spares: 0, timestamp: 0, pairState: "succeeded", silences: 0, heard: 0 };
  let tick = (): void => undefined;
  const platform = { now: () => state.nowMs, every: (_: number, f: () => void) => ((tick = f), () => undefined) } as unknown as Platform;
  const stats = () => [
    { type: "transport", id: "t", selectedCandidatePairId: "p" },
    { type: "candidate-pair", id: "p", state: state.pairState, bytesReceived: state.bytes, responsesReceived: state.answers },
    { type: "candidate-pair", id: "spare", state: "succeeded", bytesReceived: 0, responsesReceived: state.spares },
  ];
  const receiver = { getSynchronizationSources: () => (state.timestamp ? [{ rtpTimestamp: state.timestamp }] : []) };
  const pc = { connectionState: "connected", signalingState: "stable", getReceivers: () => [receiver], getStats: async () => new Map(stats().map((s) => [s.id, s])) };
  const pulse = new Pulse(platform, pc as unknown as RTCPeerConnection, { silent: () => state.silences++, heard: () => state.heard++ });
  const beat = async (n: number, each = (): void => undefined): Promise<void> => {
    for (let i = 0; i < n; i++) {
      state.nowMs += 250;
      if (state.alive) state.bytes++;
      each();
      tick();
      await new Promise((resolve) => setImmediate(resolve));
    }
  };
  return { state, pulse, beat };
}

test("a busy path that falls silent is noticed within a second, and so is its return", async () => {
  const { state, beat } = path();
  await beat(8);
  state.alive = false;
  await beat(4);
  assert.equal(state.silences, 1);
  state.alive = true;
  await beat(1);
  assert.equal(state.heard, 1);
});

test("a path on which less was to be expected is not broken at once", async () => {
  const { state, pulse, beat } = path();
  await beat(8);
  pulse.calm();
  await beat(2); // what was on the way
  state.alive = false;
  await beat(26);
  assert.equal(state.silences, 0);
  await beat(4);
  assert.equal(state.silences, 1);
});

test("another state of a dead pair is no news, nor is the answer of a spare one", async () => {
  const { state, beat } = path();
  await beat(8);
  state.alive = false;
  await beat(1);
  state.pairState = "in-progress";
  await beat(3, () => state.spares++);
  assert.equal(state.silences, 1);
});

test("what came while media was played is no news once it has stopped", async () => {
  const { state, beat } = path();
  await beat(8, () => (state.timestamp += 3_000));
  state.alive = false;
  await beat(4);
  assert.equal(state.silences, 1);
});

test("a path without media lives as long as the browser's checks are answered", async () => {
  const { state, beat } = path();
  state.alive = false;
  for (let i = 0; i < 4; i++) {
    state.answers++;
    await beat(24); // 6 s, as in Firefox
  }
  assert.equal(state.silences, 0);
  await beat(8);
  assert.equal(state.silences, 1);
});

/** The pairs "a" and "b" with what they received: bytes, answers, checks. */
function pairs(selected: string, a: [number, number, number], b?: [number, number, number]): Pairs {
  const received = ([bytes, answers, checks]: [number, number, number]) => ({ bytes, answers, checks });
  return { selected, received: new Map([["a", received(a)], ...(b ? ([["b", received(b)]] as const) : [])]) };
}

test("a browser is stuck when its pair is dead and another one is answered", () => {
  const before = pairs("a", [1_000, 5, 6]);
  const cases: [string, Pairs, boolean | undefined][] = [
    ["nothing yet", pairs("a", [1_000, 5, 6], [0, 0, 0]), undefined],
    ["another pair is answered", pairs("a", [1_000, 5, 6], [0, 1, 1]), true],
    ["another pair is only checked by the server", pairs("a", [1_000, 5, 6], [0, 0, 1]), undefined],
    ["media by the old pair", pairs("a", [1_001, 5, 6], [0, 1, 1]), false],
    ["the server's check by the old pair: only the publisher is gone", pairs("a", [1_000, 5, 7], [0, 1, 1]), false],
    ["it has gone over by itself", pairs("b", [1_000, 5, 6], [0, 1, 1]), false],
    ["it does not say which it uses", pairs("", [1_000, 5, 6], [0, 1, 1]), false],
  ];
  for (const [what, now, want] of cases) assert.equal(stuck(before, now), want, what);
});

test("media by any pair is heard, checks by the one in use", () => {
  const before = pairs("a", [1_000, 5, 6], [0, 1, 1]);
  assert.equal(heard(before, before), false);
  assert.equal(heard(before, pairs("a", [1_000, 5, 6], [10, 1, 1])), true);
  assert.equal(heard(before, pairs("a", [1_000, 5, 6], [0, 2, 2])), false);
  assert.equal(heard(before, pairs("a", [1_000, 5, 7], [0, 1, 1])), true);
  assert.equal(heard(before, pairs("b", [1_000, 5, 6], [0, 1, 1])), false, "only chosen anew");
});

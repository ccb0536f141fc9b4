import assert from "node:assert/strict";
import { test } from "node:test";
import { Pulse } from "../src/sdk/pulse.js";
import type { Platform } from "../src/sdk/platform.js";

/** A path that brings something at each beat while `alive`; `beat` lets a quarter of a second pass. */
function path() {
  const state = { nowMs: 1000, alive: true, bytes: 0, silences: 0, heard: 0 };
  let tick = (): void => undefined;
  const platform = { now: () => state.nowMs, every: (_: number, f: () => void) => ((tick = f), () => undefined) } as unknown as Platform;
  const pair = () => ({ type: "candidate-pair", nominated: true, state: "succeeded", id: "p", bytesReceived: state.bytes });
  const pc = { connectionState: "connected", signalingState: "stable", getReceivers: () => [], getStats: async () => new Map([["p", pair()]]) };
  const pulse = new Pulse(platform, pc as unknown as RTCPeerConnection, { silent: () => state.silences++, heard: () => state.heard++ });
  const beat = async (n: number): Promise<void> => {
    for (let i = 0; i < n; i++) {
      state.nowMs += 250;
      if (state.alive) state.bytes++;
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
  await beat(14);
  assert.equal(state.silences, 0);
  await beat(4);
  assert.equal(state.silences, 1);
});

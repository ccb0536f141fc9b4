import assert from "node:assert/strict";
import { test } from "node:test";
import { CueSchedule } from "../src/sdk/cues.js";
import type { StreamCue } from "../src/sdk/cues.js";
import { HoldBackControl } from "../src/sdk/holdback.js";

const cue = (id: string, startMs: number): StreamCue => ({ id, type: "quiz", startMs, data: {} });
const ids = (cues: readonly StreamCue[]): string[] => cues.map((c) => c.id);

test("two stalls in half a minute move a player away from the edge, calm brings it back", () => {
  const hold = new HoldBackControl(0);
  assert.deepEqual(hold.current, { factor: 1, lowLatency: true });
  assert.equal(hold.stalled(1_000), false);
  assert.equal(hold.stalled(40_000), false, "too far apart");
  assert.equal(hold.stalled(41_000), true);
  assert.ok(hold.current.factor > 1.5);
  assert.equal(hold.played(100_000), false, "not yet a minute");
  assert.equal(hold.played(101_000), true);
  assert.equal(hold.current.factor, 1);
  assert.equal(hold.played(500_000), false, "nearer than that it does not go");
});

test("a step back that was in vain is tried later each time, and the last resort is without parts", () => {
  const hold = new HoldBackControl(0);
  let now = 0;
  const twice = (): void => {
    hold.stalled((now += 1_000));
    hold.stalled((now += 1_000));
  };
  twice();
  assert.equal(hold.played((now += 60_000)), true);
  twice();
  assert.equal(hold.played((now += 60_000)), false, "now it takes two minutes");
  assert.equal(hold.played((now += 60_000)), true);
  for (let i = 0; i < 5; i++) twice();
  assert.deepEqual(hold.current, { factor: 1, lowLatency: false });
});

test("a cue is given once, when the picture reaches it", () => {
  const cues = new CueSchedule();
  assert.deepEqual(cues.reach(1_000), []);
  cues.add(cue("b", 2_000));
  cues.add(cue("a", 1_500));
  cues.add(cue("a", 1_700));
  assert.equal(cues.nextMs, 1_500);
  assert.deepEqual(ids(cues.reach(1_499)), []);
  assert.deepEqual(ids(cues.reach(1_510)), ["a"]);
  assert.deepEqual(ids(cues.reach(2_400)), ["b"]);
  assert.deepEqual(ids(cues.reach(2_500)), []);
});

test("who joins late is not given what was, but what became known a little late", () => {
  const cues = new CueSchedule();
  cues.add(cue("old", 1_000));
  assert.deepEqual(ids(cues.reach(5_000)), []);
  cues.add(cue("late", 4_000));
  cues.add(cue("too late", 1_500));
  assert.deepEqual(ids(cues.reach(5_100)), ["late"]);
});

test("seeking skips forward and gives again backward", () => {
  const cues = new CueSchedule();
  for (const at of [1_000, 2_000, 9_000]) cues.add(cue(String(at), at));
  cues.reach(500);
  assert.deepEqual(ids(cues.reach(1_100)), ["1000"]);
  assert.deepEqual(ids(cues.reach(8_000)), [], "a seek over it");
  assert.deepEqual(ids(cues.reach(9_050)), ["9000"]);
  assert.deepEqual(ids(cues.reach(1_500)), [], "a seek behind it");
  assert.deepEqual(ids(cues.reach(2_100)), ["2000"]);
});

test("a thousand cues are kept, the oldest go", () => {
  const cues = new CueSchedule();
  cues.reach(0);
  for (let i = 1; i <= 1_100; i++) cues.add(cue(String(i), i * 1_000));
  assert.equal(cues.nextMs, 101_000);
});

import assert from "node:assert/strict";
import { test } from "node:test";
import { browserPlatform } from "../src/sdk/platform.js";

class FakeWorker {
  static made: FakeWorker[] = [];
  onmessage: (() => void) | null = null;
  onerror: (() => void) | null = null;
  terminated = false;

  constructor() {
    FakeWorker.made.push(this);
  }

  postMessage(): void {
    // it would begin to count
  }

  terminate(): void {
    this.terminated = true;
  }
}

// The policy of a page may forbid workers of blobs. Browsers say so by an exception, or only afterwards, by an event.
test("a page that forbids workers has its heartbeat all the same", async () => {
  const before = (globalThis as { Worker?: unknown }).Worker;
  (globalThis as { Worker?: unknown }).Worker = FakeWorker;
  try {
    let beats = 0;
    const end = browserPlatform().every(5, () => beats++);
    const [worker] = FakeWorker.made;
    worker!.onmessage!();
    assert.equal(beats, 1, "where they are allowed, a worker counts");
    worker!.onerror?.();
    await new Promise((resolve) => setTimeout(resolve, 100));
    assert.ok(beats > 2, `${beats} beats`);
    end();
    const last = beats;
    await new Promise((resolve) => setTimeout(resolve, 50));
    assert.equal(beats, last, "it has ended");

    browserPlatform().every(5, () => beats++)();
    assert.equal(FakeWorker.made[1]!.terminated, true);
    FakeWorker.made[1]!.onerror?.(); // too late
    await new Promise((resolve) => setTimeout(resolve, 50));
    assert.equal(beats, last, "it has ended before it could begin");
  } finally {
    (globalThis as { Worker?: unknown }).Worker = before;
  }
});

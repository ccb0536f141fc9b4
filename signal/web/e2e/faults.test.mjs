// One stream, recorded into an object store, pushed to an RTMP server and watched, while everything around it fails in turn: its
// compositor, the push's target, a publisher, the disk, the store. What the viewer sees, and what the files have in the end.
import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { promisify } from "node:util";
import { openBrowser } from "./lib/browser.mjs";
import { Alone, binary, credentials } from "./lib/cluster.mjs";
import { childrenOf, freePort } from "./lib/platform.mjs";
import { look } from "./lib/senses.mjs";
import { missing, objectStore, rtmpServer } from "./lib/servers.mjs";
import { pause, until } from "./lib/wait.mjs";
import { Viewer } from "./lib/viewer.mjs";
import { stillness } from "./lib/watch.mjs";

const run = promisify(execFile);
const skip = process.env.CI ? undefined : missing ?? (process.getuid() === 0 ? undefined : "a small disk needs root");
const room = "live";
// For the picture to go on. Nobody who watches should notice most of this; but the machine may be busy with other things, so the figures
// are printed, and that the program went on is judged by the recording.
const patience = 15_000;

let dir, disk, store, rtmp, node, browser, viewer, recording, recordedMs;
const publishers = [];
/** Seconds of the program that a fault may have cost the recording. */
const cost = {};

/** A peer that publishes, in a process of its own. */
function publisher() {
  const args = ["load", "--room", room, "--url", node.url, ...credentials, "--publishers", "1", "--duration", "10m"];
  const child = spawn(binary, args, { stdio: "ignore" });
  publishers.push(child);
  return child;
}

/** live-event with one small variant of which the last two minutes can be watched: older segments lie on the disk. */
async function template() {
  const made = await node.cli("template", "get", "live-event");
  Object.assign(made, { name: "small" });
  delete made.revision;
  Object.assign(made.streams[0], { width: 640, height: 360, dvrWindowS: 120, variants: [{ name: "360p", width: 640, height: 360, bitrateKbps: 600 }] });
  const file = join(dir, "small.json");
  await writeFile(file, JSON.stringify(made));
  await node.cli("template", "set", file);
}

before(async () => {
  if (skip) return;
  dir = await mkdtemp(join(tmpdir(), "amphi-e2e-faults-"));
  disk = join(dir, "data");
  await mkdir(disk);
  await run("mount", ["-t", "tmpfs", "-o", "size=96m", "tmpfs", disk]);
  const port = await freePort();
  store = await objectStore(join(dir, "store"), port);
  rtmp = await rtmpServer(join(dir, "rtmp"), port + 1);
  node = await Alone.start(dir, disk, `recordings: {s3: ${store.config}}`);
  await template();
  await node.cli("room", "create", room, "--template", "small");
  const { codes } = await node.cli("room", "codes", room, "--create");
  publisher();
  publisher();
  await until("both publish", async () => (await node.cli("peer", "list", room)).peers?.filter((peer) => peer.tracks?.length === 2).length === 2, { timeout: 30_000 });
  await node.cli("stream", "start", room);
  recording = (await node.cli("record", "start", room)).id;
  await node.cli("push", "add", room, rtmp.url);
  browser = await openBrowser("red");
  viewer = await Viewer.open(browser, `${node.url}/m/${codes.find((c) => c.role === "viewer").code}`);
  await viewer.watch();
  await viewer.follows(4, 60_000);
  await until("it is recorded and pushed", async () => (await Promise.all([output("record"), output("push")])).every((o) => o.state === "OUTPUT_STATE_ACTIVE"));
  recordedMs = Date.now();
}, { timeout: 120_000 });

after(async () => {
  await browser?.close();
  for (const child of publishers) child.kill("SIGKILL");
  await node?.stop();
  await Promise.all([store?.kill(), rtmp?.kill()]);
  if (disk) await run("umount", [disk]).catch(() => undefined);
  if (dir) await rm(dir, { recursive: true, force: true });
}, { timeout: 30_000 });

/** The room's one recording or push. */
async function output(kind) {
  return (await node.cli(kind, "list", room)).outputs.at(-1);
}

const status = () => node.cli("node", "show");

/** Has the node keep something that is larger than what is left of the file's last page. */
const keep = (name) => node.cli("room", "create", name, "--template", "small", "--metadata", "m".repeat(4_096));

/** Lets something happen, and watches the viewer until it sees what was made after that: how long its picture stood at most. */
async function suffer(t, what, fault) {
  const latency = await viewer.follows();
  const { stalls } = await viewer.stats();
  await viewer.watch();
  const told = await fault();
  await viewer.reaches(Date.now());
  const freeze = await stillness(viewer.page);
  const later = await viewer.follows();
  t.diagnostic(`${what}: the picture stands for ${freeze} ms at most, ${(await viewer.stats()).stalls - stalls} stalls; ${latency} ms behind the stage before, ${later} after${told ? "; " + told : ""}`);
  assert.ok(freeze < patience, `the picture stood for ${freeze} ms`);
}

/** Whether both publishers' tiles move. */
async function bothMove() {
  const moved = [];
  for (const x of [0.05, 0.55]) {
    const region = [x, 0.3, 0.4, 0.4];
    await look(viewer.page, "video", [], region);
    await pause(200);
    moved.push((await look(viewer.page, "video", [], region)).moved);
  }
  return moved.every(Boolean);
}

test("the compositor is killed", { skip, timeout: 60_000 }, async (t) => {
  await suffer(t, "compositor killed", async () => {
    const [pid] = await childrenOf(node.member.child.pid, "amphi-compositor");
    const begun = Date.now();
    process.kill(pid, "SIGKILL");
    const [stream] = await until("another one delivers", async () => {
      const { streams } = await status();
      return streams[0].restarts >= 1 && streams[0].stream.state === "STREAM_STATE_LIVE" && (await childrenOf(node.member.child.pid, "amphi-compositor")).some((p) => p !== pid) && streams;
    }, { every: 50 });
    assert.equal(stream.restarts, 1);
    cost.compositor = (Date.now() - begun) / 1000 + 2.5; // H6
    return `another process after ${Date.now() - begun} ms`;
  });
});

test("the push's target is killed, and comes back", { skip, timeout: 60_000 }, async (t) => {
  await suffer(t, "push target killed", async () => {
    const before = (await rtmp.files()).length;
    await rtmp.kill();
    await until("the push is tried again", async () => (await output("push")).state === "OUTPUT_STATE_RETRYING");
    await rtmp.start();
    const begun = Date.now();
    await until("it is there again", async () => (await output("push")).state === "OUTPUT_STATE_ACTIVE" && (await rtmp.files()).length > before, { every: 50 });
    const back = Date.now() - begun;
    assert.ok(back < 10_000, `the push was back after ${back} ms`); // H11 is 5 s
    return `back ${back} ms after its start`;
  });
  assert.equal((await output("record")).state, "OUTPUT_STATE_ACTIVE");
});

test("a publisher stands still for 5 s", { skip, timeout: 60_000 }, async (t) => {
  await until("both tiles move", bothMove);
  await suffer(t, "a publisher stopped for 5 s", async () => {
    publishers[1].kill("SIGSTOP");
    await pause(5_000);
    publishers[1].kill("SIGCONT");
    const begun = Date.now();
    await until("both tiles move again", bothMove);
    return `its own tile moves again ${Date.now() - begun} ms after that`;
  });
});

test("the disk is full for a while", { skip, timeout: 60_000 }, async (t) => {
  await suffer(t, "disk full", async () => {
    const filler = join(disk, "filler");
    const begun = Date.now();
    try {
      await assert.rejects(run("dd", ["if=/dev/zero", `of=${filler}`, "bs=64k"]), /No space left/);
      const held = await until("the recording says so", async () => {
        const o = await output("record");
        return o.state === "OUTPUT_STATE_RETRYING" && o;
      });
      assert.equal(held.failure, "the disk is full");
      await assert.rejects(keep("refused"), /unavailable/, "what cannot be kept is not acknowledged");
      await until("so does the stream's window", async () => (await status()).streams[0].windowFailure);
    } finally {
      await rm(filler);
    }
    await until("it is recorded again", async () => (await output("record")).state === "OUTPUT_STATE_ACTIVE");
    cost.disk = (Date.now() - begun) / 1000;
    await keep("kept"); // without a restart
    return `recorded again ${Math.round(cost.disk * 1000)} ms after it was filled`;
  });
  assert.equal((await output("push")).state, "OUTPUT_STATE_ACTIVE");
});

test("the store is away when the recording ends; what comes into it then plays from start to end", { skip, timeout: 120_000 }, async (t) => {
  let wall;
  await suffer(t, "store killed", async () => {
    await store.kill();
    const { startedMs } = await output("record");
    wall = { least: (Date.now() - recordedMs) / 1000 };
    await node.cli("record", "stop", room);
    wall.most = (Date.now() - Number(startedMs)) / 1000;
    await until("its files wait for the store", async () => {
      const { storage, storageWaiting } = await status();
      return storage === "away" && storageWaiting > 0;
    });
    await store.start();
    const begun = Date.now();
    await until("they are in it", async () => {
      const { storage, storageWaiting } = await status();
      return storage === "ok" && !storageWaiting;
    }, { timeout: 60_000 });
    return `all files in it ${Date.now() - begun} ms after its start`;
  });
  const { assets } = await node.cli("record", "assets", "list", "--recording", recording);
  assert.ok(assets.every((asset) => asset.state === "ASSET_STATE_READY"), JSON.stringify(assets));
  await plays(t, assets, wall);
});

/** Fetches a recording's movie and playlist where the store has them, and has them played from start to end. */
async function plays(t, assets, wall) {
  const movie = assets.find((asset) => asset.type === "ASSET_TYPE_PROGRAM");
  const { url } = await node.cli("record", "assets", "url", movie.id);
  assert.ok(url.startsWith(`${store.url}/${store.bucket}/`), "a link to the store");
  const file = join(dir, "movie.mp4");
  await writeFile(file, Buffer.from(await (await fetch(url)).arrayBuffer()));
  const decoded = await run("ffmpeg", ["-v", "error", "-i", file, "-f", "null", "-"]);
  assert.equal(decoded.stderr, "");
  for (const kind of ["v", "a"]) {
    const { stdout } = await run("ffprobe", ["-v", "error", "-select_streams", kind, "-show_entries", "packet=pts_time", "-of", "csv=p=0", file], { maxBuffer: 64 << 20 });
    const times = stdout.trim().split("\n").map(Number.parseFloat);
    const steps = times.slice(1).map((at, i) => at - times[i]);
    const [length, longest] = [times.at(-1) - times[0], Math.max(...steps)];
    t.diagnostic(`recording, ${kind}: ${length.toFixed(2)} s of ${wall.most.toFixed(2)} s that it ran, longest step ${(longest * 1000).toFixed(0)} ms`);
    assert.ok(Math.min(...steps) >= 0 && longest < 0.5, `steps of ${Math.min(...steps)} to ${longest} s`);
    // It goes on with a keyframe, and is cut at the last whole part: 2 s each at most, for two faults and the end.
    const least = wall.least - cost.compositor - cost.disk - 6;
    assert.ok(length > least && length < wall.most + 1, `${length} s, want ${least} to ${wall.most}`);
  }
  const playlist = assets.find((asset) => asset.type === "ASSET_TYPE_PLAYLIST");
  const link = await node.cli("record", "assets", "url", playlist.id);
  const shown = await run("ffprobe", ["-v", "error", "-show_entries", "format=duration", "-of", "csv=p=0", link.url]);
  assert.ok(Math.abs(Number(shown.stdout) - movie.durationMs / 1000) < 1, `the playlist has ${shown.stdout} s of ${movie.durationMs} ms`);
}

test("what the push's target took plays; the node is the one that it was", { skip, timeout: 60_000 }, async (t) => {
  await node.cli("push", "remove", room);
  const files = await rtmp.files();
  const file = await until("the target has closed its file", async () => {
    const { stderr } = await run("ffmpeg", ["-v", "error", "-i", files.at(-1), "-f", "null", "-"]);
    return stderr === "" && files.at(-1);
  });
  const { stdout } = await run("ffprobe", ["-v", "error", "-select_streams", "v", "-show_entries", "packet=pts_time,flags", "-of", "csv=p=0", file], { maxBuffer: 64 << 20 });
  const packets = stdout.trim().split("\n");
  t.diagnostic(`pushed since the target's return: ${packets.length} pictures`);
  assert.match(packets[0], /K/, "it began with a keyframe");
  assert.equal(node.member.child.exitCode, null);
  assert.deepEqual([...node.member.output.matchAll(/^(panic|fatal|WARNING: DATA RACE).*/gm)].map(([line]) => line), []);
});

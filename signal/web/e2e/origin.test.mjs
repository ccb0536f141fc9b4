// A stream that goes on: the node that makes it is killed, then its room's owner, then the node that serves the player.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { after, before, test } from "node:test";
import { binary, Cluster, credentials } from "./lib/cluster.mjs";
import { until } from "./lib/wait.mjs";

const path = "/v1/hls/live/main/";
// H7 is 6 s for an origin that is killed; the machine may be busy with other tests.
const patience = 12_000;

/** Plays as cheaply as can be: one blocked reload and one part after the other, at whatever node it is told; notes when parts come. */
class Player {
  constructor(url) {
    this.url = url;
    this.arrivals = [];
    this.faults = [];
    this.sequences = { "720p": 0, audio: 0 };
    this.playing = true;
    this.done = Promise.all([this.follow("720p"), this.follow("audio")]);
  }

  async ask(path) {
    const answer = await fetch(this.url + path, { signal: AbortSignal.timeout(10_000) });
    return answer.ok ? answer : Promise.reject(new Error(`${path}: ${answer.status}`));
  }

  async follow(media) {
    let query = "";
    let had = "";
    while (this.playing) {
      try {
        const list = await (await this.ask(`${path}${media}/index.m3u8${query}`)).text();
        this.judge(media, list);
        const parts = [...list.matchAll(/#EXT-X-PART:[^\n]*URI="((\d+)-(\d+)\.(\d+)\.m4s)"(,GAP=YES)?/g)];
        const [, uri, epoch, msn, index] = parts.at(-1) ?? [];
        if (!uri) continue;
        if (uri !== had) {
          const body = await (await this.ask(path + media + "/" + uri)).arrayBuffer();
          had = uri;
          if (media === "720p") this.arrivals.push({ at: Date.now(), epoch: BigInt(epoch), msn: Number(msn), bytes: body.byteLength });
        }
        query = `?_HLS_msn=${msn}&_HLS_part=${Number(index) + 1}`;
      } catch {
        query = ""; // as players do: the same again, soon
        await new Promise((resolve) => setTimeout(resolve, 250));
      }
    }
  }

  judge(media, list) {
    const number = (tag) => Number(new RegExp(`#${tag}:(\\d+)`).exec(list)?.[1] ?? -1);
    const sequence = number("EXT-X-MEDIA-SEQUENCE");
    if (sequence < this.sequences[media]) this.faults.push(`${media}: media sequence ${sequence} after ${this.sequences[media]}`);
    this.sequences[media] = sequence;
    this.discontinuity = { ...this.discontinuity, [media]: number("EXT-X-DISCONTINUITY-SEQUENCE") };
    if (list.includes("#EXT-X-ENDLIST")) this.faults.push(`${media}: the stream is said to have ended`);
  }

  get newest() {
    return this.arrivals.at(-1);
  }

  /** Whether the picture moves: parts of one that stands still are small. */
  get moves() {
    const last = this.arrivals.slice(-3);
    return last.length === 3 && last.every((part) => part.epoch === this.newest.epoch && part.bytes > 15_000);
  }

  /** The longest time without a new part from a moment on, in milliseconds. */
  gap(from) {
    const times = [from, ...this.arrivals.map((part) => part.at).filter((at) => at > from)];
    return Math.max(...times.slice(1).map((at, i) => at - times[i]));
  }

  async stop() {
    this.playing = false;
    await this.done;
  }
}

let cluster;
let publisher;
let player;

before(async () => {
  const all = "stage, audience, origin, voter";
  cluster = await Cluster.start(["a", "b", "c", "d", "e"], { a: "r", b: "r", c: "r", d: "r", e: "r" }, [], {
    a: "stage, audience, voter", b: all, c: all, d: "audience, voter", e: "audience, voter" });
  await cluster.room("a", "live");
  publisher = spawn(binary, ["load", "--room", "live", "--url", cluster.nodes.get("a").url, ...credentials, "--publishers", "1", "--duration", "120s"], { stdio: "ignore" });
  await until("the stream runs", () => cluster.cli("a", "stream", "start", "live").catch(() => undefined), { timeout: 30_000, every: 200 });
  player = new Player(cluster.nodes.get("d").url);
  await until("the player plays", () => player.moves, { timeout: 30_000, every: 100 });
});

after(async () => {
  publisher?.kill("SIGKILL");
  await player?.stop();
  await cluster?.stop();
});

/** The node that makes the stream. */
async function origin() {
  for (const id of ["b", "c"]) {
    if (cluster.nodes.get(id).child.exitCode !== null || cluster.nodes.get(id).child.signalCode) continue;
    const status = await cluster.cli(id, "node", "show", id).catch(() => undefined);
    if (status?.streams?.length) return id;
  }
  return undefined;
}

test("the origin is killed: another one goes on, and who plays hears of nothing but a discontinuity", async (t) => {
  const old = await origin();
  assert.ok(old, "a node with the role makes the stream, as its owner may not");
  const { epoch, msn } = player.newest;
  const begun = Date.now();
  await cluster.nodes.get(old).kill();
  await until("parts of another program", () => player.newest.epoch > epoch, { timeout: patience, every: 50 });
  const gap = player.gap(begun);
  await until("what is on stage in them", () => player.moves, { timeout: patience, every: 50 });
  await until("the sound of it", () => player.discontinuity.audio > 0, { timeout: patience, every: 50 });
  t.diagnostic(`origin killed: ${gap} ms without a new part; segment ${msn}, then ${player.newest.msn}`);
  assert.ok(player.newest.msn > msn);
  assert.deepEqual(player.faults, []);
  assert.equal(player.discontinuity["720p"], player.discontinuity.audio);
});

test("the room's owner is killed: the stream goes on where it is made, and the next owner commands it", async (t) => {
  const { epoch } = player.newest;
  const begun = Date.now();
  await cluster.nodes.get("a").kill();
  const next = ["b", "c"].find((id) => !cluster.nodes.get(id).child.signalCode);
  await until("another owner tells of the stream", async () => {
    const { streams } = await cluster.cli(next, "stream", "list", "live").catch(() => ({}));
    return streams?.[0]?.state === "STREAM_STATE_LIVE";
  }, { timeout: patience, every: 200 });
  await cluster.cli(next, "stream", "layout", "live", "single");
  const known = player.arrivals.length;
  await until("some more parts", () => player.arrivals.length > known + 4, { timeout: patience, every: 50 });
  t.diagnostic(`owner killed: ${player.gap(begun)} ms without a new part`);
  assert.equal(player.newest.epoch, epoch, "the program is the same");
  assert.deepEqual(player.faults, []);
});

test("the edge in front of the player is killed: any other serves the same", async (t) => {
  const { epoch } = player.newest;
  const begun = Date.now();
  await cluster.nodes.get("d").kill();
  player.url = cluster.nodes.get("e").url;
  await until("the next parts", () => player.arrivals.filter((part) => part.at > begun).length > 2, { timeout: patience, every: 50 });
  t.diagnostic(`edge killed: ${player.gap(begun)} ms without a new part`);
  assert.equal(player.newest.epoch, epoch, "the program is the same");
  assert.deepEqual(player.faults, []);
});

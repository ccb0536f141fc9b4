// Prints the figures of the README: what the server's process costs per packet, subscriber and join, and what
// clients get. Starts its own `amphi dev` on free ports and measures that process alone. About seven minutes; half of
// that with --quick.
//
//   node cmd/amphi/bench.mjs [--quick] [NAME ...]           NAME picks rows, such as P1
//   node cmd/amphi/bench.mjs --peers [--quick] [NAME ...]   beside another server, installed on demand, under the same load
import { spawn, spawnSync } from "node:child_process";
import { cpus, loadavg } from "node:os";
import { createServer } from "node:net";
import { fileURLToPath } from "node:url";
import { compare, livekit } from "./peers.mjs";

const root = fileURLToPath(new URL("../..", import.meta.url));
const amphi = root + "bin/amphi";
const args = process.argv.slice(2);
const quick = args.includes("--quick");
const wanted = args.filter((a) => !a.startsWith("--"));
const duration = quick ? "4s" : "10s";

const us = (r) => `${r.server.us_per_packet.toFixed(2)} µs/packet`;
const delay = (r) => `${r.media.delay_ms.p50.toFixed(1)} / ${r.media.delay_ms.p99.toFixed(1)} ms`;
const joins = (r) => `${r.join.decodable_ms.p50.toFixed(0)} / ${r.join.decodable_ms.p95.toFixed(0)} ms`;
const lost = (r) => `${r.media.lost_percent.toFixed(2)} % lost`;
const memory = (r) => `${r.server.rss_kib_per_subscriber.toFixed(0)} KiB`;
const forwarded = (r) => `${us(r)}, ${lost(r)}`;
const load = (publishers, subscribers, traffic, ...extra) =>
  ["--publishers", String(publishers), "--subscribers", String(subscribers), ...(traffic ? ["--traffic", traffic] : []), ...extra];

// What the machine itself costs, in ns per packet: set by the first row.
const floor = {};
// The traffic of P1 per second and subscriber: 30 frames of 7 packets as runs, 50 packets of sound alone.
const floorP1 = () => (210 * floor["gso-200"] + 50 * floor["sendto-200"]) / 260;
const over = (r, ns) => (ns ? `${forwarded(r)}, ${((1000 * r.server.us_per_packet) / ns).toFixed(2)} × floor` : forwarded(r));

// Each entry is one load, against a node of its own, and the rows that are read from it; those with `go` are Go
// benchmarks. Long ones are left out of --quick.
const loads = [
  { go: ["./media/udp", "Floor", "100000x"], rows: [
    ["floor", "least cost of a sent packet on this machine: alone / connected / run of 7, to 200 readers", (r) => {
      for (const [name, m] of r) floor[name.replace(/^BenchmarkFloor\/|-\d+$/g, "")] = m["cpu-ns/pkt"];
      return ["sendto-200", "connected-200", "gso-200"].map((n) => (floor[n] / 1000).toFixed(2)).join(" / ") + " µs";
    }]] },
  { load: load(1, 10, "steady"), rows: [["P1", "1 → 10 video in bursts: server CPU", forwarded]] },
  { load: load(1, 50, "steady"), rows: [["P1", "1 → 50 video in bursts: server CPU", forwarded]] },
  { load: load(1, 100, "steady"), rows: [
    ["P1", "1 → 100 video in bursts: server CPU", forwarded],
    ["P4", "server CPU per join", (r) => `${r.server.join_cpu_ms.toFixed(2)} ms`]] },
  { load: load(1, 200, "steady"), rows: [
    ["P1", "1 → 200 video in bursts: server CPU", (r) => over(r, floorP1())],
    ["P2", "1 → 200: memory per active subscriber", memory],
    ["P5", "latency at 200 subscribers, p50 / p99", delay]] },
  { load: load(1, 50, "single"), rows: [["P1", "1 → 50, frames of a real encoder: server CPU", forwarded]] },
  { load: load(1, 50, "steady", "--pace", "1ms"), rows: [
    ["P1b", "1 → 50, packets 1 ms apart: server CPU", (r) => over(r, floor["sendto-50"])]] },
  ...[10, 100, 200].map((n) => ({ long: true, load: load(1, n, "steady", "--pace", "1ms"), rows: [
    ["P1b", `1 → ${n}, packets 1 ms apart: server CPU`, forwarded]] })),
  { load: load(1, 50, "steady", "--join-rate", "5"), rows: [
    ["P3", "join until first decodable video, 5 a second, p50 / p95", joins]] },
  { load: load(1, 100, "steady", "--join-rate", "50"), rows: [
    ["joins", "50 joins a second into a room with video: first decodable, p50 / p95; latency, p50 / p99", (r) => `${joins(r)}; ${delay(r)}`]] },
  { load: load(1, 50, "steady"), beside: load(1, 200, "steady", "--join-rate", "200"), rows: [
    ["joins", "1 → 50 video in bursts while 200 join another room at once, 200 a second: latency, p50 / p99, loss; their first decodable, p50 / p95",
      (r) => `${delay(r)}, ${lost(r)}; ${joins(r.beside)}`]] },
  { load: load(1, 200, "steady", "--join-rate", "5000"), rows: [
    ["Q5", "200 join a room with video at once: first decodable, p50 / p95; keyframes the publisher was asked for",
      (r) => `${joins(r)}; ${r.media.keyframe_requests}`]] },
  { load: load(0, 100), rows: [
    ["P6", "CPU per idle subscriber", (r) => `${r.server.idle_us_per_subscriber_s.toFixed(0)} µs/s`],
    ["P2", "memory per idle subscriber", memory]] },
  { load: load(10, 50, "audio"), microphones: 0, rows: [
    ["P8", "10 microphones → 50 listeners, all forwarded: server CPU", (r) => over(r, floor["sendto-50"])]] },
  { load: load(10, 50, "audio"), long: true, rows: [["P8", "the same, the five loudest forwarded", us]] },
  { go: ["./media", "Forward", "200x"], rows: [
    ["P9", "cost of a packet at 1,000 subscribers / at 100", (r) => (at(r, "Forward/1000") / at(r, "Forward/100")).toFixed(2)],
    ["P9", "cost of a packet to 100 subscribers beside 1,000 idle rooms / beside none", (r) => (at(r, "Forward/100-idle-rooms") / at(r, "Forward/100")).toFixed(2)]] },
  { go: ["./media", "Room", "10000x"], rows: [
    ["memory", "an empty room's, in media", (r) => `${(r[0][1]["B/room"] / 1024).toFixed(2)} KiB`]] },
  { load: load(0, 200, "", "--chat", "50"), rows: [["chat", "50 messages/s to 200 peers, p50 / p99",
    (r) => `${r.chat.latency_ms.p50.toFixed(1)} / ${r.chat.latency_ms.p99.toFixed(1)} ms, ${r.chat.refused} refused`]] },
  { load: load(2, 0, "simulcast", "--hls", "50"), long: true, rows: [["HLS", "2 publishers composed, 50 LL-HLS players: program to play head p50 / p95, stalls",
    (r) => `${r.hls.latency_ms.p50.toFixed(0)} / ${r.hls.latency_ms.p95.toFixed(0)} ms, ${r.hls.stalls} stalls`]] },
];

function at(results, name) {
  return results.find(([n]) => n.replace(/^Benchmark|-\d+$/g, "") === name)[1]["cpu-ns/packet"];
}

// goBench is the results of Go benchmarks: [name, {unit: value}].
function goBench([folder, pattern, times]) {
  const ran = spawnSync("go", ["test", "-run", "^$", "-bench", pattern, "-benchtime", times, folder], { cwd: root, encoding: "utf8" });
  if (ran.status !== 0) throw new Error(ran.stdout + ran.stderr);
  return ran.stdout.split("\n").filter((l) => l.startsWith("Benchmark")).map((l) => {
    const [name, , ...rest] = l.trim().split(/\s+/);
    const units = {};
    for (let i = 0; i + 1 < rest.length; i += 2) units[rest[i + 1]] = Number(rest[i]);
    return [name, units];
  });
}

// run is what a load reports, and in `beside` what another one does that begins while it is measured. The server is a
// peer, or Amphi.
async function run({ load, microphones, beside }, peer) {
  const node = await start(peer);
  try {
    if (microphones !== undefined && !peer) limitMicrophones(node, microphones);
    const options = (room) => ["load", ...(peer?.options ?? []), "--url", node.url, "--room", room, "--duration", duration, "--pid", String(node.child.pid), "--json"];
    if (!beside) return JSON.parse(command(...options("bench"), ...load));
    const first = spoken(...options("bench"), ...load);
    await new Promise((done) => setTimeout(done, besideAfter));
    const second = spoken(...options("beside"), ...beside);
    return { ...JSON.parse(await first), beside: JSON.parse(await second) };
  } finally {
    await stop(node);
  }
}

// When 50 have joined, 20 a second, and 2 s have passed, they are measured.
const besideAfter = 5000;

// spoken is what a command prints.
function spoken(...words) {
  const child = spawn(amphi, words, { stdio: ["ignore", "pipe", "inherit"] });
  let text = "";
  child.stdout.on("data", (b) => (text += b));
  return new Promise((done, failed) => child.once("close", (code) => (code === 0 ? done(text) : failed(new Error(`${words[0]} failed`)))));
}

function command(...words) {
  const ran = spawnSync(amphi, words, { encoding: "utf8" });
  if (ran.status !== 0) throw new Error(ran.stderr.trim());
  return ran.stdout;
}

// limitMicrophones changes the template of the room to come; 0 forwards all.
function limitMicrophones({ url }, n) {
  const { template } = JSON.parse(command("room", "create", "bench", "--json", "--url", url));
  const changed = JSON.parse(command("template", "get", template, "--url", url));
  changed.limits = { ...changed.limits, loudestMicrophones: n };
  const ran = spawnSync(amphi, ["template", "set", "-", "--url", url], { input: JSON.stringify(changed), encoding: "utf8" });
  if (ran.status !== 0) throw new Error(ran.stderr.trim());
}

async function freePort() {
  const server = createServer();
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  const { port } = server.address();
  await new Promise((done) => server.close(done));
  return port;
}

// The ports beside the free one may be taken: then others are tried.
async function start(peer) {
  for (let tries = 1; ; tries++) {
    try {
      return await startOnce(peer);
    } catch (thrown) {
      if (tries === 5) throw thrown;
    }
  }
}

async function startOnce(peer) {
  const port = await freePort();
  const child = peer ? peer.spawn(port) : spawn(amphi, ["dev", "--http", `127.0.0.1:${port}`, "--metrics", ""], { stdio: ["ignore", "ignore", "inherit"] });
  const url = `http://127.0.0.1:${port}`;
  for (let i = 0; i < 100 && child.exitCode === null; i++) {
    if (await fetch(url + (peer?.ready ?? "/readyz")).then((r) => r.ok, () => false)) return { child, url };
    await new Promise((done) => setTimeout(done, 100));
  }
  child.kill("SIGKILL");
  throw new Error(`${peer?.name ?? "the node"} did not become ready`);
}

async function stop({ child }) {
  child.kill("SIGINT");
  await new Promise((done) => (child.exitCode === null ? child.once("exit", done) : done()));
}

console.log(`${cpus().length} × ${cpus()[0].model}, load ${loadavg()[0].toFixed(1)} at the start\n`);
if (args.includes("--peers")) {
  try {
    livekit.install(root);
  } catch (thrown) {
    console.error(thrown.message);
    process.exit(1);
  }
  process.exit((await compare(run, livekit, wanted)) ? 0 : 1);
}
console.log("| | what | figure |\n|---|---|---|");
let failed = false;
for (const entry of loads) {
  // The floor is measured for whoever is compared with it.
  const rows = entry.rows.filter(([name]) => !wanted.length || wanted.includes(name) || (name === "floor" && wanted.some((w) => ["P1", "P1b", "P8"].includes(w))));
  if (!rows.length || (quick && entry.long)) continue;
  let result;
  try {
    result = entry.go ? goBench(entry.go) : await run(entry);
  } catch (thrown) {
    failed = true;
    for (const [name, what] of rows) console.log(`| ${name} | ${what} | failed: ${thrown.message} |`);
    continue;
  }
  for (const [name, what, read] of rows) console.log(`| ${name} | ${what} | ${read(result)} |`);
}
process.exit(failed ? 1 : 0);

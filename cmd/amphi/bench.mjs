// Prints the figures of the README: what the server's process costs per packet, subscriber and join, and what
// clients get. Starts its own `amphi dev` on free ports and measures that process alone. About six minutes.
//
//   node cmd/amphi/bench.mjs [--quick] [NAME ...]     NAME picks rows, such as P1
import { spawn, spawnSync } from "node:child_process";
import { cpus, loadavg } from "node:os";
import { createServer } from "node:net";
import { fileURLToPath } from "node:url";

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
const one = (n, extra = []) => ["--publishers", "1", "--subscribers", String(n), "--traffic", "steady", ...extra];

// name, what is measured, load, how the result reads
const rows = [
  ["P1", "1 → 10 video in bursts: server CPU", one(10), (r) => `${us(r)}, ${lost(r)}`],
  ["P1", "1 → 50 video in bursts: server CPU", one(50), (r) => `${us(r)}, ${lost(r)}`],
  ["P1", "1 → 100 video in bursts: server CPU", one(100), (r) => `${us(r)}, ${lost(r)}`],
  ["P1", "1 → 200 video in bursts: server CPU", one(200), (r) => `${us(r)}, ${lost(r)}`],
  ["P1b", "1 → 50, packets 1 ms apart: server CPU", one(50, ["--pace", "1ms"]), (r) => `${us(r)}, ${lost(r)}`],
  ["P2", "1 → 200: memory per active subscriber", one(200), (r) => `${r.server.rss_kib_per_subscriber.toFixed(0)} KiB`],
  ["P3", "join until first decodable video, 5 a second, p50 / p95", one(50, ["--join-rate", "5"]), joins],
  ["P4", "server CPU per join", one(100), (r) => `${r.server.join_cpu_ms.toFixed(2)} ms`],
  ["P5", "latency at 200 subscribers, p50 / p99", one(200), delay],
  ["P6", "CPU per idle subscriber", ["--publishers", "0", "--subscribers", "100"], (r) => `${r.server.idle_us_per_subscriber_s.toFixed(0)} µs/s`],
  ["P8", "10 microphones → 50 listeners: server CPU", ["--publishers", "10", "--subscribers", "50", "--traffic", "audio"], us],
  ["chat", "50 messages/s to 200 peers, p50 / p99", ["--publishers", "0", "--subscribers", "200", "--chat", "50"],
    (r) => `${r.chat.latency_ms.p50.toFixed(1)} / ${r.chat.latency_ms.p99.toFixed(1)} ms, ${r.chat.refused} refused`],
  ["HLS", "2 publishers composed, 50 LL-HLS players: program to play head p50 / p95, stalls", ["--publishers", "2", "--hls", "50", "--traffic", "simulcast"],
    (r) => `${r.hls.latency_ms.p50.toFixed(0)} / ${r.hls.latency_ms.p95.toFixed(0)} ms, ${r.hls.stalls} stalls`],
];

async function freePort() {
  const server = createServer();
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  const { port } = server.address();
  await new Promise((done) => server.close(done));
  return port;
}

// The ports beside the free one may be taken: then others are tried.
async function start() {
  for (let tries = 1; ; tries++) {
    try {
      return await startOnce();
    } catch (thrown) {
      if (tries === 5) throw thrown;
    }
  }
}

async function startOnce() {
  const port = await freePort();
  const child = spawn(amphi, ["dev", "--http", `127.0.0.1:${port}`, "--metrics", ""], { stdio: ["ignore", "ignore", "inherit"] });
  const url = `http://127.0.0.1:${port}`;
  for (let i = 0; i < 100 && child.exitCode === null; i++) {
    if (await fetch(url + "/readyz").then((r) => r.ok, () => false)) return { child, url };
    await new Promise((done) => setTimeout(done, 100));
  }
  child.kill("SIGKILL");
  throw new Error("the node did not become ready");
}

async function stop({ child }) {
  child.kill("SIGINT");
  await new Promise((done) => (child.exitCode === null ? child.once("exit", done) : done()));
}

console.log(`${cpus().length} × ${cpus()[0].model}, load ${loadavg()[0].toFixed(1)} at the start\n`);
console.log("| | what | figure |\n|---|---|---|");
let failed = false;
for (const [name, what, load, read] of rows) {
  if (wanted.length && !wanted.includes(name)) continue;
  // Each row has a process of its own, so that none pays for the one before.
  const node = await start();
  const ran = spawnSync(amphi, ["load", "--url", node.url, "--room", "bench", "--duration", duration, "--pid", String(node.child.pid), "--json", ...load], { encoding: "utf8" });
  await stop(node);
  if (ran.status !== 0) {
    failed = true;
    console.log(`| ${name} | ${what} | failed: ${ran.stderr.trim()} |`);
    continue;
  }
  console.log(`| ${name} | ${what} | ${read(JSON.parse(ran.stdout))} |`);
}
process.exit(failed ? 1 : 0);

// What bench.mjs --peers measures: the same load on Amphi and on other servers, in turn in one run on one machine.
import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";

// Of LiveKit, the newest release that the Go command builds as it is: later ones replace modules by forks.
const version = "v1.13.5";
const secret = "of-a-comparison-on-loopback-and-nothing-else";

const installTimeout = 30 * 60 * 1000;

export const livekit = {
  name: `LiveKit ${version}`,
  options: ["--peer", "livekit", "--key", "bench", "--secret", secret],

  // install has the server built into the cache, unless it is there.
  install(root) {
    const folder = `${root}.cache/peers/livekit-${version}`;
    this.program = folder + "/server";
    if (existsSync(this.program)) return;
    console.error(`installing ${this.name}: some minutes`);
    mkdirSync(folder, { recursive: true });
    const ran = spawnSync("go", ["install", "-trimpath", `github.com/livekit/livekit-server/cmd/server@${version}`], {
      cwd: tmpdir(), env: { ...process.env, GOFLAGS: "", GOBIN: folder, CGO_ENABLED: "0" }, encoding: "utf8", timeout: installTimeout,
    });
    if (ran.status === 0) return;
    rmSync(folder, { recursive: true });
    throw new Error(`${this.name} can't be installed (that needs the Go module proxy): ${(ran.stderr || String(ran.error)).trim().split("\n").pop()}`);
  },

  // As its documentation advises: a range of ports; and bandwidth is measured by what the load reports, as Amphi does.
  spawn(port) {
    const config = {
      port, bind_addresses: ["127.0.0.1"], keys: { bench: secret }, logging: { level: "error" },
      rtc: {
        port_range_start: 50_000, port_range_end: 60_000, tcp_port: 0, node_ip: "127.0.0.1", enable_loopback_candidate: true,
        interfaces: { includes: ["lo"] }, congestion_control: { use_send_side_bwe: true },
      },
    };
    return spawn(this.program, ["--config-body", JSON.stringify(config)], { stdio: ["ignore", "ignore", "inherit"] });
  },
  ready: "/",
};

const us = (name) => [name, "µs", (r) => r.server.us_per_packet, 2];
const lost = ["packets lost", "%", (r) => r.media.lost_percent, 2];
const load = (publishers, subscribers, traffic, ...extra) =>
  ["--publishers", String(publishers), "--subscribers", String(subscribers), "--traffic", traffic, ...extra];

// Each entry is one load and the figures read from it: name, what, unit, how, digits.
const comparisons = [
  { load: load(1, 200, "steady"), figures: [
    ["P1", ...us("1 → 200 video in bursts: server CPU per packet")],
    ["P1", ...lost],
    ["P2", "memory per active subscriber", "KiB", (r) => r.server.rss_kib_per_subscriber, 0],
    ["P4", "server CPU per join", "ms", (r) => r.server.join_cpu_ms, 2],
    ["P5", "latency at 200 subscribers, p50", "ms", (r) => r.media.delay_ms.p50, 1],
    ["P5", "the same, p99", "ms", (r) => r.media.delay_ms.p99, 1]] },
  { load: load(1, 50, "steady"), figures: [["P1", ...us("1 → 50 video in bursts: server CPU per packet")]] },
  { load: load(1, 50, "steady", "--pace", "1ms"), figures: [["P1b", ...us("1 → 50, packets 1 ms apart: server CPU per packet")]] },
  { load: load(1, 50, "steady", "--join-rate", "5"), figures: [
    ["P3", "join until first decodable video, 5 a second, p50", "ms", (r) => r.join.decodable_ms.p50, 0],
    ["P3", "the same, p95", "ms", (r) => r.join.decodable_ms.p95, 0]] },
  { load: load(0, 100, "steady"), figures: [
    ["P6", "CPU per idle subscriber and second", "µs", (r) => r.server.idle_us_per_subscriber_s, 0],
    ["P2", "memory per idle subscriber", "KiB", (r) => r.server.rss_kib_per_subscriber, 0]] },
  { load: load(10, 50, "audio"), microphones: 0, figures: [
    ["P8", ...us("10 microphones → 50 listeners, all forwarded: server CPU per packet")],
    ["P8", ...lost]] },
];

// compare prints the wanted figures of each server and what Amphi's are of the peer's; run puts an entry's load on a
// server, Amphi or a peer, and is its report.
export async function compare(run, peer, wanted) {
  console.log(`| | what | Amphi | ${peer.name} | Amphi ÷ peer |\n|---|---|---|---|---|`);
  let failed = false;
  for (const entry of comparisons) {
    const figures = entry.figures.filter(([name]) => !wanted.length || wanted.includes(name));
    if (!figures.length) continue;
    const reports = [];
    try {
      for (const server of [undefined, peer]) reports.push(complete(await run(entry, server)));
    } catch (thrown) {
      failed = true;
      for (const [name, what] of figures) console.log(`| ${name} | ${what} | failed: ${thrown.message} |`);
      continue;
    }
    for (const [name, what, unit, read, digits] of figures) {
      const [ours, theirs] = reports.map(read);
      const ratio = theirs > 0 ? (ours / theirs).toFixed(2) : "–";
      console.log(`| ${name} | ${what} | ${ours.toFixed(digits)} ${unit} | ${theirs.toFixed(digits)} ${unit} | ${ratio} |`);
    }
  }
  return !failed;
}

// A server that serves fewer than it was asked to is cheap.
function complete(report) {
  if (report.failed) throw new Error(`${report.failed} could not join: ${report.failures[0]}`);
  return report;
}

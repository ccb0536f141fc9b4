// A cluster as operators start it: several `amphi serve` processes of one machine, with a CA, certificates and files of their own.
import { execFile, spawn } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { freePort } from "./platform.mjs";
import { until } from "./wait.mjs";

const run = promisify(execFile);
const root = join(dirname(fileURLToPath(import.meta.url)), "../../../..");
export const binary = process.env.AMPHI_BIN ?? join(root, "bin/amphi");
const key = "backend";
const secret = "a secret of the end-to-end tests";
/** Flags of operator commands. */
export const credentials = ["--key", key, "--secret", secret];

/** Three ports in a row that do not meet those given out before, which nobody listens on yet. */
async function another(taken) {
  let port = await freePort();
  while (taken.some((other) => Math.abs(other - port) < 3)) port = await freePort();
  taken.push(port);
  return port;
}

async function operate(url, ...args) {
  const { stdout } = await run(binary, [...args, "--url", url, ...credentials, "--json"]);
  return JSON.parse(stdout);
}

/** One node's process. */
class Member {
  constructor(id, port, file) {
    this.id = id;
    this.url = `http://127.0.0.1:${port}`;
    this.output = "";
    this.child = spawn(binary, ["serve", "--config", file], { stdio: ["ignore", "pipe", "pipe"] });
    for (const stream of [this.child.stdout, this.child.stderr]) stream.setEncoding("utf8").on("data", (text) => (this.output += text));
    this.ended = new Promise((resolve) => this.child.once("exit", (code, signal) => resolve({ code, signal })));
  }

  async ready() {
    await until(`${this.id} is ready`, async () => (await fetch(this.url + "/readyz")).ok, { timeout: 30_000, every: 50 });
  }

  kill() {
    this.child.kill("SIGKILL");
    return this.ended;
  }
}

export class Cluster {
  /**
   * Starts one node for each id, in the regions given by `regions[id]`: voters for all, but for those that are only for the audience,
   * or have other roles by `roles[id]`.
   */
  static async start(ids, regions, audience = [], roles = {}) {
    const cluster = new Cluster();
    cluster.dir = await mkdtemp(join(tmpdir(), "amphi-e2e-cluster-"));
    cluster.nodes = new Map();
    const at = (...parts) => join(cluster.dir, ...parts);
    await run(binary, ["ca", "init", "--out", at("ca")]);
    await writeFile(at("gossip.key"), (await run(binary, ["keys", "new", "--gossip"])).stdout);
    const ports = new Map();
    const taken = [];
    for (const id of ids) ports.set(id, { http: await another(taken), between: await another(taken) });
    for (const id of ids) {
      await run(binary, ["ca", "issue", "--ca", at("ca"), "--node", id, "--out", cluster.dir]);
      const { http, between } = ports.get(id);
      const seeds = ids.filter((other) => other !== id).map((other) => `"127.0.0.1:${ports.get(other).between}"`);
      await writeFile(at(`${id}.yaml`), `
node: ${id}
region: ${regions[id]}
roles: [${roles[id] ?? (audience.includes(id) ? "audience" : "stage, audience, origin, voter")}]
data: ${id}
http: "0.0.0.0:${http}"
url: "http://127.0.0.1:${http}"
advertise: 127.0.0.1
metrics: ""
turn: {port: 0, tls_port: 0}
drain: 20s
keys: [{id: ${key}, secret: "${secret}"}]
cluster:
  name: e2e
  ca: ca/ca.pem
  cert: ${id}.pem
  key: ${id}.key
  gossip_key_file: gossip.key
  gossip: "127.0.0.1:${between}"
  listen: "127.0.0.1:${between + 1}"
  trunk: "127.0.0.1:${between + 2}"
  seeds: [${seeds.join(", ")}]
  bootstrap_expect: ${audience.includes(id) ? 0 : ids.length - audience.length}
`);
      cluster.nodes.set(id, new Member(id, http, at(`${id}.yaml`)));
    }
    try {
      for (const node of cluster.nodes.values()) await node.ready();
    } catch (thrown) {
      const output = [...cluster.nodes.values()].map((node) => `--- ${node.id}\n${node.output}`).join("\n");
      await cluster.stop();
      throw new Error(`${thrown.message}\n${output}`);
    }
    return cluster;
  }

  /** Runs an operator command against a node; answers its JSON. */
  cli(id, ...args) {
    return operate(this.nodes.get(id).url, ...args);
  }

  async managementToken() {
    return (await run(binary, ["token", "--management", "--key", key, "--secret", secret])).stdout.trim();
  }

  /** Makes a room; answers a function from node and role to the link. */
  async room(id, name) {
    await until("the templates are there", () => this.cli(id, "room", "create", name, "--template", "live-event").catch(() => undefined), { timeout: 30_000, every: 200 });
    const { codes } = await this.cli(id, "room", "codes", name, "--create");
    return (node, role) => `${this.nodes.get(node).url}/m/${codes.find((c) => c.role === role).code}`;
  }

  /** Which node a page of the app is connected to. */
  nodeOf(guest) {
    return guest.room((room) => room.state.server?.node);
  }

  async stop() {
    for (const node of this.nodes.values()) node.child.kill("SIGKILL");
    await Promise.all([...this.nodes.values()].map((node) => node.ended));
    await rm(this.dir, { recursive: true, force: true });
  }
}

/** One node that is alone, with more in its file than every node has: recordings, say. `data` is its directory of records. */
export class Alone {
  static async start(dir, data, more) {
    const alone = new Alone();
    const port = await another([]);
    await writeFile(join(dir, "alone.yaml"), `
node: alone
data: ${data}
http: "127.0.0.1:${port}"
metrics: ""
turn: {port: 0, tls_port: 0}
keys: [{id: ${key}, secret: "${secret}"}]
${more}
`);
    alone.member = new Member("alone", port, join(dir, "alone.yaml"));
    alone.url = alone.member.url;
    try {
      await alone.member.ready();
    } catch (thrown) {
      await alone.stop();
      throw new Error(`${thrown.message}\n${alone.member.output}`);
    }
    return alone;
  }

  /** Runs an operator command; answers its JSON. */
  cli(...args) {
    return operate(this.url, ...args);
  }

  stop() {
    return this.member.kill();
  }
}

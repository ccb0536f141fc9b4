// A platform as people start it: the built binary in dev mode on free ports, and its command line.
import { execFile, spawn } from "node:child_process";
import { createServer } from "node:net";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { until } from "./wait.mjs";

const run = promisify(execFile);
const root = join(dirname(fileURLToPath(import.meta.url)), "../../../..");
const binary = process.env.AMPHI_BIN ?? join(root, "bin/amphi");

/** Three ports in a row: HTTP, ICE-TCP and media. */
export async function freePort() {
  const listen = (port) =>
    new Promise((resolve, reject) => {
      const server = createServer().once("error", reject);
      server.listen(port, "127.0.0.1", () => resolve(server));
    });
  for (let tries = 0; tries < 50; tries++) {
    const opened = [];
    try {
      const first = await listen(0);
      opened.push(first);
      const { port } = first.address();
      if (port > 65_000) continue;
      opened.push(await listen(port + 1), await listen(port + 2));
      return port;
    } catch {
      // taken: try others
    } finally {
      await Promise.all(opened.map((server) => new Promise((done) => server.close(done))));
    }
  }
  throw new Error("no three free ports in a row");
}

/** Pids of a process's children with this name. */
export async function childrenOf(pid, name) {
  const { stdout } = await run("ps", ["-o", "pid=,comm=", "--ppid", String(pid)]).catch(() => ({ stdout: "" }));
  return stdout
    .trim()
    .split("\n")
    .map((line) => line.trim().split(/\s+/))
    .filter(([, comm]) => comm?.startsWith(name.slice(0, 15)))
    .map(([pid]) => Number(pid));
}

export class Platform {
  /**
   * Starts the platform and waits until clients may come. `host` is the address it listens on, by default all of IPv4:
   * Firefox does not go from another interface to loopback. "" is all of both families, as in `make run`. `secure` has
   * HTTPS with a certificate that nobody knows.
   */
  static async start({ host = "0.0.0.0", secure = false, args = [] } = {}) {
    const platform = new Platform();
    const port = await freePort();
    platform.port = port;
    platform.url = `http${secure ? "s" : ""}://${["", "0.0.0.0"].includes(host) ? "127.0.0.1" : host}:${port}`;
    platform.output = "";
    const began = Date.now();
    platform.child = spawn(binary, ["dev", "--http", `${host}:${port}`, "--metrics", "", ...(secure ? ["--tls-self-signed"] : []), ...args], {
      stdio: ["ignore", "pipe", "pipe"],
    });
    for (const stream of [platform.child.stdout, platform.child.stderr]) {
      stream.setEncoding("utf8").on("data", (text) => (platform.output += text));
    }
    platform.ended = new Promise((resolve) => platform.child.once("exit", (code, signal) => resolve({ code, signal })));
    platform.child.once("error", (error) => (platform.output += error.message));
    try {
      await until("the platform is ready", async () => (await fetch(platform.url + "/readyz")).ok, { timeout: 15_000, every: 20 });
      platform.readyMs = Date.now() - began;
      await until("it has printed its links", () => Object.keys(platform.links()).length >= 4 && platform.links());
    } catch (thrown) {
      platform.child.kill("SIGKILL");
      throw new Error(`${thrown.message}\n${platform.output}`);
    }
    return platform;
  }

  get pid() {
    return this.child.pid;
  }

  /** The printed links by role, and that of ops; by address, as the host name in them may be any of this machine's. */
  links() {
    const found = {};
    for (const [, name, path] of this.output.matchAll(/^\s+(\S+)\s+https?:\/\/[^/\s]+(\/(?:m\/|ops)\S*)$/gm)) {
      found[name] = this.url + path;
    }
    return found;
  }

  /** Runs an operator command; answers its JSON. */
  async cli(...args) {
    const { stdout } = await run(binary, [...args, "--url", this.url, "--json"]);
    return JSON.parse(stdout);
  }

  /** Runs a command that prints something else than JSON. */
  async text(...args) {
    return (await run(binary, [...args, "--url", this.url])).stdout;
  }

  /** Makes a room and answers its links by role. */
  async room(name, template = "live-event") {
    await this.cli("room", "create", name, "--template", template);
    const { codes } = await this.cli("room", "codes", name, "--create");
    return Object.fromEntries(codes.map((c) => [c.role, `${this.url}/m/${c.code}`]));
  }

  /** Pids of child processes with this name. */
  children(name) {
    return childrenOf(this.pid, name);
  }

  /** Ends it as Ctrl-C does; answers how long that took and how it ended. */
  async stop() {
    const began = Date.now();
    this.child.kill("SIGINT");
    const hard = setTimeout(() => this.child.kill("SIGKILL"), 15_000);
    const { code, signal } = await this.ended;
    clearTimeout(hard);
    return { ms: Date.now() - began, code, signal };
  }
}

// Servers of others that a node works with: an object store and an RTMP server, real ones, which can be killed and started again.
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir, readdir, writeFile } from "node:fs/promises";
import { createConnection } from "node:net";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { until } from "./wait.mjs";

const root = join(dirname(fileURLToPath(import.meta.url)), "../../../..");
const gateway = join(root, ".cache/bin/versitygw");
const nginx = "/usr/sbin/nginx";
const rtmpModule = "/usr/lib/nginx/modules/ngx_rtmp_module.so";

/** Why there are no such servers here; undefined: there are. */
export const missing = [gateway, nginx, rtmpModule].filter((path) => !existsSync(path)).map((path) => `${path} is missing (make test-e2e)`)[0];

/** A process that listens on one port of loopback. */
class Server {
  constructor(port, program, args, env = {}) {
    Object.assign(this, { port, program, args, env });
  }

  async start() {
    this.output = "";
    this.child = spawn(this.program, this.args, { stdio: ["ignore", "pipe", "pipe"], env: { ...process.env, ...this.env } });
    for (const stream of [this.child.stdout, this.child.stderr]) stream.setEncoding("utf8").on("data", (text) => (this.output += text));
    this.ended = new Promise((resolve) => this.child.once("exit", resolve));
    await until(`${this.program} listens: ${this.output}`, () => listens(this.port), { timeout: 15_000, every: 20 });
    return this;
  }

  kill() {
    this.child?.kill("SIGKILL");
    return this.ended;
  }
}

function listens(port) {
  return new Promise((resolve) => {
    const socket = createConnection(port, "127.0.0.1");
    const answer = (ok) => {
      socket.destroy();
      resolve(ok);
    };
    socket.once("connect", () => answer(true)).once("error", () => answer(false));
  });
}

const access = "amphi";
const secret = "secret-of-the-test";
const bucket = "recordings";

/** An S3 server (versitygw) that keeps its bucket in a directory. */
export async function objectStore(dir, port) {
  for (const part of ["objects/" + bucket, "beside"]) await mkdir(join(dir, part), { recursive: true });
  const server = new Server(port, gateway, ["--port", `127.0.0.1:${port}`, "posix", "--sidecar", join(dir, "beside"), join(dir, "objects")],
    { ROOT_ACCESS_KEY: access, ROOT_SECRET_KEY: secret });
  server.url = `http://127.0.0.1:${port}`;
  /** The value of `s3` in a node's file. */
  server.config = `{endpoint: "${server.url}", bucket: ${bucket}, access_key: ${access}, secret_key: ${secret}, path_style: true}`;
  server.bucket = bucket;
  return server.start();
}

/** An RTMP server (nginx) that writes a file for each connection that publishes. */
export async function rtmpServer(dir, port) {
  await mkdir(dir, { recursive: true });
  const config = join(dir, "nginx.conf");
  await writeFile(config, `
load_module ${rtmpModule};
daemon off; master_process off; pid ${dir}/pid; error_log ${dir}/error.log info;
events { worker_connections 64; }
rtmp { server { listen 127.0.0.1:${port}; chunk_size 4096; ping 1s; ping_timeout 2s;
  application live { live on; record all; record_path ${dir}; record_suffix -%s.flv; record_unique on; } } }
`);
  const server = new Server(port, nginx, ["-c", config, "-p", dir]);
  server.url = `rtmp://127.0.0.1:${port}/live/key`;
  /** The files so far, the oldest first. */
  server.files = async () => (await readdir(dir)).filter((name) => name.endsWith(".flv")).sort().map((name) => join(dir, name));
  return server.start();
}

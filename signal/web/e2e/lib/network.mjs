// A network of its own for a browser, whose cable can be pulled: a namespace joined to ours by a veth pair.
import { execFile } from "node:child_process";
import { chmod, mkdtemp, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";

const run = promisify(execFile);
const ip = (...args) => run("ip", args);

export class Cable {
  /** Undefined where this process may not make namespaces. */
  static async lay() {
    const cable = new Cable();
    const id = process.pid % 250;
    cable.space = `amphi-e2e-${process.pid}`;
    cable.outside = `ae${process.pid}o`.slice(0, 15);
    cable.inside = `ae${process.pid}i`.slice(0, 15);
    cable.address = `10.213.${id}.1`;
    try {
      await ip("netns", "add", cable.space);
    } catch {
      return undefined;
    }
    try {
      await ip("link", "add", cable.outside, "type", "veth", "peer", "name", cable.inside, "netns", cable.space);
      await ip("addr", "add", `${cable.address}/24`, "dev", cable.outside);
      await ip("link", "set", cable.outside, "up");
      await ip("-n", cable.space, "addr", "add", `10.213.${id}.2/24`, "dev", cable.inside);
      await ip("-n", cable.space, "link", "set", cable.inside, "up");
      await ip("-n", cable.space, "link", "set", "lo", "up");
    } catch (thrown) {
      await cable.remove();
      throw thrown;
    }
    return cable;
  }

  /** A program that starts another one inside. */
  async wrapper(program) {
    const folder = await mkdtemp(join(tmpdir(), "amphi-e2e-"));
    const file = join(folder, "browser");
    await writeFile(file, `#!/bin/sh\nexec ip netns exec ${this.space} ${program} "$@"\n`);
    await chmod(file, 0o755);
    return file;
  }

  pull() {
    return ip("link", "set", this.outside, "down");
  }

  plug() {
    return ip("link", "set", this.outside, "up");
  }

  async remove() {
    await ip("netns", "del", this.space).catch(() => undefined);
    await ip("link", "del", this.outside).catch(() => undefined);
  }
}

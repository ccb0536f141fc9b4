// A network of its own for a browser, whose cable can be pulled, filtered and replaced by another: a namespace joined to
// ours by veth pairs.
import { execFile } from "node:child_process";
import { chmod, mkdtemp, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";

const run = promisify(execFile);
const ip = (...args) => run("ip", args);

export class Cable {
  static laid = 0;

  /** Undefined where this process may not make namespaces. `ipv6` is a network with nothing else. */
  static async lay({ ipv6 = false } = {}) {
    const cable = new Cable();
    const id = process.pid % 250;
    const nth = Cable.laid++;
    cable.space = `amphi-e2e-${process.pid}-${nth}`;
    cable.outside = `ae${process.pid}o${nth}`.slice(0, 15);
    cable.inside = `ae${process.pid}i${nth}`.slice(0, 15);
    const network = ipv6 ? `fd00:213:${id}:${nth}::` : `10.${213 + nth}.${id}.`;
    const bits = ipv6 ? 64 : 24;
    const extra = ipv6 ? ["nodad"] : [];
    cable.id = id;
    cable.address = network + 1;
    /** As it is in a URL. */
    cable.host = ipv6 ? `[${cable.address}]` : cable.address;
    try {
      await ip("netns", "add", cable.space);
    } catch {
      return undefined;
    }
    try {
      await ip("link", "add", cable.outside, "type", "veth", "peer", "name", cable.inside, "netns", cable.space);
      await ip("addr", "add", `${cable.address}/${bits}`, "dev", cable.outside, ...extra);
      await ip("link", "set", cable.outside, "up");
      await ip("-n", cable.space, "addr", "add", `${network}2/${bits}`, "dev", cable.inside, ...extra);
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

  /** Drops what leaves the inside and matches a rule of nftables, such as "meta l4proto udp"; replaces earlier rules. */
  async block(...rules) {
    const nft = (...args) => ip("netns", "exec", this.space, "nft", ...args);
    await nft("add", "table", "inet", "e2e");
    await nft("add", "chain", "inet", "e2e", "out", "{ type filter hook output priority 0; }");
    await nft("flush", "table", "inet", "e2e");
    for (const rule of rules) await nft("add", "rule", "inet", "e2e", "out", ...rule.split(" "), "drop");
  }

  /** Loses what goes and comes by one UDP port of the inside, without a word. */
  async swallow(port) {
    await this.block(`udp sport ${port}`);
    const nft = (...args) => ip("netns", "exec", this.space, "nft", ...args);
    await nft("add", "chain", "inet", "e2e", "in", "{ type filter hook input priority 0; }");
    await nft("add", "rule", "inet", "e2e", "in", "udp", "dport", String(port), "drop");
  }

  /** From one network to another: this one is gone at once, with its address; the same node is reached by the new one. */
  async move() {
    const [outside, inside, network] = [`${this.outside}m`, `${this.inside}m`, `10.223.${this.id}.`];
    await ip("link", "add", outside, "type", "veth", "peer", "name", inside, "netns", this.space);
    await ip("addr", "add", `${network}1/24`, "dev", outside);
    await ip("link", "set", outside, "up");
    // No IPv6 besides: its first address comes a second later, and a browser waits until the addresses have settled.
    await ip("-n", this.space, "link", "set", inside, "addrgenmode", "none");
    await ip("-n", this.space, "addr", "add", `${network}2/24`, "dev", inside);
    const moved = Date.now();
    await ip("-n", this.space, "link", "del", this.inside);
    await ip("-n", this.space, "link", "set", inside, "up");
    // The node's old address stays its own: on the new way's end it is announced again.
    await ip("addr", "add", `${this.address}/32`, "dev", outside);
    await ip("-n", this.space, "route", "add", "default", "via", `${network}1`);
    this.outside = outside;
    return moved;
  }

  async remove() {
    await ip("netns", "del", this.space).catch(() => undefined);
    await ip("link", "del", this.outside).catch(() => undefined);
  }
}

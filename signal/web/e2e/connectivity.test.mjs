// Clients connect from anywhere: no UDP, TURN only, IPv6 only, and from one network to another in the middle of a call.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { chromiumPath, Guest, observe, openBrowser } from "./lib/browser.mjs";
import { Firefox, firefoxPath } from "./lib/firefox.mjs";
import { Cable } from "./lib/network.mjs";
import { Platform } from "./lib/platform.mjs";
import { pause, until } from "./lib/wait.mjs";
import { stillness, watchStillness } from "./lib/watch.mjs";

// The platform with TLS has a certificate that nobody knows.
process.env.NODE_TLS_REJECT_UNAUTHORIZED = "0";

const most = 3_000; // the target; the times are printed, what is asserted leaves a busy machine room
const slow = 10_000;
const slowChange = 6_000; // the target is 2 s; 5.4 s were seen with thirty programs to a core
const platforms = [];
const browsers = [];
const cables = [];
let cable, cable6, plain, secure, host;

const open = async (colour, options) => {
  const browser = await openBrowser(colour, options);
  browsers.push(browser);
  return browser;
};

/** A browser that has only what is behind the cable. */
const openFar = async (behind, platform) => {
  const url = `${new URL(platform.url).protocol}//${behind.host}:${platform.port}`;
  const args = [`--unsafely-treat-insecure-origin-as-secure=${url}`, "--ignore-certificate-errors"];
  const browser = await open("green", { executable: await behind.wrapper(chromiumPath), args });
  return { browser, link: platform.links().speaker.replace(/^https?:\/\/[^/]+/, url) };
};

/** The pair that is used: what it is, and how long it took from the making of the connection. */
const route = (guest) => guest.page.evaluate(async () => {
  const pc = window.e2e.peerConnections.findLast((pc) => pc.connectionState === "connected");
  const stats = await pc.getStats();
  const transport = [...stats.values()].find((s) => s.type === "transport");
  const pair = stats.get(transport.selectedCandidatePairId);
  const local = stats.get(pair.localCandidateId);
  const remote = stats.get(pair.remoteCandidateId);
  const began = window.e2e.timeline.find(([, what]) => what === "new")[0];
  const ended = window.e2e.timeline.find(([, what]) => what === "connected")[0];
  return { type: local.candidateType, protocol: local.protocol, port: local.port, relay: local.relayProtocol, remote: `${remote.address} ${remote.protocol}`, ms: ended - began };
});

/** Joins from afar, sees and is seen; answers the way. */
const callFrom = async (far, { path = "", name }) => {
  const guest = await (await Guest.open(far.browser, far.link + path, name)).join();
  await until(`${name} is connected`, () => guest.room((room) => room.state.transport === "connected"));
  const way = await route(guest).catch((thrown) => ({ thrown: thrown.message }));
  await Promise.all([guest.sees("Rita", "red"), host.sees(name, "green")]);
  console.log(`# ${name}: ${JSON.stringify(way)}`);
  if (!(way.ms <= most)) console.log((await guest.diagnosis()).replace(/^/gm, "# "));
  return { guest, way };
};

before(async () => {
  cable = cables[0] = await Cable.lay();
  if (!cable) return;
  cable6 = cables[1] = await Cable.lay({ ipv6: true });
  plain = await Platform.start({ host: "" });
  platforms.push(plain);
  host = await (await Guest.open(await open("red"), plain.links().host, "Rita")).join();
}, { timeout: 60_000 });

after(async () => {
  await Promise.all(browsers.map((browser) => browser.close()));
  for (const platform of platforms) await platform.stop();
  for (const laid of cables) await laid?.remove();
}, { timeout: 60_000 });

describe("from anywhere", { concurrency: false }, () => {
  let far;
  const needsSpaces = (t) => cable ? false : (t.skip("needs the right to make network namespaces"), true);

  test("no UDP: ICE-TCP", { timeout: 60_000 }, async (t) => {
    if (needsSpaces(t)) return;
    far = await openFar(cable, plain);
    await cable.block("meta l4proto udp");
    const { guest, way } = await callFrom(far, { name: "Tess" });
    await guest.close();
    assert.equal(way.protocol, "tcp");
    assert.notEqual(way.type, "relay");
    assert.ok(way.ms <= slow, `connected after ${way.ms} ms`);
  });

  test("TURN only, over UDP", { timeout: 60_000 }, async (t) => {
    if (needsSpaces(t)) return;
    // Relays are reached by TCP too, and on a busy machine that may be the first way that works.
    await cable.block(`tcp dport != ${plain.port}`);
    const { guest, way } = await callFrom(far, { path: "?path=relay", name: "Uma" });
    await guest.close();
    assert.deepEqual([way.type, way.relay], ["relay", "udp"]);
    assert.ok(way.ms <= slow, `connected after ${way.ms} ms`);
  });

  test("nothing but HTTP and TURN over TCP: relays come in by themselves", { timeout: 60_000 }, async (t) => {
    if (needsSpaces(t)) return;
    await cable.block("meta l4proto udp", `tcp dport ${plain.port + 1}`);
    const { guest, way } = await callFrom(far, { name: "Vic" });
    await guest.close();
    assert.deepEqual([way.type, way.relay], ["relay", "tcp"]);
    assert.ok(way.ms <= slow, `connected after ${way.ms} ms`);
  });

  /** Somebody calls; when the media has settled the path breaks; answers for how long both pictures stood still. */
  const breakPath = async (name, breaks) => {
    await cable.block();
    const { guest } = await callFrom(far, { name });
    await pause(3_000); // until the media has settled
    await watchStillness(guest.page, '[data-testid="tile"][data-name="Rita"] video');
    await watchStillness(host.page, `[data-testid="tile"][data-name="${name}"] video`);
    await breaks(guest);
    await pause(5_000);
    await Promise.all([guest.sees("Rita", "red"), host.sees(name, "green")]);
    const gaps = [await stillness(guest.page), await stillness(host.page)];
    console.log(`# ${await guest.diagnosis()}`);
    assert.equal(await guest.transports(), 1);
    await guest.close();
    return gaps;
  };

  test("a way that falls silent in the middle of a call", { timeout: 90_000 }, async (t) => {
    if (needsSpaces(t)) return;
    const gaps = await breakPath("Ned", async (guest) => cable.swallow((await route(guest)).port));
    console.log(`# silent way: the picture stood still for ${gaps[0]} ms there, ${gaps[1]} ms here`);
    assert.ok(Math.max(...gaps) > 0 && Math.max(...gaps) <= slowChange, `gaps of ${gaps} ms`);
  });

  test("to another network in the middle of a call", { timeout: 90_000 }, async (t) => {
    if (needsSpaces(t)) return;
    const gaps = await breakPath("Moe", () => cable.move());
    console.log(`# network change: the picture stood still for ${gaps[0]} ms there, ${gaps[1]} ms here`);
    assert.ok(Math.max(...gaps) > 0 && Math.max(...gaps) <= slowChange, `gaps of ${gaps} ms`);
  });

  test("nothing but HTTPS and TURN over TLS", { timeout: 60_000 }, async (t) => {
    if (needsSpaces(t)) return;
    await browsers.pop().close();
    const ports = [20_000, 20_001].map((first) => first + 2 * (process.pid % 5_000));
    secure = await Platform.start({ host: "", secure: true, args: ["--turn-port", ports[0], "--turn-tls-port", ports[1]].map(String) });
    platforms.push(secure);
    const cable = (cables[2] = await Cable.lay());
    await cable.block("meta l4proto udp", `tcp dport != {${secure.port},${ports[1]}}`);
    far = await openFar(cable, secure);
    const guest = await (await Guest.open(far.browser, far.link, "Theo")).join();
    await until("Theo is connected", () => guest.room((room) => room.state.transport === "connected"));
    const way = await route(guest);
    console.log(`# Theo: ${JSON.stringify(way)}`);
    assert.deepEqual([way.type, way.relay], ["relay", "tls"]);
    assert.ok(way.ms <= slow, `connected after ${way.ms} ms`);
  });

  test("IPv6 only", { timeout: 60_000 }, async (t) => {
    if (needsSpaces(t)) return;
    await browsers.pop().close();
    far = await openFar(cable6, plain);
    const direct = await callFrom(far, { name: "Sid" });
    await direct.guest.close();
    assert.equal(direct.way.protocol, "udp");
    const relayed = await callFrom(far, { path: "?path=relay", name: "Six" });
    await relayed.guest.close();
    assert.equal(relayed.way.type, "relay");
    assert.ok(Math.max(direct.way.ms, relayed.way.ms) <= slow, `connected after ${direct.way.ms} and ${relayed.way.ms} ms`);
  });

  test("Firefox, by ICE-TCP and by TURN", { timeout: 90_000, skip: firefoxPath ? false : "Firefox is not installed" }, async () => {
    const firefox = await Firefox.open({ hz: 440 });
    try {
      await firefox.addInitScript(observe);
      for (const path of ["tcp", "relay"]) {
        const name = `Fox ${path}`;
        await firefox.goto(`${plain.links().speaker}?path=${path}`);
        await firefox.fill("preview-name", name);
        await firefox.click("preview-join");
        await until(`${name} is connected`, () => firefox.evaluate(() => window.amphi.room.state.transport === "connected"), { timeout: 30_000 });
        await until(`${name} decodes the host's picture`, () => firefox.evaluate(() =>
          document.querySelector('[data-testid="tile"][data-name="Rita"] video')?.videoWidth > 0), { timeout: 30_000 });
        const tile = `[data-testid="tile"][data-name="${name}"] video`;
        await until(`the host decodes the picture of ${name}`, () => host.page.evaluate((tile) => document.querySelector(tile)?.videoWidth > 0, tile), { timeout: 30_000 });
        const way = await firefox.evaluate(async () => {
          const pc = window.e2e.peerConnections.findLast((pc) => pc.connectionState === "connected");
          const stats = await pc.getStats();
          const pair = [...stats.values()].find((s) => s.type === "candidate-pair" && s.selected);
          const local = stats.get(pair.localCandidateId);
          const when = (what) => window.e2e.timeline.find(([, w]) => w === what)[0];
          return { type: local.candidateType, protocol: local.protocol, relay: local.relayProtocol, ms: when("connected") - when("new") };
        });
        console.log(`# ${name}: ${JSON.stringify(way)}`);
        if (path === "tcp") assert.equal(way.protocol, "tcp");
        else assert.equal(way.type, "relay");
        await firefox.evaluate(() => window.amphi.room.leave());
      }
    } finally {
      await firefox.close();
    }
  });
});

// Firefox joins, watches the stream, comes on stage, publishes, and goes back; a Chromium host sees and hears it.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { Guest, observe, openBrowser } from "./lib/browser.mjs";
import { Firefox, firefoxPath } from "./lib/firefox.mjs";
import { people } from "./lib/people.mjs";
import { Platform } from "./lib/platform.mjs";
import { look } from "./lib/senses.mjs";
import { eventually, until } from "./lib/wait.mjs";

const red = [{ name: "red", rgb: people.red.rgb }];
let platform, browser, firefox, host;

const skip = firefoxPath ? false : "Firefox is not installed";

before(async () => {
  if (skip) return;
  platform = await Platform.start();
  browser = await openBrowser("red");
  firefox = await Firefox.open({ hz: people.green.hz });
  await firefox.addInitScript(observe);
}, { timeout: 120_000 });

after(async () => {
  await firefox?.close();
  await browser?.close();
  await platform?.stop();
}, { timeout: 60_000 });

const role = () => firefox.evaluate(() => window.amphi.room.state.roleName);
const audioEnergy = () => firefox.evaluate(async () => {
  const stats = await Promise.all(window.e2e.peerConnections.filter((pc) => pc.connectionState === "connected").map((pc) => pc.getStats()));
  return stats.flatMap((report) => [...report.values()]).reduce((sum, s) => sum + (s.type === "inbound-rtp" ? (s.totalAudioEnergy ?? 0) : 0), 0);
});
const shows = (what, selector) => eventually(what, async () => {
  const seen = await look(firefox, selector, red);
  return { ok: seen.shares?.red > 0.3 && seen.moved, ...seen };
}, { timeout: 40_000 });

describe("Firefox", { concurrency: false, skip }, () => {
  let peerId;

  test("joins as a viewer and watches the stream", { timeout: 120_000 }, async () => {
    host = await (await Guest.open(browser, platform.links().host, "Rita")).join();
    await host.id("control-live").click();
    await firefox.goto(platform.links().viewer);
    await firefox.fill("preview-name", "Fiona");
    await firefox.click("preview-join");
    await until("Fiona has joined", () => firefox.evaluate(() => window.amphi.room.state.phase === "joined"));
    peerId = await firefox.evaluate(() => window.amphi.room.state.selfId);
    await shows("the stream is decoded in Firefox", '[data-testid="viewer-video"]');
    assert.equal(await firefox.evaluate(() => window.e2e.peerConnections.length), 0);
  });

  test("comes on stage and publishes", { timeout: 120_000 }, async () => {
    await firefox.click("control-hand");
    await host.id("notice-bring-on-stage").click();
    await until("the preview shows a picture", () =>
      firefox.evaluate(() => document.querySelector('[data-testid="role-dialog"] video')?.videoWidth > 0), { timeout: 30_000 });
    await firefox.click("role-accept");
    const tile = '[data-testid="tile"][data-name="Fiona"] video';
    await eventually("the host decodes Firefox's picture", async () => {
      const seen = await look(host.page, tile, []);
      return { ok: seen.moved && seen.size?.[0] > 0, ...seen };
    }, { timeout: 40_000 });
    await host.hears("green");
    await shows("Firefox decodes the host's picture", '[data-testid="tile"][data-name="Rita"] video');
    // Without a sound card Firefox runs no AudioContext; what it decoded is in its statistics.
    const before = await audioEnergy();
    await eventually("Firefox decodes the host's voice", async () => {
      const energy = (await audioEnergy()) - before;
      return { ok: energy > 0.05, energy };
    }, { timeout: 30_000 });
  });

  test("goes back to the stream, as the same peer", { timeout: 90_000 }, async () => {
    await platform.cli("peer", "role", "demo", peerId, "viewer", "--force");
    await until("Fiona is a viewer again", async () => (await role()) === "viewer");
    await shows("the stream plays again", '[data-testid="viewer-video"]');
    assert.equal(await firefox.evaluate(() => window.amphi.room.state.selfId), peerId);
    assert.equal(await firefox.evaluate(() => window.e2e.sockets.length), 1);
  });
});

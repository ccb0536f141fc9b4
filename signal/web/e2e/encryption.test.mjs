// End-to-end encryption: what is decoded with the right key, with a wrong one, with none, through layer switches and
// rotations; and what such a room refuses.
import assert from "node:assert/strict";
import { mkdtemp, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { Guest, observe, openBrowser } from "./lib/browser.mjs";
import { Firefox, firefoxPath } from "./lib/firefox.mjs";
import { people } from "./lib/people.mjs";
import { Platform } from "./lib/platform.mjs";
import { look } from "./lib/senses.mjs";
import { always, eventually, until } from "./lib/wait.mjs";
import { stillness, watchStillness } from "./lib/watch.mjs";

const passphrase = "correct horse battery staple";
const tile = (name) => `[data-testid="tile"][data-name="${name}"] video`;
let platform, links, firefox;
const browsers = [];

/** A copy of a preset whose rooms are encrypted, with these video codecs. */
async function importEncrypted(name, codecs) {
  const template = JSON.parse(await platform.text("template", "get", "live-event"));
  Object.assign(template, { name, endToEndEncrypted: true });
  delete template.revision;
  for (const { publish } of template.roles) if (publish?.videoParams) publish.videoParams.codecs = codecs;
  const file = join(await mkdtemp(join(tmpdir(), "amphi-e2e-")), "template.json");
  await writeFile(file, JSON.stringify(template));
  await platform.cli("template", "set", file);
}

before(async () => {
  platform = await Platform.start();
  await importEncrypted("sealed", ["vp8"]);
  links = await platform.room("vault", "sealed");
  browsers.push(...(await Promise.all(["red", "green"].map((colour) => openBrowser(colour)))));
}, { timeout: 60_000 });

after(async () => {
  await Promise.all(browsers.map((browser) => browser.close()));
  await platform?.stop();
}, { timeout: 60_000 });

async function enter(browser, link, name, words = passphrase) {
  const guest = await Guest.open(browser, link, name, { init: { script: noteErrors } });
  await guest.id("preview-passphrase").fill(words, { timeout: 20_000 });
  return guest.join();
}

// Runs before the app: keeps what the room tells about encryption.
function noteErrors() {
  window.refused = [];
  const timer = setInterval(() => {
    if (!window.amphi) return;
    clearInterval(timer);
    window.amphi.room.on("encryption-error", (error) => window.refused.push(error));
  }, 5);
}

const refused = (guest) => guest.page.evaluate(() => window.refused);
const stats = (guest) => guest.room((room) => room.encryption.stats());
const rotate = (guest, index) => guest.room((room, index) => room.encryption.setKey(new Uint8Array(32).fill(index), { index }), index);
const use = (guest, index) => guest.room((room, index) => room.encryption.use(index), index);

/** The frame's height that a tile shows now. */
const height = (guest, name) => guest.page.evaluate((selector) => document.querySelector(selector)?.videoHeight ?? 0, tile(name));

/** The best layer of a tile, the lowest in a small one, and the best again. */
async function layerFollowsSize(guest, name) {
  const high = () => until("the best layer", async () => (await height(guest, name)) === 360, { timeout: 30_000 });
  await high();
  await guest.page.evaluate((selector) => {
    const video = document.querySelector(selector);
    Object.assign(video.style, { width: "100px", height: "56px" });
  }, tile(name));
  await until("the lowest layer", async () => (await height(guest, name)) === 180, { timeout: 30_000 });
  await guest.page.evaluate((selector) => document.querySelector(selector).removeAttribute("style"), tile(name));
  await high();
}

// A key that comes with the link.
const fragment = "#key=" + Buffer.alloc(32, 7).toString("base64url");

describe("an encrypted room", { concurrency: false }, () => {
  let rita, greg;

  // The next codecs cost more: two cores cannot encode for this room too.
  after(() => Promise.all([rita?.close(), greg?.close(), firefox?.close()]), { timeout: 30_000 });

  /** Rita and Greg go over to the link's key. */
  async function useLinkKey() {
    const change = (room) => room.encryption.setKey(new Uint8Array(32).fill(7), { index: 0 });
    await Promise.all([rita, greg].map((guest) => guest.room(change)));
    await Promise.all([use(rita, 0), use(greg, 0)]);
  }

  test("two with the passphrase see and hear each other", { timeout: 120_000 }, async () => {
    [rita, greg] = await Promise.all([enter(browsers[0], links.host, "Rita"), enter(browsers[1], links.speaker, "Greg")]);
    await Promise.all([rita.sees("Greg", "green"), greg.sees("Rita", "red")]);
    await rita.hears("green");
    await rita.id("encrypted-badge").waitFor();
    const { encrypted, decrypted } = await stats(rita);
    assert.ok(encrypted > 20 && decrypted > 20, `${encrypted} encrypted, ${decrypted} decrypted`);
  });

  test("the layer follows the size", { timeout: 120_000 }, async () => {
    await layerFollowsSize(rita, "Greg");
    await rita.sees("Greg", "green");
  });

  test("keys change without a standstill", { timeout: 120_000 }, async () => {
    await watchStillness(rita.page, tile("Greg"));
    for (const index of [1, 2]) {
      await Promise.all([rotate(rita, index), rotate(greg, index)]);
      await Promise.all([use(rita, index), use(greg, index)]);
      await rita.sees("Greg", "green");
    }
    const still = await stillness(rita.page);
    assert.ok(still < 3_000, `stood still for ${still} ms`);
    const { refused: counts } = await stats(rita);
    assert.equal(counts.decryption_failed ?? 0, 0);
  });

  test("a wrong key shows nothing and says so, until it is the right one", { timeout: 120_000 }, async () => {
    const wanda = await enter(browsers[0], links.speaker, "Wanda", "some other passphrase");
    await wanda.room((room) => room.encryption.setKey(new Uint8Array(32).fill(99), { index: 2 }));
    await until("it is told", async () => (await refused(wanda)).some((e) => e.code === "decryption_failed" && e.side === "receive"));
    await always("nothing decoded", async () => (await height(wanda, "Greg")) === 0, 2_000);
    const told = (await refused(wanda)).filter((e) => e.code === "decryption_failed");
    assert.ok(told.length < 12, `${told.length} events`);
    assert.equal(await greg.page.evaluate((selector) => document.querySelector(selector)?.videoHeight ?? 0, tile("Wanda")), 0);
    await rotate(wanda, 2);
    await use(wanda, 2);
    await wanda.sees("Greg", "green", { timeout: 30_000 });
    await greg.sees("Wanda", "red", { timeout: 30_000 });
    await wanda.room((room) => room.leave());
    await wanda.close();
  });

  test("without a key nothing is decodable, and nothing can be published", { timeout: 120_000 }, async () => {
    const context = await browsers[0].newContext();
    const page = await context.newPage();
    await page.goto(platform.url);
    const seen = await page.evaluate(async (code) => {
      const { Room, receivable } = await import("/sdk/amphi.js");
      const room = new Room({ code });
      window.eve = room;
      let failed;
      room.on("local-failed", ({ error }) => (failed = error.code));
      await room.join({ name: "Eve" });
      const canvas = document.createElement("canvas");
      canvas.getContext("2d").fillRect(0, 0, 10, 10);
      await room.local.publishTrack(canvas.captureStream(5).getVideoTracks()[0], "camera");
      const video = document.createElement("video");
      video.style.width = "640px";
      video.style.height = "360px";
      document.body.append(video);
      const { track } = receivable(room.state).find(({ track }) => track.kind === "video");
      room.attach(video, track.id);
      let bytes = 0;
      for (const end = Date.now() + 10_000; Date.now() < end && bytes < 5_000; ) {
        await new Promise((resolve) => setTimeout(resolve, 100));
        for (const s of (await room.stats()).values()) if (s.type === "inbound-rtp" && s.kind === "video") bytes = s.bytesReceived;
      }
      let decoded = 0;
      for (const s of (await room.stats()).values()) if (s.type === "inbound-rtp") decoded += s.framesDecoded ?? 0;
      await room.leave();
      return { failed, bytes, decoded };
    }, links.speaker.split("/").at(-1));
    assert.equal(seen.failed, "encryption_required");
    assert.ok(seen.bytes >= 5_000, `${seen.bytes} bytes`);
    assert.equal(seen.decoded, 0);
    await context.close();
  });

  test("no stream, no WHEP: refused with a code and in words", { timeout: 120_000 }, async () => {
    await rita.id("control-live").click();
    await rita.page.getByText("Not in an encrypted room").waitFor({ timeout: 10_000 });
    const code = links.audience.split("/").at(-1);
    const { token } = await (await fetch(platform.url + "/v1/token", { method: "POST", body: JSON.stringify({ code }) })).json();
    const refusal = await rita.page.evaluate(async (token) => {
      const pc = new RTCPeerConnection();
      pc.addTransceiver("video", { direction: "recvonly" });
      const { sdp: body } = await pc.createOffer();
      pc.close();
      const headers = { authorization: `Bearer ${token}`, "content-type": "application/sdp" };
      const answer = await fetch("/v1/whep/vault", { method: "POST", headers, body });
      return (await answer.json()).error?.code;
    }, token);
    assert.equal(refusal, "encrypted_room");
  });

  test("a browser without script transforms takes part by a link with the key, also after a reload", { timeout: 120_000 }, async () => {
    const bella = await Guest.open(browsers[0], links.speaker + fragment, "Bella", { init: { script: () => delete window.RTCRtpScriptTransform } });
    await bella.join();
    await useLinkKey();
    await bella.sees("Greg", "green", { timeout: 30_000 });
    await bella.page.reload();
    await bella.joined();
    await bella.sees("Greg", "green", { timeout: 30_000 });
    await greg.sees("Bella", "red", { timeout: 30_000 });
    await bella.room((room) => room.leave());
    await bella.close();
  });

  test("Firefox sees Chromium", { timeout: 120_000, skip: firefoxPath ? false : "Firefox is not installed" }, async () => {
    firefox = await Firefox.open({ hz: people.green.hz });
    await firefox.addInitScript(observe);
    await useLinkKey();
    await firefox.goto(links.speaker + fragment);
    await firefox.fill("preview-name", "Fiona");
    await firefox.click("preview-join");
    await eventually("Firefox decodes Rita's picture", async () => {
      const seen = await look(firefox, tile("Rita"), [{ name: "red", rgb: people.red.rgb }]);
      return { ok: seen.shares?.red > 0.3 && seen.moved, ...seen };
    }, { timeout: 30_000 });
    await eventually("Chromium decodes Firefox's picture", async () => {
      const seen = await look(rita.page, tile("Fiona"), []);
      return { ok: seen.moved && seen.size?.[0] > 0, ...seen };
    }, { timeout: 60_000 });
  });
});

describe("encrypted by other codecs", { concurrency: false }, () => {
  for (const codec of ["vp9", "av1"]) {
    test(`${codec}: two see each other, and the layer follows the size`, { timeout: 120_000 }, async (t) => {
      await importEncrypted(`sealed-${codec}`, [codec]);
      const links = await platform.room(`vault-${codec}`, `sealed-${codec}`);
      const [vera, paul] = await Promise.all([enter(browsers[0], links.host, "Vera"), enter(browsers[1], links.speaker, "Paul")]);
      t.after(() => Promise.all([vera.close(), paul.close()]));
      await Promise.all([vera.sees("Paul", "green"), paul.sees("Vera", "red")]);
      await layerFollowsSize(vera, "Paul");
      const codecs = await vera.page.evaluate(async () => {
        const stats = [...(await window.amphi.room.stats()).values()];
        const received = stats.filter((s) => s.type === "inbound-rtp" && s.kind === "video" && s.framesDecoded > 0);
        return received.map((s) => stats.find((c) => c.id === s.codecId).mimeType.toLowerCase());
      });
      assert.deepEqual(codecs, [`video/${codec}`]);
      const { decrypted } = await stats(vera);
      assert.ok(decrypted > 20, `${decrypted} decrypted`);
    });
  }
});

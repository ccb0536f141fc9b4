// Only what is wanted is sent: a publisher's layers stop when nobody looks at them so large, and come back at once.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { Guest, openBrowser } from "./lib/browser.mjs";
import { Platform } from "./lib/platform.mjs";
import { pause, until } from "./lib/wait.mjs";

// A camera of 1280 x 720, large enough for three layers, and a microphone with a tone.
const largeCamera = {
  script: () => {
    navigator.mediaDevices.getUserMedia = async (wanted) => {
      const stream = new MediaStream();
      if (wanted.video) {
        const canvas = document.createElement("canvas");
        [canvas.width, canvas.height] = [1280, 720];
        const context = canvas.getContext("2d");
        let n = 0;
        setInterval(() => {
          context.fillStyle = `hsl(${(n += 7) % 360} 60% 45%)`;
          context.fillRect(0, 0, 1280, 720);
          context.fillStyle = "#fff";
          context.fillRect((n * 3) % 1200, 300, 80, 120);
        }, 66);
        stream.addTrack(canvas.captureStream(15).getVideoTracks()[0]);
      }
      if (wanted.audio) {
        const audio = new AudioContext();
        const tone = audio.createOscillator();
        const out = audio.createMediaStreamDestination();
        tone.connect(out);
        tone.start();
        stream.addTrack(out.stream.getAudioTracks()[0]);
      }
      return stream;
    };
  },
};

/** Notes in the publisher's page when each of its streams last sent a frame, or a packet of sound. */
function watchSending(page) {
  return page.evaluate(() => {
    const sent = (window.e2e.sent = {});
    const seen = {};
    setInterval(async () => {
      for (const pc of window.e2e.peerConnections) {
        if (pc.connectionState !== "connected") continue;
        for (const s of (await pc.getStats()).values()) {
          if (s.type !== "outbound-rtp") continue;
          const name = s.kind === "audio" ? "audio" : s.rid;
          const n = s.kind === "audio" ? s.packetsSent : s.framesSent;
          if (n > (seen[name] ?? 0)) sent[name] = Date.now();
          seen[name] = n;
        }
      }
    }, 50);
  });
}

/** For how long each stream has sent nothing, in ms. */
const silence = (page) =>
  page.evaluate(() => Object.fromEntries(["audio", "q", "h", "f"].map((name) => [name, Date.now() - (window.e2e.sent[name] ?? 0)])));

/** Notes how late this page's timers are; `lateness` answers the most since it was asked last, in ms. */
function watchLateness(page) {
  return page.evaluate(() => {
    window.e2e.late = 0;
    let due = performance.now() + 50;
    setInterval(() => {
      const now = performance.now();
      window.e2e.late = Math.max(window.e2e.late, now - due);
      due = now + 50;
    }, 50);
  });
}

const lateness = (page) =>
  page.evaluate(() => {
    const { late } = window.e2e;
    window.e2e.late = 0;
    return Math.round(late);
  });

/** Resizes a page and waits until its layout is that. */
async function resize(page, size) {
  await page.setViewportSize(size);
  await page.evaluate((width) => new Promise((resolve) => {
    const see = () => (innerWidth === width ? resolve() : requestAnimationFrame(see));
    see();
  }), size.width);
}

/** Waits until exactly these streams are being sent; answers when the last of the others fell silent, in ms after `since`. */
async function onlySent(page, names, since, timeout = 20_000) {
  const rest = 900; // silent for so long: more than any pause between frames
  await until(`only ${names.join(", ") || "nothing"} is sent`, async () => {
    const silent = await silence(page);
    const sent = Object.keys(silent).filter((name) => silent[name] < rest);
    return sent.sort().join() === [...names].sort().join();
  }, { timeout, every: 50 });
  const sent = await page.evaluate(() => window.e2e.sent);
  return Math.max(0, ...["audio", "q", "h", "f"].filter((name) => !names.includes(name)).map((name) => (sent[name] ?? 0) - since));
}

/** What the page shows of `name`: the layer that is forwarded, why, and how wide its picture is. */
const shown = (page, name) =>
  page.evaluate((name) => {
    const video = document.querySelector(`[data-testid=tile][data-name="${name}"] video`);
    const quality = window.amphi.room.state.qualities.get(video?.dataset.track);
    return { width: video?.videoWidth ?? 0, track: video?.dataset.track, layer: quality?.current ?? -1, reason: quality?.reason };
  }, name);

const small = { width: 340, height: 300 };
const large = { width: 1280, height: 860 };

let platform;
const browsers = [];

before(async () => {
  platform = await Platform.start();
  for (const colour of ["red", "blue"]) browsers.push(await openBrowser(colour));
}, { timeout: 60_000 });

after(async () => {
  await Promise.all(browsers.map((browser) => browser.close()));
  await platform?.stop();
}, { timeout: 60_000 });

describe("interest", { concurrency: false }, () => {
  let host, anna;

  test("without viewers nothing is sent", { timeout: 60_000 }, async () => {
    host = await (await Guest.open(browsers[0], platform.links().host, "Rita", { init: largeCamera })).join();
    await watchSending(host.page);
    await watchLateness(host.page);
    await until("it begins", async () => (await silence(host.page)).q < 500);
    await onlySent(host.page, [], Date.now());
  });

  test("a small picture needs the lowest layer only", { timeout: 60_000 }, async () => {
    anna = await Guest.open(browsers[1], platform.links().audience, "Anna", { viewport: small });
    await anna.join();
    await watchLateness(anna.page);
    const joined = Date.now();
    await until("Anna sees Rita", async () => (await shown(anna.page, "Rita")).width > 0, { every: 20 });
    console.log(`# first picture ${Date.now() - joined} ms after the join`);
    await onlySent(host.page, ["audio", "q"], joined);
    await until("it is enough for its size", async () => (await shown(anna.page, "Rita")).reason === "size");
  });

  test("a large one gets the highest within a keyframe, and loses it within 3 s", { timeout: 90_000 }, async () => {
    const { width: least } = await shown(anna.page, "Rita");
    const rises = [];
    const falls = [];
    const late = async () => (await lateness(host.page)) + (await lateness(anna.page));
    for (let i = 0; i < 2; i++) {
      await late();
      await resize(anna.page, large);
      const grown = Date.now();
      // The browser's own estimate and the machine say which of the higher layers it can send.
      await until("Anna sees more of Rita", async () => (await shown(anna.page, "Rita")).width >= 2 * least, { every: 10 });
      rises.push({ ms: Date.now() - grown, late: await late() });
      await pause(1_000);
      await resize(anna.page, small);
      const shrunk = Date.now();
      await late();
      const ms = await onlySent(host.page, ["audio", "q"], shrunk);
      falls.push({ ms, late: await late() });
      await until("Anna sees the lowest layer", async () => (await shown(anna.page, "Rita")).layer === 0);
    }
    const text = (list) => list.map(({ ms, late }) => `${ms} (timers ${late} late)`).join(", ");
    console.log(`# a higher layer is seen ${text(rises)} ms after the picture grew; the others are silent ${text(falls)} ms after it shrank`);
    assert.ok(falls.some(({ ms, late }) => ms <= 6_000 + 2 * late), `layers that nobody wants are sent for ${text(falls)} ms`);
    assert.ok(rises.some(({ ms, late }) => ms <= 4_000 + 2 * late), `the higher layer took ${text(rises)} ms`);
  });

  test("preferences are followed, and told as the reason", { timeout: 40_000 }, async () => {
    const { track } = await shown(anna.page, "Rita");
    await anna.room((room, track) => room.prefer(track, { maxSpatial: 0 }), track);
    await resize(anna.page, large);
    await until("it is what was asked for", async () => {
      const { layer, reason } = await shown(anna.page, "Rita");
      return layer === 0 && reason === "preference";
    });
    await anna.room((room, track) => room.prefer(track, {}), track);
    await until("it is more", async () => (await shown(anna.page, "Rita")).layer > 0);
  });

  test("nothing is sent when the viewer has left; the composer keeps what it needs", { timeout: 90_000 }, async () => {
    await lateness(host.page);
    const left = Date.now();
    await anna.room((room) => room.leave());
    const stopped = await onlySent(host.page, [], left);
    console.log(`# all silent ${stopped} ms after the viewer left`);
    const late = await lateness(host.page);
    assert.ok(stopped <= 6_000 + 2 * late, `sent for ${stopped} ms, timers ${late} late`);
    await host.id("control-live").click();
    const composed = async () => {
      const silent = await silence(host.page);
      return Math.min(silent.h, silent.f) < 900 && silent.audio < 900;
    };
    await until("the composer gets a large picture, and the sound", composed, { timeout: 40_000 });
    await pause(3_500);
    assert.ok(await composed(), `it keeps them: ${JSON.stringify(await silence(host.page))}`);
  });
});

// Layers of one track reach another browser: spatial ones by the size shown, and a codec without a decoder is told.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { observe, openBrowser } from "./lib/browser.mjs";
import { Firefox, firefoxPath } from "./lib/firefox.mjs";
import { Platform } from "./lib/platform.mjs";
import { Actor } from "./lib/stage.mjs";
import { eventually } from "./lib/wait.mjs";

let platform, links, host, viewer;
const browsers = [];

before(async () => {
  platform = await Platform.start();
  for (const colour of ["red", "green"]) browsers.push(await openBrowser(colour));
  links = await platform.room("layers");
  host = await Actor.join(browsers[0], platform, links.host, "host");
  viewer = await Actor.join(browsers[1], platform, links.host, "viewer");
}, { timeout: 60_000 });

after(async () => {
  await Promise.all(browsers.map((browser) => browser.close()));
  await platform?.stop();
}, { timeout: 30_000 });

const width = (trackId, wanted, who = viewer) => eventually(`a picture ${wanted} wide`, async () => {
  const seen = await who.seen(trackId);
  return { ok: seen.width === wanted && seen.count > 2, ...seen };
}, { timeout: 20_000, every: 250 });

/** Publishes a picture `high` wide, and shows it large, small and large again; `check` comes while it is published. */
async function followsSize({ codec, scalabilityMode, high = 640, low = 320 }, check = () => undefined) {
  const source = `x-${codec}-${scalabilityMode ?? "simulcast"}`.toLowerCase().replace("_", "-");
  const height = (high * 9) / 16;
  const id = await host.publish(source, { codec, scalabilityMode, width: high, height, rate: 10 });
  await viewer.show(id, high, height);
  await width(id, high);
  await viewer.resize(id, low * 0.75, low * 0.42);
  await width(id, low);
  await viewer.resize(id, high, height);
  await width(id, high);
  assert.ok((await viewer.codecs()).some((c) => c.codec.toLowerCase() === `video/${codec}`));
  await check();
  await viewer.hide(id);
  await host.unpublish(source);
}

describe("layers", { concurrency: false }, () => {
  // A third layer needs a picture whose lowest one has 240 pixels: Chromium makes no smaller ones.
  const layered = [
    { codec: "vp9", scalabilityMode: "L2T2_KEY" },
    { codec: "av1", scalabilityMode: "L2T2" },
    { codec: "av1", scalabilityMode: "L3T3", high: 960, low: 240 },
  ];
  for (const track of layered) {
    test(`${track.codec} ${track.scalabilityMode}: the spatial layer follows the size`, { timeout: 75_000 }, () => followsSize(track));
  }

  for (const codec of ["vp9", "av1", "h264"]) {
    test(`${codec} simulcast: the encoding follows the size`, { timeout: 75_000 }, () => followsSize({ codec }, async () => {
      const sent = (await host.sending()).filter((s) => s.codec?.toLowerCase() === `video/${codec}` && s.rid && s.frames > 0);
      assert.deepEqual(sent.map((s) => s.rid).sort(), ["f", "h"]);
    }));
  }

  test("Firefox decodes VP9 and AV1, with layers and in simulcast", { timeout: 120_000, skip: firefoxPath ? false : "Firefox is not installed" }, async () => {
    const firefox = await Firefox.open({ hz: 440 });
    try {
      await firefox.addInitScript(observe);
      const fiona = await Actor.on(firefox, platform, links.host, "Fiona");
      // Firefox knows no dependency descriptor: of AV1 with spatial layers it gets the lowest.
      for (const [codec, scalabilityMode, wanted] of [["vp9", "L2T2_KEY", 640], ["av1", "L2T2", 320], ["vp9", undefined, 640], ["av1", undefined, 640]]) {
        const source = `x-fox-${codec}-${wanted}`;
        const id = await host.publish(source, { codec, scalabilityMode, width: 640, height: 360, rate: 10 });
        await fiona.show(id, 640, 360);
        await width(id, wanted, fiona);
        if (wanted === 320) {
          await eventually("it is told why", async () => {
            const { quality } = await fiona.seen(id);
            return { ok: quality?.reason === "codec_layers", ...quality };
          }, { timeout: 10_000, every: 250 });
        }
        await fiona.hide(id);
        await host.unpublish(source);
      }
    } finally {
      await firefox.close();
    }
  });

  test("who has no decoder is told so", { timeout: 40_000 }, async () => {
    const room = await platform.room("layers-codec");
    const sender = await Actor.join(browsers[0], platform, room.host, "sender");
    const deaf = await Actor.join(browsers[1], platform, room.host, "deaf", { without: "av1" });
    const id = await sender.publish("x-av1", { codec: "av1", scalabilityMode: "L1T2", width: 320, height: 180, rate: 10 });
    await deaf.show(id, 320, 180);
    await eventually("the reason is the codec", async () => {
      const { quality } = await deaf.seen(id);
      return { ok: quality?.reason === "codec", ...quality };
    }, { timeout: 20_000, every: 500 });
  });
});

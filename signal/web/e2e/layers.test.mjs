// Layers of one track reach another browser: spatial ones by the size shown, and a codec without a decoder is told.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { openBrowser } from "./lib/browser.mjs";
import { Platform } from "./lib/platform.mjs";
import { Actor } from "./lib/stage.mjs";
import { eventually } from "./lib/wait.mjs";

let platform, host, viewer;
const browsers = [];

before(async () => {
  platform = await Platform.start();
  for (const colour of ["red", "green"]) browsers.push(await openBrowser(colour));
  const links = await platform.room("layers");
  host = await Actor.join(browsers[0], platform, links.host, "host");
  viewer = await Actor.join(browsers[1], platform, links.host, "viewer");
}, { timeout: 60_000 });

after(async () => {
  await Promise.all(browsers.map((browser) => browser.close()));
  await platform?.stop();
}, { timeout: 30_000 });

const width = (trackId, wanted) => eventually(`a picture ${wanted} wide`, async () => {
  const seen = await viewer.seen(trackId);
  return { ok: seen.width === wanted && seen.count > 2, ...seen };
}, { timeout: 20_000, every: 500 });

describe("layers", { concurrency: false }, () => {
  for (const [codec, scalabilityMode] of [["vp9", "L2T2_KEY"], ["av1", "L2T2"]]) {
    test(`${codec} ${scalabilityMode}: the spatial layer follows the size`, { timeout: 75_000 }, async () => {
      const id = await host.publish(`x-${codec}`, { codec, scalabilityMode, width: 640, height: 360, rate: 10 });
      await viewer.show(id, 640, 360);
      await width(id, 640);
      await viewer.resize(id, 240, 135);
      await width(id, 320);
      await viewer.resize(id, 640, 360);
      await width(id, 640);
      assert.ok((await viewer.codecs()).some((c) => c.codec.toLowerCase() === `video/${codec}`));
      await viewer.hide(id);
      await host.unpublish(`x-${codec}`);
    });
  }

  test("who has no decoder is told so", { timeout: 40_000 }, async () => {
    const links = await platform.room("layers-codec");
    const sender = await Actor.join(browsers[0], platform, links.host, "sender");
    const deaf = await Actor.join(browsers[1], platform, links.host, "deaf", { without: "av1" });
    const id = await sender.publish("x-av1", { codec: "av1", scalabilityMode: "L1T2", width: 320, height: 180, rate: 10 });
    await deaf.show(id, 320, 180);
    await eventually("the reason is the codec", async () => {
      const { quality } = await deaf.seen(id);
      return { ok: quality?.reason === "codec", ...quality };
    }, { timeout: 20_000, every: 500 });
  });
});

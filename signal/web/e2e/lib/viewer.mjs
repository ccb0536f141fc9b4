// A viewer of a stream with the SDK's player and no app: what is on the screen, and what the player says of itself.
import { observe } from "./browser.mjs";
import { eventually, until } from "./wait.mjs";
import { watchStillness } from "./watch.mjs";

const selector = "video";

export class Viewer {
  /** Opens a page, joins by a room's link and plays the stream of its role, which need not run yet. */
  static async open(browser, link, { width = 640, height = 360 } = {}) {
    const viewer = new Viewer();
    const url = new URL(link);
    const context = await browser.newContext({ viewport: { width, height } });
    viewer.page = await context.newPage();
    await viewer.page.addInitScript(observe);
    await viewer.page.goto(url.origin + "/sdk/amphi.d.ts");
    await viewer.page.evaluate(async ([code, width, height]) => {
      const video = document.createElement("video");
      Object.assign(video, { muted: true, playsInline: true });
      video.style.cssText = `position:fixed;left:0;top:0;width:${width}px;height:${height}px`;
      document.body.replaceChildren(video);
      const { Room } = await import("/sdk/amphi.js");
      window.room = new Room({ code });
      await window.room.join({ name: "Viewer" });
    }, [url.pathname.split("/").pop(), width, height]);
    await until("there is a stream to play", () => viewer.page.evaluate(async (selector) => {
      window.player = await window.room.playStream(document.querySelector(selector));
      return true;
    }, selector), { timeout: 30_000 });
    return viewer;
  }

  /** The player's statistics; `dateMs` is when the picture on the screen was made. */
  stats() {
    return this.page.evaluate(() => {
      const { player } = window;
      const { latencyS } = player;
      return { ...player.stats(), latencyS, dateMs: latencyS === undefined ? undefined : Date.now() - latencyS * 1000 };
    });
  }

  /** Notes from now on for how long the picture stands still: `watch.stillness` answers the longest. */
  watch() {
    return watchStillness(this.page, selector);
  }

  /** Waits until the picture moves, at most so far behind the stage; answers the latency in ms. */
  async follows(within = 4, timeout = 30_000) {
    const seen = await eventually(`a moving picture at most ${within} s old`, async () => {
      const { latencyS } = await this.stats();
      const still = await this.page.evaluate(() => window.e2e.still?.now ?? Infinity);
      return { ok: latencyS < within && still < 500, latencyS, still };
    }, { timeout });
    return Math.round(seen.latencyS * 1000);
  }

  /** Waits until a picture is on the screen that was made after a moment. */
  reaches(dateMs, timeout = 30_000) {
    return eventually("a picture that was made after the fault", async () => {
      const { dateMs: at } = await this.stats();
      return { ok: at > dateMs, behindMs: Math.round(dateMs - at) };
    }, { timeout });
  }

  /** Plays the quality of this height only. */
  choose(height) {
    return this.page.evaluate((height) => window.player.setLevel(window.player.levels.find((level) => level.height === height).index), height);
  }

  /** The height of the picture that is shown. */
  height() {
    return this.page.evaluate((selector) => document.querySelector(selector).videoHeight, selector);
  }

  /** Notes cues from now on, each with the date that the player has reached as it comes, and how old the frame on the screen is then. */
  noteCues() {
    return this.page.evaluate((selector) => {
      const video = document.querySelector(selector);
      const { player } = window;
      let shownS; // on the element's time line
      const frame = (_now, { mediaTime }) => {
        shownS = mediaTime;
        video.requestVideoFrameCallback(frame);
      };
      video.requestVideoFrameCallback(frame);
      window.e2e.cues = [];
      player.events.on("cue", ({ id }) => {
        window.e2e.cues.push({ id, dateMs: Date.now() - player.latencyS * 1000, lateMs: (video.currentTime - shownS) * 1000 });
      });
    }, selector);
  }

  cues() {
    return this.page.evaluate(() => window.e2e.cues);
  }
}

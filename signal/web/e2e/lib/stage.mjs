// Two pages with the SDK and no app: one publishes drawn pictures in any codec and mode, the other shows them at any size.
import { observe } from "./browser.mjs";

export class Actor {
  /** Opens a page with the SDK and joins by a room's code. `without` is a codec that the browser pretends not to decode. */
  static async join(browser, platform, link, name, { without } = {}) {
    const context = await browser.newContext({ viewport: { width: 1400, height: 900 } });
    const page = await context.newPage();
    await page.addInitScript(observe);
    return Actor.on(page, platform, link, name, { without });
  }

  /** Joins in a page of any browser, which has `observe`. */
  static async on(page, platform, link, name, { without } = {}) {
    const actor = new Actor();
    Object.assign(actor, { name, page });
    await page.goto(platform.url + "/sdk/amphi.d.ts");
    await actor.page.evaluate(async ([code, name, without]) => {
      if (without) {
        const add = RTCPeerConnection.prototype.addTransceiver;
        RTCPeerConnection.prototype.addTransceiver = function (what, options) {
          const made = add.call(this, what, options);
          if (what === "video" && options.direction === "recvonly") {
            made.setCodecPreferences(RTCRtpReceiver.getCapabilities("video").codecs.filter((c) => !c.mimeType.toLowerCase().endsWith(without)));
          }
          return made;
        };
      }
      document.body.replaceChildren();
      const { Room } = await import("/sdk/amphi.js");
      window.room = new Room({ code, userId: name });
      await window.room.preview();
      await window.room.join({ name });
    }, [link.split("/").pop(), name, without]);
    return actor;
  }

  /** Publishes a moving picture under a source of its own; answers the track's id. */
  publish(source, { width = 1280, height = 720, rate = 15, ...options }) {
    return this.page.evaluate(async ([source, width, height, rate, options]) => {
      const canvas = document.createElement("canvas");
      [canvas.width, canvas.height] = [width, height];
      const context = canvas.getContext("2d");
      let n = 0;
      setInterval(() => {
        context.fillStyle = `hsl(${n % 360} 60% 50%)`;
        context.fillRect(0, 0, width, height);
        context.fillStyle = "white";
        for (let i = 0; i < 40; i++) context.fillRect((i * 97 + n * 7) % width, (i * 53) % height, 30, 30);
        n++;
      }, 1000 / rate);
      const [media] = canvas.captureStream(rate).getVideoTracks();
      await window.room.local.publishTrack(media, source, options);
      return window.room.state.local.get(source).trackId;
    }, [source, width, height, rate, options]);
  }

  unpublish(source) {
    return this.page.evaluate((source) => window.room.local.unpublish(source), source);
  }

  /** Shows a track in an element of its own, and notes every frame that is presented. */
  show(trackId, width, height) {
    return this.page.evaluate(([trackId, width, height]) => {
      const video = document.createElement("video");
      Object.assign(video, { id: "v-" + trackId, muted: true, autoplay: true, playsInline: true });
      video.style.cssText = `position:fixed;left:0;top:0;width:${width}px;height:${height}px`;
      document.body.append(video);
      video.frames = [];
      const note = (now) => {
        video.frames.push([now, video.videoWidth, video.videoHeight]);
        video.requestVideoFrameCallback(note);
      };
      video.requestVideoFrameCallback(note);
      video.detach = window.room.attach(video, trackId);
    }, [trackId, width, height]);
  }

  hide(trackId) {
    return this.page.evaluate((trackId) => {
      const video = document.getElementById("v-" + trackId);
      video.detach();
      video.remove();
    }, trackId);
  }

  resize(trackId, width, height) {
    return this.page.evaluate(([trackId, width, height]) => {
      const video = document.getElementById("v-" + trackId);
      video.style.width = width + "px";
      video.style.height = height + "px";
    }, [trackId, width, height]);
  }

  /** What is shown now, the longest time between two frames since the last look, and what the server says of it. */
  seen(trackId) {
    return this.page.evaluate((trackId) => {
      const video = document.getElementById("v-" + trackId);
      const { frames } = video;
      let gap = 0;
      for (let i = 1; i < frames.length; i++) gap = Math.max(gap, frames[i][0] - frames[i - 1][0]);
      const [, width, height] = frames.at(-1) ?? [0, 0, 0];
      const count = frames.length;
      video.frames = frames.slice(-1);
      return { width, height, gap: Math.round(gap), count, quality: window.room.state.qualities.get(trackId) };
    }, trackId);
  }

  /** The codecs that are being received. */
  codecs() {
    return this.page.evaluate(async () => {
      const stats = await Promise.all(window.e2e.peerConnections.filter((pc) => pc.connectionState === "connected").map((pc) => pc.getStats()));
      return stats.flatMap((report) => [...report.values()]
        .filter((s) => s.type === "inbound-rtp" && s.kind === "video" && s.framesDecoded > 0)
        .map((s) => ({ codec: report.get(s.codecId)?.mimeType, frames: s.framesDecoded, dropped: s.framesDropped, freezes: s.freezeCount, keyframes: s.keyFramesDecoded, plis: s.pliCount, width: s.frameWidth })));
    });
  }

  /** What is sent of each encoding. */
  sending() {
    return this.page.evaluate(async () => {
      const stats = await Promise.all(window.e2e.peerConnections.filter((pc) => pc.connectionState === "connected").map((pc) => pc.getStats()));
      return stats.flatMap((report) => [...report.values()]
        .filter((s) => s.type === "outbound-rtp" && s.kind === "video")
        .map((s) => ({ rid: s.rid, codec: report.get(s.codecId)?.mimeType, mode: s.scalabilityMode, width: s.frameWidth, frames: s.framesEncoded, keys: s.keyFramesEncoded, active: s.active })));
    });
  }
}

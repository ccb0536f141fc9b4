// Real Chromium with a person's camera and microphone, and the app in it.
import { existsSync } from "node:fs";
import { chromium } from "playwright-core";
import { devicesOf, people } from "./people.mjs";
import { forget, hear, look } from "./senses.mjs";
import { eventually, until } from "./wait.mjs";

export const chromiumPath = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"].find(existsSync);

/** A browser process whose every page has this person's devices. */
export async function openBrowser(colour, { args = [], executable = chromiumPath } = {}) {
  const devices = await devicesOf(colour);
  const browser = await chromium.launch({
    executablePath: executable,
    headless: true,
    args: [
      "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
      "--disable-component-update", "--disable-sync", "--autoplay-policy=no-user-gesture-required",
      "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream",
      `--use-file-for-fake-video-capture=${devices.video}`, `--use-file-for-fake-audio-capture=${devices.audio}`,
      // Pages in the background are people too.
      "--disable-backgrounding-occluded-windows", "--disable-renderer-backgrounding", "--disable-background-timer-throttling",
      ...args,
    ],
  });
  return browser;
}

// Runs in the page before anything else: keeps what tests look at and the app does not show.
export function observe() {
  window.e2e = { peerConnections: [], sockets: [], events: [], timeline: [] };
  const RTC = window.RTCPeerConnection;
  window.RTCPeerConnection = class extends RTC {
    constructor(...args) {
      super(...args);
      window.e2e.peerConnections.push(this);
      const note = (what) => window.e2e.timeline.push([Date.now(), what]);
      note("new");
      this.addEventListener("connectionstatechange", () => note(this.connectionState));
      this.addEventListener("signalingstatechange", () => note(this.signalingState));
      this.addEventListener("icegatheringstatechange", () => note("gathering " + this.iceGatheringState));
      this.addEventListener("iceconnectionstatechange", () => note("ice " + this.iceConnectionState));
    }
  };
  const Socket = window.WebSocket;
  window.WebSocket = class extends Socket {
    constructor(...args) {
      super(...args);
      window.e2e.sockets.push(this);
    }
  };
}

/** One tab with the app in it. */
export class Guest {
  /** Opens a room's link and waits for the preview. */
  static async open(browser, link, name, { init, viewport = { width: 960, height: 640 } } = {}) {
    const guest = new Guest();
    guest.name = name;
    guest.link = link;
    guest.errors = [];
    guest.context = await browser.newContext({ viewport, permissions: ["camera", "microphone"] });
    await guest.context.addInitScript(observe);
    if (init) await guest.context.addInitScript(init.script, init.argument);
    guest.page = await guest.context.newPage();
    guest.page.on("pageerror", (error) => guest.errors.push(error.stack ?? error.message));
    await guest.page.goto(link);
    return guest;
  }

  /** The preview's form, filled in and sent. */
  async join() {
    await this.id("preview-name").fill(this.name, { timeout: 20_000 });
    await this.id("preview-join").click();
    await this.joined();
    return this;
  }

  async joined() {
    await until(`${this.name} has joined`, () => this.page.evaluate(() => window.amphi?.room.state.phase === "joined"));
    this.peerId = await this.page.evaluate(() => window.amphi.room.state.selfId);
  }

  /** What has a test id. */
  id(testid) {
    return this.page.getByTestId(testid);
  }

  /** Opens or closes the panel "chat" or "people". */
  async panel(which, open) {
    const button = this.id(`control-${which}`);
    if (((await button.getAttribute("aria-pressed")) === "true") !== open) await button.click();
  }

  /** Evaluates in the page with the SDK's room. */
  room(fn, argument) {
    return this.page.evaluate(
      ([body, arg]) => new Function("room", "arg", `return (${body})(room, arg)`)(window.amphi.room, arg),
      [fn.toString(), argument],
    );
  }

  role() {
    return this.room((room) => room.state.roleName);
  }

  /** Waits until this tab shows a tile of `name` in `colour`, decoded and moving. */
  async sees(name, colour, { source = "camera", timeout = 30_000 } = {}) {
    const selector = `[data-testid="tile"][data-name="${name}"][data-source="${source}"] video`;
    return this.shows(selector, colour, `${this.name} sees ${name} in ${colour}`, timeout);
  }

  async shows(selector, colour, what, timeout = 30_000) {
    const [r, g, b] = people[colour].rgb;
    await forget(this.page, selector);
    return this.eventually(what, () => look(this.page, selector, [{ name: colour, rgb: [r, g, b] }]).then((seen) => ({
      ok: (seen.shares?.[colour] ?? 0) > 0.5 && seen.moved, ...seen,
    })), timeout);
  }

  /** Waits; a failure tells how this tab's transports are. */
  async eventually(what, probe, timeout) {
    try {
      return await eventually(what, probe, { timeout });
    } catch (thrown) {
      throw new Error(`${thrown.message}\n${this.name}: ${await this.diagnosis().catch((error) => error.message)}`);
    }
  }

  /** The state of the room and of each PeerConnection with its candidates, in one line each. */
  diagnosis() {
    return this.page.evaluate(async () => {
      const { phase, transport, roleName } = window.amphi.room.state;
      const now = Date.now();
      const lines = [`phase ${phase}, transport ${transport}, role ${roleName}`];
      for (const pc of window.e2e.peerConnections) {
        const stats = [...(await pc.getStats()).values()].filter((s) => s.type.includes("candidate"));
        const told = stats.map((s) => [s.type, s.state, s.address, s.port, s.candidateType, s.requestsSent, s.responsesReceived]);
        lines.push(`${pc.connectionState} ${pc.signalingState} ${JSON.stringify(told)}`);
      }
      lines.push(window.e2e.timeline.map(([at, what]) => `${at - now} ${what}`).join(", "));
      return lines.join("\n");
    });
  }

  /** Waits until a received audio track has this person's tone. */
  async hears(colour, timeout = 30_000) {
    return this.eventually(`${this.name} hears the tone of ${colour}`, async () => {
      const levels = await hear(this.page, Object.fromEntries(Object.entries(people).map(([c, p]) => [c, p.hz])));
      return { ok: levels.some((l) => l[colour] > l.floor + 20), levels };
    }, timeout);
  }

  /** How many PeerConnections the page has made and not closed. */
  transports() {
    return this.page.evaluate(() => window.e2e.peerConnections.filter((pc) => pc.connectionState !== "closed").length);
  }

  /** How many WebSockets the page has opened. */
  sockets() {
    return this.page.evaluate(() => window.e2e.sockets.length);
  }

  chatTexts() {
    return this.room((room) => room.state.messages.map((m) => m.text));
  }

  async close() {
    await this.context.close();
  }
}

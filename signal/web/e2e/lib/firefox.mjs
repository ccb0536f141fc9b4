// Firefox over WebDriver BiDi, spoken directly: one page, with what the senses need of Playwright's Page.
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import WebSocket from "ws";
import { until } from "./wait.mjs";

export const firefoxPath = ["/usr/bin/firefox-esr", "/usr/bin/firefox"].find(existsSync);

const prefs = {
  "media.navigator.streams.fake": true,
  "media.navigator.permission.disabled": true,
  "media.autoplay.default": 0,
  "media.autoplay.blocking_policy": 0,
  "media.peerconnection.ice.loopback": true,
  "media.peerconnection.ice.obfuscate_host_addresses": false,
  "media.gmp-manager.updateEnabled": false,
  "app.update.auto": false,
  "browser.shell.checkDefaultBrowser": false,
  "browser.startup.homepage_override.mstone": "ignore",
  "datareporting.policy.dataSubmissionEnabled": false,
  "network.captive-portal-service.enabled": false,
  "network.connectivity-service.enabled": false,
  "toolkit.telemetry.reportingpolicy.firstRun": false,
};

export class Firefox {
  /** Starts Firefox whose microphone is a tone of `hz`; its camera is Firefox's own test picture. */
  static async open({ hz }) {
    const firefox = new Firefox();
    firefox.profile = await mkdtemp(join(tmpdir(), "amphi-e2e-firefox-"));
    const lines = Object.entries({ ...prefs, "media.navigator.audio.fake_frequency": hz });
    await writeFile(join(firefox.profile, "user.js"), lines.map(([k, v]) => `user_pref(${JSON.stringify(k)}, ${JSON.stringify(v)});\n`).join(""));
    firefox.output = "";
    firefox.child = spawn(firefoxPath, ["--headless", "--no-remote", "--profile", firefox.profile, "--remote-debugging-port=0"], {
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, HOME: firefox.profile },
    });
    firefox.ended = new Promise((resolve) => firefox.child.once("exit", resolve));
    for (const stream of [firefox.child.stdout, firefox.child.stderr]) stream.on("data", (data) => (firefox.output += data));
    const [, address] = await until("Firefox listens", () => /BiDi listening on (ws:\S+)/.exec(firefox.output), { timeout: 60_000 });
    firefox.socket = new WebSocket(address + "/session");
    firefox.waiting = new Map();
    firefox.next = 1;
    await new Promise((resolve, reject) => firefox.socket.once("open", resolve).once("error", reject));
    firefox.socket.on("message", (data) => firefox.take(JSON.parse(String(data))));
    await firefox.send("session.new", { capabilities: {} });
    const { contexts } = await firefox.send("browsingContext.getTree", {});
    firefox.tab = contexts[0].context;
    return firefox;
  }

  take({ id, result, error, message }) {
    const waiting = this.waiting.get(id);
    if (!waiting) return;
    this.waiting.delete(id);
    if (error) waiting.reject(new Error(`${error}: ${message}`));
    else waiting.resolve(result);
  }

  send(method, params) {
    const id = this.next++;
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject });
      this.socket.send(JSON.stringify({ id, method, params }));
    });
  }

  /** Runs a function in every page before anything else. */
  async addInitScript(fn) {
    await this.send("script.addPreloadScript", { functionDeclaration: fn.toString() });
  }

  async goto(url) {
    await this.send("browsingContext.navigate", { context: this.tab, url, wait: "complete" });
  }

  /** Like Playwright's page.evaluate: argument and result go through JSON. */
  async evaluate(fn, argument) {
    const answer = await this.send("script.callFunction", {
      functionDeclaration: `async (json) => JSON.stringify((await (${fn})(JSON.parse(json))) ?? null)`,
      arguments: [{ type: "string", value: JSON.stringify(argument ?? null) }],
      target: { context: this.tab },
      awaitPromise: true,
      userActivation: true,
    });
    if (answer.type === "exception") throw new Error(answer.exceptionDetails.text);
    return JSON.parse(answer.result.value);
  }

  /** Clicks what has a test id, as soon as it is there and enabled. */
  click(testid) {
    return until(`${testid} can be clicked`, () => this.evaluate((id) => {
      const element = document.querySelector(`[data-testid="${id}"]:not(:disabled)`);
      element?.click();
      return !!element;
    }, testid), { timeout: 30_000 });
  }

  /** Types into an input. */
  fill(testid, text) {
    return until(`${testid} can be filled`, () => this.evaluate(([id, text]) => {
      const element = document.querySelector(`[data-testid="${id}"]`);
      if (!element) return false;
      element.value = text;
      element.dispatchEvent(new Event("input", { bubbles: true }));
      return true;
    }, [testid, text]), { timeout: 30_000 });
  }

  async close() {
    this.socket?.close();
    this.child.kill("SIGTERM");
    const hard = setTimeout(() => this.child.kill("SIGKILL"), 5_000);
    await this.ended;
    clearTimeout(hard);
    await rm(this.profile, { recursive: true, force: true, maxRetries: 5 });
  }
}

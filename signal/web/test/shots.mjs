// Pictures of the app against a running server, to look at:
//   amphi dev | tee dev.log     and then     npm run shots -- dev.log FOLDER
import { mkdirSync, readFileSync } from "node:fs";
import { join as path } from "node:path";
import { join, launch, openPage } from "./browser.mjs";

const [log, folder] = process.argv.slice(2);
if (!log || !folder) throw new Error("wants the output of `amphi dev` in a file, and a folder for the pictures");
const links = Object.fromEntries(
  [...readFileSync(log, "utf8").matchAll(/^ {2}(\w+)\s+(http\S+)/gm)].map(([, name, url]) => [name, url]),
);
mkdirSync(folder, { recursive: true });
const shoot = (page, name) => page.screenshot({ path: path(folder, name + ".png") });
const phone = { width: 390, height: 844 };

const browser = await launch();
try {
  const host = await openPage(browser, "host", { url: links.host });
  await host.getByTestId("self-video").waitFor();
  await shoot(host, "preview");
  await join(host, "Ada Lovelace");
  const speaker = await openPage(browser, "speaker", { url: links.speaker, ...phone, dark: true });
  await speaker.getByTestId("self-video").waitFor();
  await shoot(speaker, "preview-phone-dark");
  await join(speaker, "Grace Hopper");
  const viewer = await openPage(browser, "viewer", { url: links.viewer, dark: true });
  await join(viewer, "Vera Rubin");
  await shoot(viewer, "viewer-waiting-dark");
  await host.getByTestId("control-live").click();
  for (const [page, text] of [[host, "Welcome, everybody!"], [viewer, "Good evening from the last row"]]) {
    await page.getByTestId("chat-input").fill(text);
    await page.keyboard.press("Enter");
  }
  await viewer.waitForFunction(() => document.querySelector("[data-testid=viewer-video]")?.videoWidth > 0);
  await viewer.getByTestId("viewer-latency").waitFor();
  await shoot(viewer, "viewer-dark");
  await shoot(host, "stage");
  await shoot(speaker, "stage-phone-dark");
  await viewer.getByTestId("control-hand").click();
  await host.getByTestId("control-people").click();
  await host.getByTestId("hand-row").waitFor();
  await shoot(host, "hands");
  await host.getByTestId("bring-on-stage").click();
  await viewer.getByTestId("role-dialog").getByTestId("self-video").waitFor();
  await shoot(viewer, "role-dialog-dark");
  const ops = await openPage(browser, "ops", { url: links.ops, width: 1440, height: 900 });
  await ops.getByTestId("tab-DownTracks").click();
  await ops.getByTestId("ops-downtracks").waitFor();
  await shoot(ops, "ops");
} finally {
  await browser.close();
}

// Drives headless Chromium against a running server: for looking at the app, and for trying it with several peers.
import { chromium } from "playwright-core";

const flags = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--use-fake-ui-for-media-stream",
  "--use-fake-device-for-media-stream",
  "--auto-select-desktop-capture-source=Entire screen",
];

export async function launch() {
  return chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: flags });
}

/** Opens a page of its own profile; what it logs and throws is printed with its name. */
export async function openPage(browser, name, { width = 1280, height = 800, dark = false, url, quiet = false }) {
  const context = await browser.newContext({
    viewport: { width, height },
    colorScheme: dark ? "dark" : "light",
    deviceScaleFactor: 1,
    permissions: ["camera", "microphone"],
  });
  const page = await context.newPage();
  if (!quiet) {
    page.on("console", (m) => ["error", "warning"].includes(m.type()) && console.log(`[${name}] ${m.type()}: ${m.text()}`));
    page.on("pageerror", (error) => console.log(`[${name}] threw: ${error.stack ?? error}`));
  }
  await page.goto(url);
  return page;
}

export async function join(page, name) {
  await page.getByTestId("preview-name").fill(name);
  await page.getByTestId("preview-join").click();
  await page.getByTestId("room").waitFor();
}

/** Decoded size and movement of every remote picture of a page: proof that frames arrive. */
export async function pictures(page, testid = "tile-video") {
  return page.evaluate(async (id) => {
    const seen = [];
    for (const video of document.querySelectorAll(`[data-testid=${id}]`)) {
      const before = video.getVideoPlaybackQuality().totalVideoFrames;
      await new Promise((resolve) => setTimeout(resolve, 500));
      const frames = video.getVideoPlaybackQuality().totalVideoFrames - before;
      seen.push({ track: video.dataset.track, width: video.videoWidth, height: video.videoHeight, frames });
    }
    return seen;
  }, testid);
}

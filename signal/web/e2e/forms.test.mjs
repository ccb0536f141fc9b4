// The app in the forms that people meet it: in a frame, on a phone, by keyboard, in the dark, and with a link that doesn't work.
import assert from "node:assert/strict";
import { createServer } from "node:http";
import { after, before, describe, test } from "node:test";
import { Guest, openBrowser } from "./lib/browser.mjs";
import { Platform } from "./lib/platform.mjs";
import { until } from "./lib/wait.mjs";

let platform;
let browser;

before(async () => {
  platform = await Platform.start();
  browser = await openBrowser("green");
});

after(async () => {
  await browser?.close();
  await platform?.stop();
});

describe("the app's forms", { timeout: 120_000 }, () => {
  test("in a frame, with messages to the page around it", async () => {
    const context = await browser.newContext({ viewport: { width: 1000, height: 700 }, permissions: ["camera", "microphone"] });
    const page = await context.newPage();
    // Another site, on this machine so that browsers trust it with cameras.
    const site = createServer((_, answer) => answer.setHeader("Content-Type", "text/html").end("<body></body>"));
    await new Promise((done) => site.listen(0, "127.0.0.1", done));
    await page.goto(`http://127.0.0.1:${site.address().port}/`);
    await page.evaluate((src) => {
      window.heard = [];
      window.addEventListener("message", (event) => event.data?.source === "amphi" && window.heard.push(event.data));
      const frame = document.createElement("iframe");
      Object.assign(frame, { src, allow: "camera; microphone", width: 900, height: 600 });
      document.body.append(frame);
    }, platform.links().speaker.replace("/m/", "/embed/"));
    const frame = page.frameLocator("iframe");
    await frame.getByTestId("preview-name").fill("Framed", { timeout: 20_000 });
    await frame.getByTestId("preview-join").click();
    const joined = await until("the page hears of the join", () =>
      page.evaluate(() => window.heard.find((message) => message.type === "joined")));
    assert.equal(joined.name, "Framed");
    assert.equal(joined.role, "speaker");
    assert.ok(!JSON.stringify(await page.evaluate(() => window.heard)).includes("eyJ"), "no token leaves the frame");
    await context.close();
    await new Promise((done) => site.close(done));
  });

  test("only the embedded form may be framed", async () => {
    const policy = async (path) => (await fetch(platform.url + path)).headers.get("content-security-policy");
    assert.match(await policy("/m/abc-defg-hij"), /frame-ancestors 'none'/);
    assert.doesNotMatch(await policy("/embed/abc-defg-hij"), /frame-ancestors 'none'/);
  });

  for (const colorScheme of ["dark", "light"]) {
    test(`on a phone, by keyboard, ${colorScheme}`, async () => {
      const guest = await Guest.open(browser, platform.links().audience, "Pocket", { viewport: { width: 390, height: 844 } });
      const { page } = guest;
      await page.emulateMedia({ colorScheme });
      await guest.id("preview-name").waitFor({ timeout: 20_000 });
      await guest.id("preview-name").focus();
      await page.keyboard.type("Pocket");
      await page.keyboard.press("Enter");
      await guest.joined();
      const looks = await page.evaluate(() => {
        const [r, g, b] = getComputedStyle(document.body).backgroundColor.match(/\d+/g).map(Number);
        const outside = [...document.querySelectorAll("button, input, select")].filter((element) => {
          const box = element.getBoundingClientRect();
          return box.width > 0 && (box.left < -1 || box.right > innerWidth + 1);
        });
        const nameless = [...document.querySelectorAll("button")].filter(
          (button) => !button.textContent.trim() && !button.getAttribute("aria-label"));
        return { bright: (r + g + b) / 3, wide: document.documentElement.scrollWidth, outside: outside.length, nameless: nameless.length };
      });
      assert.ok(colorScheme === "dark" ? looks.bright < 80 : looks.bright > 180, `background ${looks.bright}`);
      assert.ok(looks.wide <= 390, `${looks.wide} pixels wide`);
      assert.deepEqual([looks.outside, looks.nameless], [0, 0]);
      await page.keyboard.press("Tab");
      assert.notEqual(await page.evaluate(() => document.activeElement?.tagName), "BODY");
      assert.deepEqual(guest.errors, []);
      await guest.close();
    });
  }

  test("a link that never was, and one that was switched off, say so", async () => {
    const page = await (await browser.newContext()).newPage();
    const saysAt = async (address) => {
      await page.goto(address);
      const over = page.getByTestId("over");
      await over.waitFor({ timeout: 20_000 });
      return { code: await over.getAttribute("data-code"), words: await over.innerText() };
    };
    const unknown = await saysAt(platform.url + "/m/aaa-aaaa-aaa");
    assert.equal(unknown.code, "code_unknown");
    assert.match(unknown.words, /link does not work/i);
    const links = await platform.room("closing");
    await platform.text("room", "codes", "closing", "--disable", links.viewer.split("/").at(-1));
    const disabled = await saysAt(links.viewer);
    assert.equal(disabled.code, "code_disabled");
    assert.match(disabled.words, /switched off/i);
    await page.context().close();
  });
});

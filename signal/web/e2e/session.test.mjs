// A session from the first link to the last leave, on real media: three circles in one room, decoded and heard.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { Guest, openBrowser } from "./lib/browser.mjs";
import { people } from "./lib/people.mjs";
import { Platform } from "./lib/platform.mjs";
import { RawClient } from "./lib/raw.mjs";
import { hearElement, look } from "./lib/senses.mjs";
import { importPlayhouse, liveEvent, playhouse } from "./lib/template.mjs";
import { eventually, until } from "./lib/wait.mjs";
import { clickedAt, firstFrame, noteClick, pictureGap, watchPicture } from "./lib/watch.mjs";

const tones = Object.fromEntries(Object.entries(people).map(([colour, p]) => [colour, p.hz]));
const colours = Object.entries(people).map(([name, p]) => ({ name, rgb: p.rgb }));
const video = '[data-testid="viewer-video"]';
const goneFragment = /^TypeError: Cannot read properties of null \(reading 'start'\)\n(\s+at .*\/sdk\/player-.*\n?)+$/;

let platform;
const browsers = [];

before(async () => {
  platform = await Platform.start();
  for (const colour of ["red", "green", "blue"]) browsers.push(await openBrowser(colour));
}, { timeout: 60_000 });

after(async () => {
  await Promise.all(browsers.map((browser) => browser.close()));
  const ended = await platform?.stop();
  assert.ok(ended.ms < 5_000 && ended.code === 0, `Ctrl-C ended it after ${ended.ms} ms with ${ended.code ?? ended.signal}`);
}, { timeout: 60_000 });

test("the platform is ready within 5 s of its start", () => {
  console.log(`# ready after ${platform.readyMs} ms`);
  assert.ok(platform.readyMs < 5_000);
});

/** The composite, as the viewer's browser decodes it, has a tile of each of these colours and no other. */
async function composite(viewer, wanted, timeout = 40_000) {
  return eventually(`${viewer.name} sees tiles of ${wanted}`, async () => {
    const seen = await look(viewer.page, video, colours);
    const there = Object.entries(seen.shares ?? {}).filter(([, share]) => share > 0.08).map(([name]) => name);
    return { ok: seen.moved && there.sort().join() === [...wanted].sort().join(), ...seen };
  }, { timeout, every: 250 });
}

for (const names of [liveEvent, playhouse]) {
  describe(`a session of the template ${names.template}`, { concurrency: false }, () => {
    const [red, green, blue] = [0, 1, 2].map((i) => () => browsers[i]);
    const room = `walk-${names.template}`;
    let links, host, speaker, audience, vera, victor, identity;

    test("links for every role", async () => {
      if (names === playhouse) await importPlayhouse(platform);
      links = await platform.room(room, names.template);
      for (const role of ["host", "speaker", "audience", "viewer"]) assert.ok(links[names[role]], `no link for ${names[role]}`);
    });

    test("host and speaker see and hear each other", { timeout: 120_000 }, async () => {
      host = await Guest.open(red(), links[names.host], "Rita");
      await host.id("preview-name").waitFor();
      await host.shows('[data-testid="self-video"]', "red", "the preview shows the own camera");
      await host.join();
      speaker = await (await Guest.open(green(), links[names.speaker], "Greg")).join();
      await Promise.all([host.sees("Greg", "green"), speaker.sees("Rita", "red")]);
      await Promise.all([host.hears("green"), speaker.hears("red")]);
    });

    test("the audience sees both and can't publish", { timeout: 90_000 }, async () => {
      audience = await (await Guest.open(blue(), links[names.audience], "Anna")).join();
      await audience.sees("Rita", "red");
      await audience.sees("Greg", "green");
      await audience.hears("red");
      await audience.hears("green");
      assert.equal(await audience.id("control-camera").count(), 0, "the audience has a camera button");
      const raw = await RawClient.join(platform.url, links[names.audience], "Mallory");
      assert.equal(await raw.refusal({ publish: { kind: "KIND_VIDEO", source: "camera" } }), "permission_denied");
      await raw.leave();
      const sends = await audience.page.evaluate(() => window.e2e.peerConnections.flatMap((pc) => pc.getSenders()).filter((s) => s.track).length);
      assert.equal(sends, 0, "the audience's browser sends");
    });

    test("the viewer has no PeerConnection and plays the composite once the host goes live", { timeout: 120_000 }, async () => {
      vera = await (await Guest.open(blue(), links[names.viewer], "Vera")).join();
      await vera.id("viewer-waiting").waitFor();
      await host.id("control-live").click();
      await composite(vera, ["red", "green"]);
      const heard = await eventually("the composite has both voices", async () => {
        const levels = await hearElement(vera.page, video, tones);
        return { ok: levels.red > levels.floor + 15 && levels.green > levels.floor + 15, levels };
      });
      assert.ok(heard.levels.blue < heard.levels.green - 15, `nobody speaks in blue: ${JSON.stringify(heard)}`);
      assert.equal(await vera.page.evaluate(() => window.e2e.peerConnections.length), 0);
    });

    test("chat has one order for all four", { timeout: 60_000 }, async () => {
      const guests = [host, speaker, audience, vera];
      await Promise.all(guests.map(async (guest) => {
        await guest.panel("chat", true);
        for (let i = 1; i <= 5; i++) {
          await guest.id("chat-input").fill(`${guest.name} ${i}`);
          await guest.id("chat-send").click();
          await until("it is sent", async () => (await guest.id("chat-input").inputValue()) === "", { every: 20 });
        }
      }));
      const orders = await until("all twenty are everywhere", async () => {
        const all = await Promise.all(guests.map((guest) => guest.chatTexts()));
        return all.every((texts) => texts.length === 20) && all;
      });
      for (const order of orders) assert.deepEqual(order, orders[0]);
      for (const guest of guests) {
        assert.deepEqual(orders[0].filter((text) => text.startsWith(guest.name)), [1, 2, 3, 4, 5].map((i) => `${guest.name} ${i}`));
        assert.deepEqual(await guest.id("chat-text").allTextContents(), orders[0]);
        await guest.panel("chat", false);
      }
    });

    test("reactions and custom events reach everybody", { timeout: 30_000 }, async () => {
      const guests = [host, speaker, audience, vera];
      for (const guest of guests) {
        await guest.page.evaluate(() => window.amphi.room.on("message", (m) => window.e2e.events.push([m.type, m.text, m.senderName])));
      }
      await vera.id("control-react").click();
      await vera.id("react-🎉").click();
      await speaker.page.getByTestId("reaction").first().waitFor();
      await audience.room((room) => room.chat.send('{"x":1}', { type: "x-cursor" }));
      for (const guest of guests) {
        await until(`${guest.name} got both`, async () => {
          const events = JSON.stringify(await guest.page.evaluate(() => window.e2e.events));
          return events.includes('["reaction","🎉","Vera"]') && events.includes('"x-cursor"');
        });
      }
    });

    test("the session store: everybody reads, the role decides who writes, compare-and-set", { timeout: 30_000 }, async () => {
      const revision = await host.room((room) => room.store.set("agenda", { item: 1 }, { ifRevision: 0 }));
      const refused = (guest, key, options) =>
        guest.room((room, [key, options]) => room.store.set(key, "x", options).then(() => "", (error) => error.code), [key, options]);
      assert.equal(await refused(host, "agenda", { ifRevision: 0 }), "conflict");
      assert.ok((await host.room((room, r) => room.store.set("agenda", { item: 2 }, { ifRevision: r }), revision)) > revision);
      assert.equal(await refused(speaker, "shared.note", {}), "");
      assert.equal(await refused(speaker, "agenda", {}), "permission_denied");
      assert.equal(await refused(vera, "shared.note", {}), "permission_denied");
      for (const guest of [speaker, audience, vera]) {
        await until(`${guest.name} reads it`, () => guest.room((room) => room.state.store.get("agenda")?.value === '{"item":2}'));
      }
    });

    test("a raised hand, and on stage with one action", { timeout: 120_000 }, async () => {
      victor = await (await Guest.open(blue(), links[names.viewer], "Victor")).join();
      await composite(victor, ["red", "green"]);
      identity = { peerId: vera.peerId, sockets: await vera.sockets() };
      await vera.id("control-hand").click();
      await host.id("notice-bring-on-stage").click();
      await vera.id("role-dialog").waitFor();
      await vera.shows('[data-testid="role-dialog"] video', "blue", "the dialog shows the own camera");
      await watchPicture(vera.page);
      await noteClick(vera.page, "role-accept");
      const decoded = firstFrame(host.page, '[data-testid="tile"][data-name="Vera"] video', people.blue.rgb);
      await vera.id("role-accept").click();
      const took = (await decoded) - (await clickedAt(vera.page));
      console.log(`# role change, accepted until the host decodes the first frame: ${took} ms`);
      if (took > 3_000) console.log(`# ${(await vera.diagnosis()).replaceAll("\n", "\n# ")}`);
      await host.sees("Vera", "blue");
      await host.hears("blue");
      await vera.sees("Rita", "red");
      await vera.hears("green");
      assert.equal(await vera.role(), names.speaker);
      const gap = await pictureGap(vera.page);
      console.log(`# picture gap on the way to the stage: ${gap.longest} ms, shown: ${gap.kinds}`);
      assert.ok(gap.longest < 250, `no picture for ${gap.longest} ms: ${gap.meanwhile.join("; ")}`);
      await composite(victor, ["red", "green", "blue"]);
    });

    test("removed from stage, the peer plays the stream again", { timeout: 90_000 }, async () => {
      await host.panel("people", true);
      const row = host.page.locator('[data-testid="people-row"][data-name="Vera"]');
      await watchPicture(vera.page);
      await row.getByTestId("person-menu").click();
      await host.id("remove-from-stage").click();
      await until("Vera is off the stage", async () => (await vera.role()) !== names.speaker);
      const role = await vera.role();
      if (role === names.viewer) {
        await composite(vera, ["red", "green"]);
        await until("the transport is closed", async () => (await vera.transports()) === 0);
      } else {
        await vera.sees("Rita", "red");
      }
      const gap = await pictureGap(vera.page);
      console.log(`# picture gap on the way back (${role}): ${gap.longest} ms, shown: ${gap.kinds}`);
      assert.ok(gap.longest < 250, `no picture for ${gap.longest} ms: ${gap.meanwhile.join("; ")}`);
      await composite(victor, ["red", "green"]);
      await host.panel("people", false);
    });

    test("the same from the command line, with the same peer and WebSocket throughout", { timeout: 120_000 }, async () => {
      const moved = await platform.cli("peer", "role", room, vera.peerId, names.speaker, "--force");
      assert.deepEqual(moved.changed, [vera.peerId]);
      await until("Vera is on stage", async () => (await vera.role()) === names.speaker);
      await until("she has the buttons of the stage", () => vera.id("control-camera").count());
      const muted = await vera.room((room) => room.state.peers.get(room.state.selfId).tracks.every((track) => track.muted));
      assert.ok(muted, "forced on stage, and not muted");
      await vera.id("control-camera").click();
      await host.sees("Vera", "blue");
      await platform.cli("peer", "role", room, vera.peerId, names.viewer, "--force");
      await composite(vera, ["red", "green"]);
      assert.deepEqual({ peerId: await vera.room((room) => room.state.selfId), sockets: await vera.sockets() }, identity);
      const { peers } = await platform.cli("peer", "list", room);
      assert.deepEqual(peers.map((p) => p.name).sort(), ["Anna", "Greg", "Rita", "Vera", "Victor"]);
    });

    test("the node tells every DownTrack's layers and reason", { timeout: 30_000 }, async () => {
      const status = await platform.cli("node", "show");
      const here = status.rooms.find((r) => r.name === room);
      const down = here.peers.find((p) => p.name === "Anna").down;
      assert.ok(down.length >= 4, `${down.length} DownTracks to the audience`);
      for (const track of down) {
        assert.ok(track.max >= track.target && track.target >= 0, JSON.stringify(track));
        assert.ok(track.current === track.max || track.reason || track.current === track.target, JSON.stringify(track));
      }
      const stream = status.streams.find((s) => s.room === room);
      assert.equal(stream.stream.name, names.stream);
      assert.ok(stream.latencyMs > 0 && stream.cpuCores > 0, JSON.stringify(stream));
    });

    test("the ops page shows rooms, peers, DownTracks with layers and reason, and the stream", { timeout: 60_000 }, async () => {
      const context = await red().newContext({ viewport: { width: 1400, height: 900 } });
      const page = await context.newPage();
      await page.goto(platform.links().ops);
      const rows = async (tab, table) => {
        await page.getByTestId(`tab-${tab}`).click();
        await page.getByTestId("ops-search").fill(room);
        return (await page.locator(`[data-testid="${table}"] tbody tr`).allInnerTexts()).map((text) => text.split("\t").map((cell) => cell.trim()));
      };
      await until("the room is there", async () => (await rows("Rooms", "ops-rooms")).some((row) => row[0] === room));
      const peers = await rows("Peers", "ops-peers");
      assert.deepEqual(peers.map((row) => row[1]).sort(), ["Anna", "Greg", "Rita", "Vera", "Victor"]);
      const header = await page.getByTestId("tab-DownTracks").click().then(() => page.locator('[data-testid="ops-downtracks"] th').allInnerTexts());
      const [max, current, reason] = ["Max", "Current", "Reason"].map((name) => header.findIndex((text) => text.startsWith(name)));
      const down = (await rows("DownTracks", "ops-downtracks")).filter((row) => row.includes("Anna"));
      assert.ok(down.length >= 4, `${down.length} DownTracks to the audience`);
      for (const row of down) {
        assert.match(row[max], /\d|–|-|none/, row.join(" | "));
        assert.ok(row[current] !== "" && row[reason] !== "", row.join(" | "));
      }
      const streams = await rows("Streams", "ops-streams");
      assert.ok(streams.some((row) => row.includes(room) && row.join(" ").includes(names.stream)), JSON.stringify(streams));
      await context.close();
    });

    test("everybody leaves", { timeout: 30_000 }, async () => {
      await victor.id("control-leave").click();
      await victor.id("over").waitFor();
      await until("the host sees it", async () => !(await host.room((room) => [...room.state.peers.values()].some((p) => p.name === "Victor"))));
      for (const guest of [victor, vera, audience, speaker, host]) {
        // Seen once, and not again in nine runs: hls.js looks at a fragment that is gone, and the player goes on, as was checked above.
        const [known, errors] = [true, false].map((is) => guest.errors.filter((error) => goneFragment.test(error) === is));
        for (const error of known) console.log(`# inside the player's module, at ${guest.name}: ${error.replaceAll("\n", "\n# ")}`);
        assert.deepEqual(errors, [], `errors in the page of ${guest.name}`);
        await guest.close();
      }
    });
  });
}

// What happens in a page between two looks from outside: measured inside the page, on its own clock.

/** Notes for how long the page shows no decoded picture of others, from now on, at every frame that it draws. */
export function watchPicture(page) {
  return page.evaluate(() => {
    const watch = (window.e2e.watch = { last: performance.now(), longest: 0, kinds: new Set(), meanwhile: new Set() });
    cancelAnimationFrame(window.e2e.watching);
    const see = () => {
      window.e2e.watching = requestAnimationFrame(see);
      const now = performance.now();
      const shown = [...document.querySelectorAll("video")].filter((video) => {
        const own = video.closest("[data-testid=tile]")?.dataset.peer === window.amphi.room.state.selfId;
        const box = video.getBoundingClientRect();
        if (video.closest(".beneath") || !video.checkVisibility({ opacityProperty: true })) return false;
        // While a player jumps to the live edge its last picture stays.
        const pictured = video.readyState >= 2 || (video.seeking && video.getVideoPlaybackQuality().totalVideoFrames > 0);
        return !own && video.dataset.testid !== "self-video" && pictured && video.videoWidth > 0 && box.width * box.height > 0;
      });
      for (const video of shown) watch.kinds.add(video.dataset.testid);
      if (shown.length > 0) watch.last = now;
      else {
        const { picture, roleName, transport, streams } = window.amphi.room.state;
        const videos = [...document.querySelectorAll("video")].map((video) => `${video.dataset.testid} ${video.readyState}`);
        const phases = [...streams.values()].map((stream) => stream.phase);
        watch.meanwhile.add(`${roleName} ${transport} shown ${picture.shown} next ${picture.next} stream ${phases} ${videos}`);
      }
      // The time between two frames of a busy page is not a time without picture.
      if (shown.length === 0) watch.longest = Math.max(watch.longest, now - watch.last);
    };
    see();
  });
}

/** The longest time without a picture since watchPicture, in ms, what was shown, and how things stood without one. */
export function pictureGap(page) {
  return page.evaluate(() => {
    cancelAnimationFrame(window.e2e.watching);
    return { longest: Math.round(window.e2e.watch.longest), kinds: [...window.e2e.watch.kinds], meanwhile: [...window.e2e.watch.meanwhile] };
  });
}

/** Waits for the first decoded frame of a colour in an element that may not exist yet; resolves to Date.now() then. */
export function firstFrame(page, selector, rgb, timeout = 30_000) {
  return page.evaluate(
    ([selector, rgb, timeout]) =>
      new Promise((resolve, reject) => {
        const canvas = new OffscreenCanvas(8, 8);
        const context = canvas.getContext("2d", { willReadFrequently: true });
        const end = Date.now() + timeout;
        const timer = setInterval(() => {
          const video = document.querySelector(selector);
          if (Date.now() > end) {
            clearInterval(timer);
            reject(new Error("no frame in time: " + selector));
          }
          if (!video || video.readyState < 2 || !video.videoWidth) return;
          context.drawImage(video, 0, 0, 8, 8);
          const { data } = context.getImageData(0, 0, 8, 8);
          let near = 0;
          for (let i = 0; i < data.length; i += 4) {
            if (rgb.every((c, k) => Math.abs(c - data[i + k]) < 60)) near++;
          }
          if (near < 32) return;
          clearInterval(timer);
          resolve(Date.now());
        }, 20);
      }),
    [selector, rgb, timeout],
  );
}

/** Notes when an element is clicked: `clickedAt` answers Date.now() of then. */
export function noteClick(page, testid) {
  return page.evaluate((testid) => {
    document.addEventListener("click", (event) => {
      if (event.target.closest(`[data-testid="${testid}"]`)) window.e2e.clicked = Date.now();
    }, { capture: true });
  }, testid);
}

export const clickedAt = (page) => page.evaluate(() => window.e2e.clicked);

/** Notes for how long a video element stands still or is not there, from now on; `stillness` answers the longest, in ms. */
export function watchStillness(page, selector) {
  return page.evaluate((selector) => {
    const canvas = new OffscreenCanvas(32, 18);
    const context = canvas.getContext("2d", { willReadFrequently: true });
    const watch = (window.e2e.still = { since: performance.now(), longest: 0 });
    let last = 0;
    clearInterval(window.e2e.stilling);
    window.e2e.stilling = setInterval(() => {
      const now = performance.now();
      const video = document.querySelector(selector);
      if (video?.readyState >= 2 && video.videoWidth) {
        context.drawImage(video, 0, 0, 32, 18);
        const sum = context.getImageData(0, 0, 32, 18).data.reduce((a, b, i) => (a * 31 + b * (i % 7)) % 1_000_000_007, 0);
        if (sum !== last) watch.since = now;
        last = sum;
      }
      watch.longest = Math.max(watch.longest, now - watch.since);
      watch.now = now - watch.since;
    }, 50);
  }, selector);
}

export const stillness = (page) => page.evaluate(() => Math.round(window.e2e.still.longest));

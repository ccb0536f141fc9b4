// Eyes and ears: what a video element really shows, and what a received audio track really sounds like.

/**
 * Draws a video element's present frame small and tells which share of it is near each colour, and whether it changed
 * since the last look at the same element.
 */
export function look(page, selector, colours, region = [0, 0, 1, 1]) {
  return page.evaluate(
    ([selector, colours, [x, y, w, h]]) => {
      const video = document.querySelector(selector);
      if (!video) return { missing: selector };
      if (video.readyState < 2 || !video.videoWidth) return { waiting: video.readyState, time: video.currentTime };
      const [width, height] = [64, 36];
      const canvas = new OffscreenCanvas(width, height);
      const context = canvas.getContext("2d", { willReadFrequently: true });
      const { videoWidth, videoHeight } = video;
      context.drawImage(video, x * videoWidth, y * videoHeight, w * videoWidth, h * videoHeight, 0, 0, width, height);
      const { data } = context.getImageData(0, 0, width, height);
      const shares = Object.fromEntries(colours.map((c) => [c.name, 0]));
      let sum = 0;
      for (let i = 0; i < data.length; i += 4) {
        for (const { name, rgb } of colours) {
          const far = Math.max(...rgb.map((c, k) => Math.abs(c - data[i + k])));
          if (far < 60) shares[name] += 4 / data.length;
        }
        sum = (sum * 31 + data[i] + 3 * data[i + 1] + 7 * data[i + 2]) % 1_000_000_007;
      }
      const moved = video.lastSum !== undefined && video.lastSum !== sum;
      video.lastSum = sum;
      return { shares, moved, size: [videoWidth, videoHeight], time: video.currentTime };
    },
    [selector, colours, region],
  );
}

/** Forgets earlier looks at an element, so that only what changes from now on counts as moved. */
export function forget(page, selector) {
  return page.evaluate((selector) => {
    const video = document.querySelector(selector);
    if (video) delete video.lastSum;
  }, selector);
}

/** For every received live audio track, the peak level in dB at each tone over a second, and the median of the spectrum. */
export function hear(page, tones) {
  return page.evaluate(async (tones) => {
    const context = (window.e2e.audio ??= new AudioContext());
    await context.resume();
    const tracks = window.e2e.peerConnections
      .filter((pc) => pc.connectionState === "connected")
      .flatMap((pc) => pc.getReceivers())
      .map((receiver) => receiver.track)
      .filter((track) => track?.kind === "audio" && track.readyState === "live");
    const known = (window.e2e.ears ??= new Map());
    const ears = tracks.map((track) => {
      if (!known.has(track)) {
        const analyser = context.createAnalyser();
        analyser.fftSize = 4096;
        analyser.smoothingTimeConstant = 0;
        context.createMediaStreamSource(new MediaStream([track])).connect(analyser);
        known.set(track, analyser);
      }
      return known.get(track);
    });
    const results = ears.map(() => ({ ...Object.fromEntries(Object.keys(tones).map((t) => [t, -200])), floor: -200 }));
    for (let i = 0; i < 12; i++) {
      await new Promise((resolve) => setTimeout(resolve, 85));
      ears.forEach((ear, k) => {
        const bins = new Float32Array(ear.frequencyBinCount);
        ear.getFloatFrequencyData(bins);
        const width = context.sampleRate / ear.fftSize;
        for (const [name, hz] of Object.entries(tones)) {
          const at = Math.round(hz / width);
          const level = Math.max(...bins.slice(at - 2, at + 3));
          if (level > results[k][name]) results[k][name] = Math.round(level);
        }
        const audible = [...bins.slice(10, 400)].map((v) => Math.max(v, -150)).sort((a, b) => a - b);
        results[k].floor = Math.max(results[k].floor, Math.round(audible[200]));
      });
    }
    return results;
  }, tones);
}

/** The level of each tone in what a media element plays (for the composite stream). */
export function hearElement(page, selector, tones) {
  return page.evaluate(async ([selector, tones]) => {
    const element = document.querySelector(selector);
    const context = (window.e2e.audio ??= new AudioContext());
    await context.resume();
    const known = (window.e2e.elementEars ??= new WeakMap());
    if (!known.has(element)) {
      const analyser = context.createAnalyser();
      analyser.fftSize = 4096;
      analyser.smoothingTimeConstant = 0;
      const stream = element.captureStream();
      if (stream.getAudioTracks().length === 0) return { waiting: "no audio track" };
      context.createMediaStreamSource(stream).connect(analyser);
      known.set(element, analyser);
    }
    const ear = known.get(element);
    const levels = { ...Object.fromEntries(Object.keys(tones).map((t) => [t, -200])), floor: -200 };
    for (let i = 0; i < 14; i++) {
      await new Promise((resolve) => setTimeout(resolve, 85));
      const bins = new Float32Array(ear.frequencyBinCount);
      ear.getFloatFrequencyData(bins);
      const width = context.sampleRate / ear.fftSize;
      for (const [name, hz] of Object.entries(tones)) {
        const at = Math.round(hz / width);
        levels[name] = Math.max(levels[name], Math.round(Math.max(...bins.slice(at - 2, at + 3))));
      }
      const audible = [...bins.slice(10, 400)].map((v) => Math.max(v, -150)).sort((a, b) => a - b);
      levels.floor = Math.max(levels.floor, Math.round(audible[200]));
    }
    return levels;
  }, [selector, tones]);
}

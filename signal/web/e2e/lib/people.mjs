// Who takes part: each has a colour and a tone, made into files that Chromium takes for camera and microphone.
import { execFile } from "node:child_process";
import { mkdir, rename, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";

const run = promisify(execFile);

/** Colours far apart after any codec; tones that are no multiples of each other. */
export const people = {
  red: { name: "Rita", rgb: [200, 30, 40], hz: 430 },
  green: { name: "Greg", rgb: [30, 160, 50], hz: 890 },
  blue: { name: "Bella", rgb: [40, 60, 210], hz: 1370 },
};

const folder = join(tmpdir(), "amphi-e2e-media");

/** The camera and microphone files of a person, made on first use. */
export async function devicesOf(colour) {
  await mkdir(folder, { recursive: true });
  const { rgb, hz } = people[colour];
  const video = join(folder, `${colour}.mjpeg`);
  const audio = join(folder, `${colour}.wav`);
  const hex = "0x" + rgb.map((c) => c.toString(16).padStart(2, "0")).join("");
  // A white bar runs over the colour, so that a frozen picture can be told from a live one.
  await make(video, [
    "-f", "lavfi", "-i", `color=c=${hex}:size=640x360:rate=20:duration=4`,
    "-f", "lavfi", "-i", "color=c=white:size=640x24:rate=20:duration=4",
    "-filter_complex", "[0][1]overlay=x=0:y='mod(t*84,336)'", "-q:v", "4", "-f", "mjpeg",
  ]);
  // Pulses, because a browser's noise suppression takes a steady tone for noise.
  await make(audio, [
    "-f", "lavfi", "-i", `aevalsrc='0.6*sin(2*PI*${hz}*t)*lt(mod(t,0.6),0.4)':s=48000:d=6`, "-ac", "1", "-f", "wav",
  ]);
  return { video, audio };
}

async function make(file, args) {
  if (await stat(file).catch(() => undefined)) return;
  const part = `${file}.${process.pid}`;
  await run("ffmpeg", ["-v", "error", "-y", ...args, part]);
  await rename(part, file);
}

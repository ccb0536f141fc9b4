import { AmphiError } from "./errors.js";
import type { Playback, PlaybackEvents, StreamCaptions, StreamLevel } from "./playback.js";

/** A stream that the browser plays by itself: Safari on phones, which has no MediaSource. */
export class NativePlayback implements Playback {
  readonly levels: readonly StreamLevel[] = [];
  readonly level = -1;
  readonly bandwidthKbps = undefined;
  readonly targetLatencyS = undefined;

  constructor(
    private readonly element: HTMLVideoElement,
    url: string,
    private readonly events: PlaybackEvents,
  ) {
    element.addEventListener("error", this.failed);
    element.textTracks.addEventListener("addtrack", events.captions);
    element.src = url;
  }

  get dateMs(): number | undefined {
    const start = this.startDateMs;
    return start === undefined ? undefined : start + this.element.currentTime * 1000;
  }

  get captions(): readonly StreamCaptions[] {
    return this.tracks.map((track, index) => ({ index, language: track.language, name: track.label }));
  }

  get caption(): number {
    return this.tracks.findIndex((track) => track.mode === "showing");
  }

  get liveS(): number | undefined {
    const { seekable } = this.element;
    return seekable.length > 0 ? seekable.end(seekable.length - 1) : undefined;
  }

  get startS(): number | undefined {
    return this.element.seekable.length > 0 ? this.element.seekable.start(0) : undefined;
  }

  timeOf(dateMs: number): number | undefined {
    const start = this.startDateMs;
    return start === undefined ? undefined : (dateMs - start) / 1000;
  }

  setLevel(): void {
    // The browser decides.
  }

  setCaption(index: number): void {
    this.tracks.forEach((track, i) => (track.mode = i === index ? "showing" : "disabled"));
  }

  setHoldBack(): void {
    // The browser decides.
  }

  setCatchUp(): void {
    // The browser decides.
  }

  close(): void {
    this.element.removeEventListener("error", this.failed);
    this.element.textTracks.removeEventListener("addtrack", this.events.captions);
  }

  private get tracks(): TextTrack[] {
    return [...this.element.textTracks].filter((track) => track.kind === "subtitles" || track.kind === "captions");
  }

  /** Safari tells the program's date at time 0. */
  private get startDateMs(): number | undefined {
    const start = (this.element as { getStartDate?(): Date }).getStartDate?.().getTime();
    return start === undefined || Number.isNaN(start) ? undefined : start;
  }

  private readonly failed = (): void =>
    this.events.failed(new AmphiError("stream_failed", `the player stopped: ${this.element.error?.message ?? "unknown"}`, true));
}

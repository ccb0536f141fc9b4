import type Hls from "hls.js";
import type { ErrorData } from "hls.js";
import { Emitter } from "./emitter.js";
import { AmphiError } from "./errors.js";

export interface StreamLevel {
  readonly index: number;
  readonly height: number;
  readonly bitrateKbps: number;
}

export interface PlayerEvents {
  /** The first frame, and again whenever it plays after a wait. */
  playing: void;
  /** Nothing new to show. */
  waiting: void;
  /** The browser plays it without sound until somebody clicks. */
  "muted-by-browser": void;
  levels: readonly StreamLevel[];
  error: AmphiError;
}

export interface PlayerConfig {
  /** Server time minus local time in milliseconds, for the latency. */
  clockOffsetMs?(): number;
}

// How long the picture may stand still before the player jumps to the live edge, and before it starts over.
const stallJumpMs = 4_000;
// How far behind the wished latency playing faster gives way to a jump, and how long to leave it alone then.
const catchUpBehindS = 4;
const catchUpPauseMs = 5_000;
const stallReloadMs = 9_000;
const watchIntervalMs = 500;
const reloadPausesMs = [500, 1_000, 2_000, 3_000];

/**
 * Plays a room's low-latency HLS stream in a video element, for as long as it is attached: waits for a playlist that
 * is not there yet, and comes back by itself when the stream breaks off and goes on.
 */
export class StreamPlayer {
  readonly events = new Emitter<PlayerEvents>();
  private hls: Hls | undefined;
  private closed = false;
  private reloads = 0;
  private reloadTimer: ReturnType<typeof setTimeout> | undefined;
  private readonly watch: ReturnType<typeof setInterval>;
  private lastTime = -1;
  private movedMs = Date.now();
  private caughtUpMs = 0;
  private jumped = false;

  constructor(
    readonly element: HTMLVideoElement,
    readonly url: string,
    private readonly config: PlayerConfig = {},
  ) {
    element.playsInline = true;
    element.addEventListener("waiting", this.onWaiting);
    element.addEventListener("playing", this.onPlaying);
    this.watch = setInterval(() => this.watchProgress(), watchIntervalMs);
    void this.load();
  }

  /** Seconds from capture to the screen, by the stream's program date-time; undefined until known. */
  get latencyS(): number | undefined {
    const playing = this.hls?.playingDate ?? nativePlayingDate(this.element);
    if (!playing) return undefined;
    return (Date.now() + (this.config.clockOffsetMs?.() ?? 0) - playing.getTime()) / 1000;
  }

  get levels(): readonly StreamLevel[] {
    return (this.hls?.levels ?? []).map((level, index) => ({
      index,
      height: level.height,
      bitrateKbps: Math.round(level.bitrate / 1000),
    }));
  }

  /** Index of the level played now; -1 unknown. */
  get currentLevel(): number {
    return this.hls?.currentLevel ?? -1;
  }

  /** Plays one level only, or with -1 what the network allows. */
  setLevel(index: number): void {
    if (this.hls) this.hls.nextLevel = index;
  }

  /** Jumps to the live edge. */
  goLive(): void {
    const live = this.hls?.liveSyncPosition;
    if (live) this.element.currentTime = live;
    void this.play();
  }

  /** Turns the sound on. Call from a click. */
  async unmute(): Promise<void> {
    this.element.muted = false;
    await this.element.play();
  }

  close(): void {
    this.closed = true;
    clearInterval(this.watch);
    clearTimeout(this.reloadTimer);
    this.element.removeEventListener("waiting", this.onWaiting);
    this.element.removeEventListener("playing", this.onPlaying);
    this.hls?.destroy();
    this.element.removeAttribute("src");
    this.element.load();
  }

  private readonly onWaiting = (): void => this.events.emit("waiting", undefined);

  private readonly onPlaying = (): void => {
    this.reloads = 0;
    this.events.emit("playing", undefined);
  };

  private async load(): Promise<void> {
    const { default: HlsClass } = await import("hls.js");
    if (this.closed) return;
    if (!HlsClass.isSupported()) {
      // Safari on phones has no MediaSource, and plays HLS itself.
      this.element.src = this.url;
      this.element.addEventListener("error", () => this.reloadSoon(), { once: true });
      return void this.play();
    }
    const hls = new HlsClass({
      lowLatencyMode: true,
      maxLiveSyncPlaybackRate: 1.1,
      backBufferLength: 30,
      startFragPrefetch: true,
    });
    this.hls = hls;
    hls.on(HlsClass.Events.MANIFEST_PARSED, () => {
      this.events.emit("levels", this.levels);
      void this.play();
    });
    hls.on(HlsClass.Events.ERROR, (_name, data) => this.failed(data, HlsClass));
    hls.loadSource(this.url);
    hls.attachMedia(this.element);
  }

  private async play(): Promise<void> {
    try {
      await this.element.play();
    } catch (thrown) {
      if (!(thrown instanceof Error) || thrown.name !== "NotAllowedError" || this.element.muted) return;
      this.element.muted = true;
      this.events.emit("muted-by-browser", undefined);
      await this.element.play().catch(() => undefined);
    }
  }

  private failed(data: ErrorData, HlsClass: typeof Hls): void {
    if (!data.fatal || this.closed) return;
    this.events.emit("error", new AmphiError("stream_failed", `the player stopped: ${data.details}`, true));
    if (data.type === HlsClass.ErrorTypes.MEDIA_ERROR && this.reloads === 0) {
      this.reloads++;
      this.hls?.recoverMediaError();
      return;
    }
    this.reloadSoon();
  }

  private reloadSoon(): void {
    if (this.closed || this.reloadTimer !== undefined) return;
    const pause = reloadPausesMs[Math.min(this.reloads++, reloadPausesMs.length - 1)]!;
    this.reloadTimer = setTimeout(() => {
      this.reloadTimer = undefined;
      this.reload();
    }, pause);
  }

  private reload(): void {
    if (this.closed) return;
    this.movedMs = Date.now();
    this.hls?.destroy();
    this.hls = undefined;
    void this.load();
  }

  /** Playing faster makes up for little only: whoever is far behind, as after a sleep, jumps. */
  private catchUp(now: number): void {
    const hls = this.hls;
    if (!hls || now - this.caughtUpMs < catchUpPauseMs) return;
    if (hls.latency - (hls.targetLatency ?? hls.latency) < catchUpBehindS) return;
    this.caughtUpMs = now;
    const live = hls.liveSyncPosition;
    if (live && live > this.element.currentTime) this.element.currentTime = live;
  }

  private watchProgress(): void {
    const { currentTime, paused } = this.element;
    const now = Date.now();
    if (paused || currentTime !== this.lastTime) {
      this.lastTime = currentTime;
      this.movedMs = now;
      this.jumped = false;
      if (!paused) this.catchUp(now);
      return;
    }
    const stoodMs = now - this.movedMs;
    if (stoodMs > stallReloadMs) return this.reloadSoon();
    if (stoodMs <= stallJumpMs || this.jumped) return;
    this.jumped = true;
    const live = this.hls?.liveSyncPosition;
    if (live && live > currentTime + 0.5) this.element.currentTime = live;
  }
}

/** Safari tells the program date-time of the start. */
function nativePlayingDate(element: HTMLVideoElement): Date | undefined {
  const start = (element as { getStartDate?(): Date }).getStartDate?.();
  if (!start || Number.isNaN(start.getTime())) return undefined;
  return new Date(start.getTime() + element.currentTime * 1000);
}

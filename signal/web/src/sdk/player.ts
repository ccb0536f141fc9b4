import { CueSchedule } from "./cues.js";
import type { StreamCue } from "./cues.js";
import { Emitter } from "./emitter.js";
import { AmphiError, asAmphiError } from "./errors.js";
import { HlsPlayback, supported } from "./hls-playback.js";
import { HoldBackControl } from "./holdback.js";
import { NativePlayback } from "./native-playback.js";
import type { Playback, PlaybackEvents, StreamCaptions, StreamLevel, StreamWindow } from "./playback.js";

export interface PlayerEvents {
  /** The first frame, and again whenever it plays after a wait. */
  playing: void;
  /** Nothing new to show. */
  waiting: void;
  /** The viewer, or the page, stopped the picture. */
  paused: void;
  /** The browser plays it without sound until somebody clicks. */
  "muted-by-browser": void;
  levels: readonly StreamLevel[];
  captions: readonly StreamCaptions[];
  /** The picture has come to a moment that timed metadata belongs to. */
  cue: StreamCue;
  /** Once a second while it plays or waits. */
  stats: PlayerStats;
  /** It broke off; the player goes on trying, unless it was closed. */
  error: AmphiError;
}

export interface PlayerConfig {
  /** Server time minus local time in milliseconds, for the latency. */
  clockOffsetMs?(): number;
  /** Asked for the stream's address when the server does not accept the one in use any more, as its token has run out. */
  refreshUrl?(): Promise<string>;
}

/** How the player does. */
export interface PlayerStats {
  /** Seconds from capture to the screen; undefined until known. */
  readonly latencyS: number | undefined;
  /** How far from the live edge it means to be, in seconds. */
  readonly targetLatencyS: number | undefined;
  /** Seconds that can be shown without another byte. */
  readonly bufferS: number;
  /** Times that the picture stood still for want of data since it first played, and seconds in all. */
  readonly stalls: number;
  readonly stalledS: number;
  readonly level: StreamLevel | undefined;
  readonly bandwidthKbps: number | undefined;
  readonly droppedFrames: number;
  readonly decodedFrames: number;
  /** Times that it started over. */
  readonly reloads: number;
}

// How long the picture may stand still before the player jumps to the live edge, and before it starts over.
const stallJumpMs = 4_000;
const stallReloadMs = 9_000;
// How far behind the wished latency playing faster gives way to a jump, and how long to leave it alone then.
const catchUpBehindS = 4;
const catchUpPauseMs = 5_000;
// Farther behind the live edge than this a viewer who paused is not following any more, and stays where he is.
const followWithinS = 6;
const watchIntervalMs = 250;
const statsEveryMs = 1_000;
const reloadPausesMs = [500, 1_000, 2_000, 3_000];
// Seeking to the oldest picture itself would lose to the window that moves on, by a segment at a time.
const windowMarginS = 4;

/**
 * Plays a room's low-latency HLS stream in a video element, for as long as it is attached: waits for a playlist that
 * is not there yet, stays as near the live edge as network and machine allow, and comes back by itself, to where the
 * viewer was, when the stream breaks off and goes on.
 */
export class StreamPlayer {
  readonly events = new Emitter<PlayerEvents>();
  private playback: Playback | undefined;
  private currentUrl: string;
  private closed = false;
  private reloads = 0;
  private failures = 0;
  private reloadTimer: ReturnType<typeof setTimeout> | undefined;
  private readonly watch: ReturnType<typeof setInterval>;
  private readonly hold = new HoldBackControl(Date.now());
  private readonly cues = new CueSchedule();
  private cueTimer: ReturnType<typeof setTimeout> | undefined;

  // Whether the viewer wants the live edge, or something older.
  private following = true;
  private wantsPause = false;
  private chosenLevel = -1;
  private chosenLanguage: string | undefined;
  private shownMs: number | undefined; // date of the picture that moved last
  private returnToMs: number | undefined; // date to go back to after starting over

  private lastTime = -1;
  private movedMs = Date.now();
  private caughtUpMs = 0;
  private jumped = false;
  private statsMs = 0;
  private started = false; // a frame has been shown
  private stallSinceMs: number | undefined;
  private stalls = 0;
  private stalledMs = 0;

  constructor(
    readonly element: HTMLVideoElement,
    url: string,
    private readonly config: PlayerConfig = {},
  ) {
    this.currentUrl = url;
    element.playsInline = true;
    element.addEventListener("waiting", this.onWaiting);
    element.addEventListener("playing", this.onPlaying);
    element.addEventListener("pause", this.onPause);
    element.addEventListener("play", this.onPlay);
    this.watch = setInterval(() => this.look(), watchIntervalMs);
    this.load();
  }

  /** Address of the multivariant playlist in use. */
  get url(): string {
    return this.currentUrl;
  }

  /** Seconds from capture to the screen, by the stream's program date-time; undefined until known. */
  get latencyS(): number | undefined {
    const dateMs = this.playback?.dateMs;
    return dateMs === undefined ? undefined : (Date.now() + (this.config.clockOffsetMs?.() ?? 0) - dateMs) / 1000;
  }

  get levels(): readonly StreamLevel[] {
    return this.playback?.levels ?? [];
  }

  /** Index of the level played now; -1 unknown. */
  get currentLevel(): number {
    return this.playback?.level ?? -1;
  }

  /** Plays one level only, or with -1 what network and size on the screen allow. */
  setLevel(index: number): void {
    this.chosenLevel = index;
    this.playback?.setLevel(index);
  }

  get captions(): readonly StreamCaptions[] {
    return this.playback?.captions ?? [];
  }

  /** Index of the captions shown; -1 none. */
  get currentCaptions(): number {
    return this.playback?.caption ?? -1;
  }

  /** Shows captions, or with -1 none. */
  setCaptions(index: number): void {
    this.chosenLanguage = this.captions.find((c) => c.index === index)?.language;
    this.playback?.setCaption(index);
  }

  /** What can be gone back to and where the picture is in it; undefined until known. */
  get window(): StreamWindow | undefined {
    const { liveS, startS } = this.playback ?? {};
    if (liveS === undefined || startS === undefined) return undefined;
    return { lengthS: Math.max(0, liveS - startS), behindS: Math.max(0, liveS - this.element.currentTime) };
  }

  /** Whether it keeps to the live edge; otherwise it plays what was, where the viewer went. */
  get isLive(): boolean {
    return this.following;
  }

  get paused(): boolean {
    return this.element.paused;
  }

  /** Goes to so many seconds behind the live edge, or to a moment of the program; as near as there is something. */
  seek(to: number | Date): void {
    const { liveS, startS } = this.playback ?? {};
    if (!this.playback || liveS === undefined || startS === undefined) return;
    const wanted = to instanceof Date ? this.playback.timeOf(to.getTime()) : liveS - to;
    if (wanted === undefined) return;
    this.follow(wanted >= liveS - 0.5);
    this.element.currentTime = this.following ? liveS : Math.max(wanted, Math.min(startS + windowMarginS, liveS));
  }

  /** Goes to the live edge and stays there. */
  goLive(): void {
    const live = this.playback?.liveS;
    this.follow(true);
    if (live !== undefined) this.element.currentTime = live;
    void this.play();
  }

  pause(): void {
    this.element.pause();
  }

  /** Plays on: at the live edge after a short pause, else where it was paused while that is in the window. */
  async play(): Promise<void> {
    this.wantsPause = false;
    try {
      await this.element.play();
    } catch (thrown) {
      if (!(thrown instanceof Error) || thrown.name !== "NotAllowedError" || this.element.muted) return;
      this.element.muted = true;
      this.events.emit("muted-by-browser", undefined);
      await this.element.play().catch(() => undefined);
    }
  }

  /** Turns the sound on. Call from a click. */
  async unmute(): Promise<void> {
    this.element.muted = false;
    await this.element.play();
  }

  /** How it does. Cheap; `events` has the same once a second. */
  stats(): PlayerStats {
    const { element, playback } = this;
    const quality = element.getVideoPlaybackQuality?.();
    const stalledMs = this.stalledMs + (this.stallSinceMs === undefined ? 0 : Date.now() - this.stallSinceMs);
    return {
      latencyS: this.latencyS,
      targetLatencyS: playback?.targetLatencyS,
      bufferS: bufferAhead(element),
      stalls: this.stalls,
      stalledS: stalledMs / 1000,
      level: this.levels.find((l) => l.index === this.currentLevel),
      bandwidthKbps: playback?.bandwidthKbps,
      droppedFrames: quality?.droppedVideoFrames ?? 0,
      decodedFrames: quality?.totalVideoFrames ?? 0,
      reloads: this.reloads,
    };
  }

  close(): void {
    this.closed = true;
    clearInterval(this.watch);
    clearTimeout(this.reloadTimer);
    clearTimeout(this.cueTimer);
    this.element.removeEventListener("waiting", this.onWaiting);
    this.element.removeEventListener("playing", this.onPlaying);
    this.element.removeEventListener("pause", this.onPause);
    this.element.removeEventListener("play", this.onPlay);
    this.playback?.close();
    this.playback = undefined;
    this.element.removeAttribute("src");
    this.element.load();
  }

  private readonly onWaiting = (): void => {
    // Where a seek goes nothing is there yet: that is no stall.
    if (this.started && !this.element.seeking && this.stallSinceMs === undefined) {
      this.stallSinceMs = Date.now();
      this.stalls++;
      // It has fallen behind by the stall: from here on it stays there.
      if (this.following && this.hold.stalled(this.stallSinceMs)) this.playback?.setHoldBack(this.hold.current);
    }
    this.events.emit("waiting", undefined);
  };

  private readonly onPlaying = (): void => {
    this.started = true;
    this.failures = 0;
    this.endStall();
    this.events.emit("playing", undefined);
  };

  private readonly onPause = (): void => {
    this.wantsPause = true;
    this.events.emit("paused", undefined);
  };

  private readonly onPlay = (): void => {
    if (!this.wantsPause) return;
    this.wantsPause = false;
    const behindS = this.window?.behindS ?? 0;
    if (!this.following || behindS < 1) return;
    if (behindS > followWithinS && this.canGoBack(behindS)) this.follow(false);
    else this.goLive();
  };

  private canGoBack(behindS: number): boolean {
    return behindS < (this.window?.lengthS ?? 0) - windowMarginS;
  }

  private endStall(): void {
    if (this.stallSinceMs !== undefined) this.stalledMs += Date.now() - this.stallSinceMs;
    this.stallSinceMs = undefined;
  }

  private follow(on: boolean): void {
    this.following = on;
    this.playback?.setCatchUp(on);
  }

  private load(): void {
    if (this.closed) return;
    this.playback = supported()
      ? new HlsPlayback(this.element, this.currentUrl, this.hold.current, this.heard)
      : new NativePlayback(this.element, this.currentUrl, this.heard);
    this.playback.setCatchUp(this.following);
    if (!this.wantsPause) void this.play();
  }

  private readonly heard: PlaybackEvents = {
    levels: () => {
      if (this.chosenLevel >= 0) this.playback?.setLevel(this.chosenLevel);
      this.events.emit("levels", this.levels);
    },
    captions: () => {
      const again = this.captions.find((c) => c.language === this.chosenLanguage);
      this.playback?.setCaption(again?.index ?? -1);
      this.events.emit("captions", this.captions);
    },
    cue: (cue) => this.cues.add(cue),
    failed: (error) => {
      if (this.closed) return;
      this.events.emit("error", error);
      this.reloadSoon(error.code === "unauthenticated");
    },
  };

  private reloadSoon(refresh = false): void {
    if (this.closed || this.reloadTimer !== undefined) return;
    const pause = reloadPausesMs[Math.min(this.failures++, reloadPausesMs.length - 1)]!;
    this.reloadTimer = setTimeout(() => {
      this.reloadTimer = undefined;
      void this.reload(refresh);
    }, pause);
  }

  private async reload(refresh: boolean): Promise<void> {
    if (this.closed) return;
    this.movedMs = Date.now();
    this.reloads++;
    if (!this.following) this.returnToMs = this.shownMs;
    this.playback?.close();
    this.playback = undefined;
    if (refresh && this.config.refreshUrl) {
      try {
        this.currentUrl = await this.config.refreshUrl();
      } catch (thrown) {
        this.events.emit("error", asAmphiError(thrown));
        return this.reloadSoon(true);
      }
    }
    this.load();
  }

  /** Goes back to where the viewer was before the player started over, as soon as it is known where that is. */
  private goBack(): void {
    if (this.returnToMs === undefined || this.playback?.liveS === undefined) return;
    this.seek(new Date(this.returnToMs));
    this.returnToMs = undefined;
  }

  private look(): void {
    const now = Date.now();
    this.goBack();
    this.giveCues();
    if (now - this.statsMs >= statsEveryMs) {
      this.statsMs = now;
      this.events.emit("stats", this.stats());
    }
    const { currentTime, paused } = this.element;
    if (paused || currentTime !== this.lastTime) {
      this.lastTime = currentTime;
      this.movedMs = now;
      this.jumped = false;
      if (paused) return;
      // Not while it waits to go back, nor of an element that somebody has emptied: its time is 0.
      if (this.returnToMs === undefined && currentTime > 0) this.shownMs = this.playback?.dateMs ?? this.shownMs;
      this.endStall();
      this.stayNear(now);
      return;
    }
    const stoodMs = now - this.movedMs;
    if (stoodMs > stallReloadMs) return this.reloadSoon();
    if (stoodMs <= stallJumpMs || this.jumped || !this.following) return;
    this.jumped = true;
    const live = this.playback?.liveS;
    if (live !== undefined && live > currentTime + 0.5) this.element.currentTime = live;
  }

  /** Playing faster makes up for little only: whoever is far behind, as after a sleep, jumps. */
  private stayNear(now: number): void {
    if (!this.following) return;
    if (this.hold.played(now)) this.playback?.setHoldBack(this.hold.current);
    const behindS = this.window?.behindS ?? 0;
    if (behindS < catchUpBehindS || now - this.caughtUpMs < catchUpPauseMs) return;
    this.caughtUpMs = now;
    const live = this.playback?.liveS;
    if (live !== undefined) this.element.currentTime = live;
  }

  private giveCues(): void {
    clearTimeout(this.cueTimer);
    const dateMs = this.playback?.dateMs;
    if (dateMs === undefined || this.element.paused) return;
    for (const cue of this.cues.reach(dateMs)) this.events.emit("cue", cue);
    const next = this.cues.nextMs;
    // Between two looks: on time for the picture, not up to a look late.
    if (next !== undefined && next - dateMs < watchIntervalMs) this.cueTimer = setTimeout(() => this.giveCues(), Math.max(1, next - dateMs));
  }
}

function bufferAhead({ buffered, currentTime }: HTMLVideoElement): number {
  for (let i = 0; i < buffered.length; i++) {
    if (buffered.start(i) <= currentTime + 0.1 && buffered.end(i) > currentTime) return buffered.end(i) - currentTime;
  }
  return 0;
}

import Hls from "hls.js";
import type { DateRange, ErrorData, LevelDetails } from "hls.js";
import type { StreamCue } from "./cues.js";
import { AmphiError } from "./errors.js";
import type { HoldBack } from "./holdback.js";
import type { Playback, PlaybackEvents, StreamCaptions, StreamLevel } from "./playback.js";

const catchUpRate = 1.1;
const hidden = ["ID", "CLASS", "START-DATE", "DURATION", "END-DATE", "PLANNED-DURATION", "END-ON-NEXT", "CUE"];

/** Whether the browser has what hls.js needs; Safari on phones has not. */
export function supported(): boolean {
  return Hls.isSupported();
}

/** A stream in a video element by hls.js. */
export class HlsPlayback implements Playback {
  private readonly hls: Hls;
  private recovered = false;

  constructor(
    element: HTMLVideoElement,
    url: string,
    private hold: HoldBack,
    private readonly events: PlaybackEvents,
  ) {
    const hls = (this.hls = new Hls({
      lowLatencyMode: hold.lowLatency,
      maxLiveSyncPlaybackRate: catchUpRate,
      // The player decides about distance: hls.js would never come near again.
      liveSyncOnStallIncrease: 0,
      backBufferLength: 30,
      startFragPrefetch: true,
      capLevelToPlayerSize: true, // of what it chooses itself
      // Parts of hls.js that Amphi's streams have no use for: they would look at every playlist and position.
      interstitialsController: undefined,
      emeController: undefined,
      cmcdController: undefined,
      contentSteeringController: undefined,
    }));
    hls.on(Hls.Events.MANIFEST_PARSED, () => events.levels());
    hls.on(Hls.Events.SUBTITLE_TRACKS_UPDATED, () => events.captions());
    hls.on(Hls.Events.LEVEL_UPDATED, (_name, { details }) => this.updated(details));
    hls.on(Hls.Events.ERROR, (_name, data) => this.failed(data));
    hls.loadSource(url);
    hls.attachMedia(element);
  }

  get dateMs(): number | undefined {
    return this.hls.playingDate?.getTime();
  }

  get levels(): readonly StreamLevel[] {
    return this.hls.levels.map((level, index) => ({ index, height: level.height, bitrateKbps: Math.round(level.bitrate / 1000) }));
  }

  get level(): number {
    return this.hls.currentLevel;
  }

  get captions(): readonly StreamCaptions[] {
    return this.hls.subtitleTracks.map((track, index) => ({ index, language: track.lang ?? "", name: track.name }));
  }

  get caption(): number {
    return this.hls.subtitleTrack;
  }

  get liveS(): number | undefined {
    return this.hls.liveSyncPosition ?? undefined;
  }

  get startS(): number | undefined {
    return this.details?.fragments[0]?.start;
  }

  get targetLatencyS(): number | undefined {
    return this.hls.targetLatency ?? undefined;
  }

  get bandwidthKbps(): number | undefined {
    const estimate = this.hls.bandwidthEstimate;
    return Number.isFinite(estimate) ? Math.round(estimate / 1000) : undefined;
  }

  timeOf(dateMs: number): number | undefined {
    // Fragments are in order, also of their dates: a program's time never goes back.
    const before = this.details?.fragments.filter((f) => f.programDateTime !== null && f.programDateTime <= dateMs).at(-1);
    const fragment = before ?? this.details?.fragments[0];
    if (!fragment || fragment.programDateTime === null) return undefined;
    return fragment.start + Math.max(0, dateMs - fragment.programDateTime) / 1000;
  }

  setLevel(index: number): void {
    this.hls.nextLevel = index;
  }

  setCaption(index: number): void {
    this.hls.subtitleTrack = index;
  }

  setHoldBack(hold: HoldBack): void {
    this.hold = hold;
    this.hls.lowLatencyMode = hold.lowLatency;
  }

  setCatchUp(on: boolean): void {
    this.hls.config.maxLiveSyncPlaybackRate = on ? catchUpRate : 1;
  }

  close(): void {
    this.hls.destroy();
  }

  private get details(): LevelDetails | undefined {
    return this.hls.latestLevelDetails ?? undefined;
  }

  private updated(details: LevelDetails): void {
    const wanted = this.hold.lowLatency && details.partHoldBack > 0 ? details.partHoldBack * this.hold.factor : details.holdBack;
    // Setting it forgets what hls.js knows, so only when it differs.
    if (wanted > 0 && Math.abs((this.hls.targetLatency ?? 0) - wanted) > 0.01) this.hls.targetLatency = wanted;
    for (const range of Object.values(details.dateRanges)) if (range) this.events.cue(cueOf(range));
  }

  private failed(data: ErrorData): void {
    if (!data.fatal) return;
    if (data.type === Hls.ErrorTypes.MEDIA_ERROR && !this.recovered) {
      this.recovered = true;
      this.hls.recoverMediaError();
      return;
    }
    const status = data.response?.code ?? 0;
    const refused = status === 401 || status === 403;
    this.events.failed(
      refused
        ? new AmphiError("unauthenticated", "this stream may not be played with this address any more", true)
        : new AmphiError("stream_failed", `the player stopped: ${data.details}`, true),
    );
  }
}

/** A text as the server escapes it for quoted strings; others may have a lone "%" in theirs. */
function decoded(value: string): string {
  try {
    return decodeURIComponent(value);
  } catch {
    return value;
  }
}

function cueOf(range: DateRange): StreamCue {
  const data: Record<string, string> = {};
  for (const [name, value] of Object.entries(range.attr)) {
    if (hidden.includes(name) || typeof value !== "string") continue;
    data[name.replace(/^X-/, "").toLowerCase()] = decoded(value);
  }
  const cue = { id: range.id, type: range.class, startMs: range.startDate.getTime(), data };
  return range.duration === null ? cue : { ...cue, durationMs: range.duration * 1000 };
}

import type { StreamCue } from "./cues.js";
import type { AmphiError } from "./errors.js";
import type { HoldBack } from "./holdback.js";

/** A quality that the stream can be played at. */
export interface StreamLevel {
  readonly index: number;
  readonly height: number;
  readonly bitrateKbps: number;
}

/** Captions that the stream carries. */
export interface StreamCaptions {
  readonly index: number;
  readonly language: string;
  readonly name: string;
}

/** Where the picture is in what can be played, in seconds. */
export interface StreamWindow {
  /** Length of what can be gone back to, from the oldest picture to the live edge. */
  readonly lengthS: number;
  /** How far behind the live edge the picture is. */
  readonly behindS: number;
}

/** What a means of playing tells the player. */
export interface PlaybackEvents {
  levels(): void;
  captions(): void;
  /** The stream listed a cue. */
  cue(cue: StreamCue): void;
  /** It cannot go on by itself. */
  failed(error: AmphiError): void;
}

/**
 * A means of playing a stream in a video element, from its making until `close`. Times are seconds of the element's
 * time line; dates are milliseconds since 1970.
 */
export interface Playback {
  /** Date of the picture that is shown. */
  readonly dateMs: number | undefined;
  readonly levels: readonly StreamLevel[];
  readonly level: number;
  readonly captions: readonly StreamCaptions[];
  readonly caption: number;
  /** Where a player that follows the stream should be. */
  readonly liveS: number | undefined;
  /** The oldest moment that can be played. */
  readonly startS: number | undefined;
  /** How far from the live edge the player means to be, in seconds. */
  readonly targetLatencyS: number | undefined;
  readonly bandwidthKbps: number | undefined;
  timeOf(dateMs: number): number | undefined;
  setLevel(index: number): void;
  setCaption(index: number): void;
  setHoldBack(hold: HoldBack): void;
  /** Whether playing faster may make up for a delay. */
  setCatchUp(on: boolean): void;
  close(): void;
}

import { heard, pairsOf } from "./pairs.js";
import type { Pairs } from "./pairs.js";
import type { Platform } from "./platform.js";

const beatMs = 250;
/**
 * How long nothing may come on a path on which something came all the time, and on one that is quiet by itself: there
 * only the answers to a browser's checks come, every 2.5 s (Chromium) to 6 s (Firefox).
 */
const busyPatienceMs = 800;
const quietPatienceMs = 7_000;
/** So many beats in a row with news make a path busy. */
const busyBeats = 4;

export interface PulseObserver {
  /** Nothing has come for too long: the path is broken, long before ICE says so. */
  silent(): void;
  /** Something came again after that. */
  heard(): void;
}

/** Listens whether anything arrives on a connected RTCPeerConnection. */
export class Pulse {
  /** Nothing has come for too long. */
  silent = false;

  private readonly end: () => void;
  private heardMs: number;
  private beats = 0;
  private looking = false;
  private sources = "";
  private pairs: Pairs | undefined; // at the last beat, if it looked

  constructor(
    private readonly platform: Platform,
    private readonly pc: RTCPeerConnection,
    private readonly observer: PulseObserver,
  ) {
    this.heardMs = platform.now();
    this.end = platform.every(beatMs, () => void this.beat());
  }

  stop(): void {
    this.end();
    this.looking = true;
  }

  /** What comes may be less from now on, for a good reason: the path does not count as busy until it is again. */
  calm(): void {
    this.beats = 0;
  }

  private async beat(): Promise<void> {
    if (this.looking) return;
    if (this.pc.connectionState !== "connected") {
      this.beats = 0;
      this.heardMs = this.platform.now();
      return;
    }
    this.looking = true;
    const news = this.played() || (await this.received());
    if (this.pc.signalingState === "closed") return;
    this.looking = false;
    const nowMs = this.platform.now();
    if (news) {
      this.beats = nowMs - this.heardMs < 2 * beatMs + 100 ? this.beats + 1 : 0;
      this.heardMs = nowMs;
      if (this.silent) {
        this.silent = false;
        this.observer.heard();
      }
      return;
    }
    if (this.silent || nowMs - this.heardMs < (this.beats >= busyBeats ? busyPatienceMs : quietPatienceMs)) return;
    this.silent = true;
    this.observer.silent();
  }

  /** Whether media went on to where it is played: that costs nothing to ask. */
  private played(): boolean {
    const newest = this.pc
      .getReceivers()
      .flatMap((receiver) => receiver.getSynchronizationSources?.() ?? [])
      .map((source) => source.rtpTimestamp)
      .join();
    if (newest === this.sources) return false;
    this.sources = newest;
    this.pairs = undefined;
    return newest !== "";
  }

  /** Whether anything came since the last beat. What came before it may be long ago. */
  private async received(): Promise<boolean> {
    const before = this.pairs;
    this.pairs = await pairsOf(this.pc);
    return before !== undefined && heard(before, this.pairs);
  }
}

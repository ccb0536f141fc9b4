/** How a player should keep its distance from the live edge. */
export interface HoldBack {
  /** Times the distance that the stream asks for. */
  readonly factor: number;
  /** Whether parts are loaded, or whole segments only. */
  readonly lowLatency: boolean;
}

const steps: readonly HoldBack[] = [
  { factor: 1, lowLatency: true },
  { factor: 5 / 3, lowLatency: true },
  { factor: 8 / 3, lowLatency: true },
  { factor: 1, lowLatency: false },
];
const stallsWithinMs = 30_000;
const firstCalmMs = 60_000;
const longestCalmMs = 16 * 60_000;

/**
 * Decides how far from the live edge a player stays: two stalls within half a minute move it a step away, a minute of
 * calm a step back; each step back that was in vain doubles the calm that the next one takes, up to 16 minutes. Pure:
 * the caller has the clock, in milliseconds.
 */
export class HoldBackControl {
  private step = 0;
  private stalls: number[] = [];
  private calmSinceMs: number;
  private calmMs = firstCalmMs;
  private steppedBackMs = -Infinity;

  constructor(nowMs: number) {
    this.calmSinceMs = nowMs;
  }

  get current(): HoldBack {
    return steps[this.step]!;
  }

  /** The picture stood still for want of data. Returns whether `current` changed. */
  stalled(nowMs: number): boolean {
    this.calmSinceMs = nowMs;
    this.stalls = this.stalls.filter((at) => nowMs - at < stallsWithinMs);
    this.stalls.push(nowMs);
    if (this.stalls.length < 2 || this.step === steps.length - 1) return false;
    this.stalls = [];
    if (nowMs - this.steppedBackMs < this.calmMs) this.calmMs = Math.min(2 * this.calmMs, longestCalmMs);
    this.step++;
    return true;
  }

  /** It plays. Call now and then; returns whether `current` changed. */
  played(nowMs: number): boolean {
    if (this.step === 0 || nowMs - this.calmSinceMs < this.calmMs) return false;
    this.calmSinceMs = this.steppedBackMs = nowMs;
    this.step--;
    return true;
  }
}

import type { Delivery } from "./model.js";

// A picture that never comes must not keep the old one for ever.
const patienceMs = 8_000;

/**
 * Make before break between WebRTC and HLS: the old picture is shown until the new one plays. The app draws what
 * `changed` tells: `shown` visibly, `next`, where it differs, laid out beneath it.
 */
export class Handover {
  private shown: Delivery = "none";
  private next: Delivery = "none";
  private timer: ReturnType<typeof setTimeout> | undefined;

  /** @param changed is told the new state; when both are equal the old picture may be torn down */
  constructor(private readonly changed: (shown: Delivery, next: Delivery) => void) {}

  /** Aims at a delivery. With nothing worth keeping on the screen it is shown at once. */
  aim(delivery: Delivery): void {
    clearTimeout(this.timer);
    this.next = delivery;
    if (this.shown === "none" || delivery === "none") this.shown = delivery;
    if (this.shown !== this.next) this.timer = setTimeout(() => this.ready(delivery), patienceMs);
    this.changed(this.shown, this.next);
  }

  /** The picture of this delivery plays now. */
  ready(delivery: Delivery): void {
    if (delivery !== this.next || this.shown === this.next) return;
    clearTimeout(this.timer);
    this.shown = this.next;
    this.changed(this.shown, this.next);
  }

  stop(): void {
    clearTimeout(this.timer);
  }
}

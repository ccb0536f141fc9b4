import type { MediaEncryption } from "./encryption.js";
import type { Kind, Source } from "./model.js";
import { activeEncodings, withLayers } from "./publishing.js";

const drainMs = 300;

/** A sending section of one of our sources. */
export interface Section {
  readonly source: Source;
  readonly transceiver: RTCRtpTransceiver;
  /** The server's id of what it carries; empty while nothing is published on it. */
  trackId: string;
}

export interface TransportObserver {
  stateChanged(state: RTCPeerConnectionState): void;
  /** Asks the server for the answer to an offer. */
  negotiate(offer: { sdp: string; publish: { mid: string; trackId: string }[]; generation: number }): Promise<string>;
}

/**
 * One RTCPeerConnection, from its making to its end. It always offers; changes made while an offer is on its way are
 * in the next one.
 */
export class Transport {
  readonly sections = new Map<Source, Section>();
  private readonly slots: Record<Kind, RTCRtpTransceiver[]> = { audio: [], video: [] };
  private running: Promise<void> | undefined;
  private again = false;
  private restartIce = false;
  private closed = false;
  // Browsers refuse parameters of before the last change: one after the other.
  private activating: Promise<void> = Promise.resolve();

  constructor(
    readonly pc: RTCPeerConnection,
    readonly generation: number,
    private readonly observer: TransportObserver,
    private readonly encryption?: MediaEncryption,
  ) {
    pc.onconnectionstatechange = () => {
      if (!this.closed) observer.stateChanged(pc.connectionState);
    };
  }

  get state(): RTCPeerConnectionState {
    return this.closed ? "closed" : this.pc.connectionState;
  }

  /** Makes sure that there are at least so many receiving sections; true when some were added. */
  growSlots(audio: number, video: number): boolean {
    const before = this.slots.audio.length + this.slots.video.length;
    while (this.slots.audio.length < audio) this.addSlot("audio");
    while (this.slots.video.length < video) this.addSlot("video");
    return this.slots.audio.length + this.slots.video.length > before;
  }

  /** What the receiving section `mid` receives. */
  receiver(mid: string): MediaStreamTrack | undefined {
    return this.slotTransceivers().find((transceiver) => transceiver.mid === mid)?.receiver.track;
  }

  get slotCount(): number {
    return this.slotTransceivers().length;
  }

  /** The source's sending section, made on first use. */
  section(source: Source, make: () => RTCRtpTransceiver): Section {
    let section = this.sections.get(source);
    if (!section) {
      const transceiver = make();
      this.encryption?.take(transceiver, "send");
      this.sections.set(source, (section = { source, transceiver, trackId: "" }));
    }
    return section;
  }

  /**
   * Ends a source's sending section; the next new one takes its place in the offer. A section is never used for a
   * second track: its SSRCs would come without the extensions that say what they are. It is offered as ended only
   * after what is on the way has arrived.
   */
  async vacate(source: Source): Promise<void> {
    const ended = this.sections.get(source);
    if (!ended) return;
    this.sections.delete(source);
    await ended.transceiver.sender.replaceTrack(null);
    await new Promise((resolve) => setTimeout(resolve, drainMs));
    if (!this.closed) ended.transceiver.stop();
  }

  /** Turns encodings on or off: layers up to `maxSpatial` (0 lowest) are sent, -1 sends none. */
  activate(source: Source, maxSpatial: number): Promise<void> {
    const done = this.activating.then(() => this.setActive(source, maxSpatial));
    this.activating = done.catch(() => undefined);
    return done;
  }

  private async setActive(source: Source, maxSpatial: number): Promise<void> {
    const sender = this.sections.get(source)?.transceiver.sender;
    if (!sender || this.closed) return;
    const parameters = sender.getParameters();
    if (!parameters.encodings?.length) return;
    const active = activeEncodings(parameters.encodings, maxSpatial);
    if (parameters.encodings.every((encoding, i) => (encoding.active ?? true) === active[i])) return;
    parameters.encodings.forEach((encoding, i) => (encoding.active = active[i]!));
    await sender.setParameters(parameters);
  }

  /** Offers until the server has seen everything. Throws what the server refused. */
  async negotiate(options: { restartIce?: boolean } = {}): Promise<void> {
    this.restartIce ||= options.restartIce ?? false;
    if (this.running) {
      this.again = true;
      return this.running;
    }
    this.running = this.negotiateUntilDone().finally(() => (this.running = undefined));
    return this.running;
  }

  close(): void {
    this.closed = true;
    this.pc.onconnectionstatechange = null;
    this.pc.close();
  }

  private async negotiateUntilDone(): Promise<void> {
    do {
      this.again = false;
      await this.negotiateOnce();
    } while (this.again && !this.closed);
  }

  private async negotiateOnce(): Promise<void> {
    const iceRestart = this.restartIce;
    this.restartIce = false;
    const offer = await this.pc.createOffer({ iceRestart });
    if (this.closed) return;
    await this.pc.setLocalDescription(offer);
    const publish: { mid: string; trackId: string }[] = [];
    for (const { trackId, transceiver } of this.sections.values()) {
      if (trackId && transceiver.mid) publish.push({ mid: transceiver.mid, trackId });
    }
    try {
      const sdp = await this.observer.negotiate({ sdp: offer.sdp ?? "", publish, generation: this.generation });
      if (!this.closed) await this.pc.setRemoteDescription({ type: "answer", sdp });
    } catch (thrown) {
      if (!this.closed && this.pc.signalingState === "have-local-offer") {
        await this.pc.setLocalDescription({ type: "rollback" });
      }
      throw thrown;
    }
  }

  private addSlot(kind: Kind): void {
    const slot = withLayers(this.pc.addTransceiver(kind, { direction: "recvonly" }));
    this.encryption?.take(slot, "receive");
    this.slots[kind].push(slot);
  }

  private slotTransceivers(): RTCRtpTransceiver[] {
    return [...this.slots.audio, ...this.slots.video];
  }
}

import type { Client } from "./client.js";
import type { MediaEncryption } from "./encryption.js";
import { AmphiError, asAmphiError } from "./errors.js";
import { Loudspeakers } from "./loudspeakers.js";
import type { Publisher, PublishOptions } from "./local.js";
import type { Kind, Preference, Source } from "./model.js";
import { pairsOf, stuck } from "./pairs.js";
import type { Pairs } from "./pairs.js";
import { Path } from "./path.js";
import type { PathOptions } from "./path.js";
import type { Platform } from "./platform.js";
import { Pulse } from "./pulse.js";
import { fullHeight, layersFor, manyInOne, preferCodecs, videoEncodings, videoParamsFor, withLayers } from "./publishing.js";
import { ownRole, peerOfTrack } from "./state.js";
import type { StateStore } from "./state.js";
import { flowing, slotsToStartWith, wantedTracks } from "./subscriptions.js";
import { Transport } from "./transport.js";
import type { TransportObserver } from "./transport.js";
import { Views } from "./views.js";
import { Kind as WireKind } from "../gen/amphi/v1/model_pb.js";

export interface EngineObserver {
  /** A transport was made: a reloaded page must go on counting from there. */
  generation(generation: number): void;
  failed(error: AmphiError): void;
}

interface Sent {
  readonly kind: Kind;
  trackId: string;
  media: MediaStreamTrack | null;
  muted: boolean;
  options: PublishOptions;
  /** The highest simulcast layer that somebody wants, -1 for none; Infinity until the server says. */
  interest: number;
}

// How long an interrupted transport has to recover by itself, then by an ICE restart, before it is replaced.
const interruptedMs = 2_500;
const restartMs = 4_000;
// How long after the answer to an ICE restart the pair in use has to show a sign of life, and how often to look.
const signOfLifeMs = 500;
const lookMs = 100;
// Credentials for relays live a day: older ones are renewed before they are needed.
const credentialsMs = 12 * 3_600_000;
const firstConnectMs = 5_000;
const lastConnectMs = 15_000;
// How long ICE may take without relays, from the answer on.
const directMs = 1_000;
const subscribeDelayMs = 120;
const firstRetryMs = 500;
const lastRetryMs = 8_000;

/**
 * Media over WebRTC: what is published, the slots that things are received in, and what to do when the path breaks.
 * Outlives its transports: a new RTCPeerConnection (the next generation) takes over everything.
 */
export class Engine implements Publisher {
  readonly views: Views;
  readonly loudspeakers: Loudspeakers;
  /** Tracks of which a frame was decoded here since the engine started. */
  readonly framesSeen = new Set<string>();
  /** Of all transports made from now on. */
  encryption?: MediaEncryption;

  private transport: Transport | undefined;
  private retiring: Transport | undefined;
  private offered: Transport | undefined; // the newest that has sent an offer
  private readonly sent = new Map<Source, Sent>();
  private readonly preferences = new Map<string, Preference>(); // by track
  private slots = new Map<string, string>(); // mid → track id, of this generation
  private running = false;
  private readonly path: Path;
  private pulse: Pulse | undefined;
  private rescue: ReturnType<typeof setTimeout> | undefined;
  private relayTimer: ReturnType<typeof setTimeout> | undefined;
  private retryMs = firstRetryMs;
  private connectMs = firstConnectMs;
  private subscribeTimer: ReturnType<typeof setTimeout> | undefined;
  private subscribed = "";
  private expected: readonly string[] = []; // tracks that should be arriving

  constructor(
    private readonly client: Client,
    private readonly platform: Platform,
    private readonly store: StateStore,
    private readonly observer: EngineObserver,
    private generation: number,
    pathOptions: PathOptions,
  ) {
    this.path = new Path(pathOptions, () => this.store.state.server?.iceServers ?? []);
    this.loudspeakers = new Loudspeakers((audioBlocked) => this.store.update({ audioBlocked }));
    this.views = new Views({
      media: (trackId) => this.media(trackId),
      sizesChanged: () => this.subscribeSoon(),
      frameSeen: (trackId) => this.framesSeen.add(trackId),
    });
  }

  /** Connects, for a role that publishes or receives over WebRTC; a second call changes nothing. */
  start(): void {
    if (this.running) return;
    this.running = true;
    this.framesSeen.clear();
    this.slots.clear(); // a held transport's
    this.replaceTransport();
  }

  /** The role has no WebRTC any more, but its last pictures still show: nothing is renewed until start or stop. */
  hold(): void {
    this.running = false;
    clearTimeout(this.rescue);
    clearTimeout(this.relayTimer);
    clearTimeout(this.subscribeTimer);
    this.subscribeTimer = undefined;
    this.pulse?.stop();
    this.sent.clear();
    this.store.update({ transport: "none" });
  }

  stop(): void {
    this.hold();
    this.retiring?.close();
    this.transport?.close();
    this.transport = this.retiring = undefined;
    this.slots.clear();
    this.subscribed = "";
    this.refresh();
    this.store.update({ qualities: new Map() });
  }

  /**
   * The signalling is back: goes on with the transport if it lives, else makes the next one. A peer that joined anew
   * has no tracks yet: what was published is forgotten, or the first offer would name tracks of the old peer.
   */
  recover(resumed: boolean, mediaKept: boolean): void {
    if (!resumed) this.sent.clear();
    if (!this.running) return;
    this.subscribed = "";
    if (!resumed || !mediaKept || this.transport?.state !== "connected") return this.replaceTransport();
    this.restartIce(); // what broke the signalling may have changed the network
    this.subscribeSoon();
  }

  /** The network may have changed: tries other paths at once instead of waiting for a timeout. */
  networkChanged(): void {
    if (this.store.state.transport === "interrupted") this.restartIce();
  }

  async publish(source: Source, kind: Kind, media: MediaStreamTrack, options: PublishOptions): Promise<string> {
    const trackId = await this.announce(source, kind, media, options);
    this.sent.set(source, { kind, trackId, media, muted: false, options, interest: Infinity });
    this.start();
    await this.placeInSection(source);
    await this.transport?.negotiate();
    return trackId;
  }

  async setMuted(source: Source, muted: boolean, media: MediaStreamTrack | null): Promise<void> {
    const sent = this.sent.get(source);
    if (!sent) return;
    sent.muted = muted;
    sent.media = media;
    if (muted) this.pulse?.calm(); // who sends nothing gets no feedback
    const tell = (): Promise<unknown> =>
      this.client.command({ case: "updateTrack", value: { trackId: sent.trackId, muted } });
    if (!muted) await tell(); // before sending, or the server drops the first packets
    const sender = this.transport?.sections.get(source)?.transceiver.sender;
    if (sender && sender.track !== media) await sender.replaceTrack(media);
    await this.activate(source);
    if (muted) await tell();
  }

  async replace(source: Source, media: MediaStreamTrack): Promise<void> {
    const sent = this.sent.get(source);
    if (!sent) return;
    sent.media = media;
    await this.transport?.sections.get(source)?.transceiver.sender.replaceTrack(media);
    const { width, height } = media.getSettings();
    if (sent.kind === "video" && width && height) {
      await this.client.command({ case: "updateTrack", value: { trackId: sent.trackId, width, height } });
    }
  }

  async unpublish(source: Source): Promise<void> {
    const sent = this.sent.get(source);
    if (!sent) return;
    this.drop(source);
    await this.client.command({ case: "unpublish", value: { trackId: sent.trackId } }).catch(ignoreNotFound);
  }

  /** The server unpublished one of our tracks. */
  unpublishedByServer(trackId: string): void {
    for (const [source, sent] of this.sent) if (sent.trackId === trackId) this.drop(source);
  }

  setInterest(trackId: string, maxSpatial: number): void {
    if (maxSpatial < 0) this.pulse?.calm();
    for (const [source, sent] of this.sent) {
      if (sent.trackId !== trackId) continue;
      sent.interest = maxSpatial;
      void this.activate(source).catch(() => undefined);
    }
  }

  slotsChanged(slots: readonly { mid: string; trackId: string }[], generation: number): void {
    if (generation !== this.transport?.generation) return;
    this.slots = new Map(slots.filter((slot) => slot.trackId).map((slot) => [slot.mid, slot.trackId]));
    this.refresh();
  }

  slotsNeeded(audio: number, video: number): void {
    if (this.transport?.growSlots(audio, video)) this.negotiateSoon();
  }

  prefer(trackId: string, preference: Preference): void {
    this.preferences.set(trackId, preference);
    this.subscribeSoon();
  }

  /** The room changed in a way that may change what is wanted. */
  subscribeSoon(): void {
    if (this.subscribeTimer !== undefined) return;
    this.subscribeTimer = setTimeout(() => {
      this.subscribeTimer = undefined;
      this.subscribe();
    }, subscribeDelayMs);
  }

  async stats(): Promise<RTCStatsReport | undefined> {
    return this.transport?.pc.getStats();
  }

  /** The media of a received track, while it is in a slot. */
  media(trackId: string): MediaStreamTrack | undefined {
    for (const [mid, id] of this.slots) if (id === trackId) return this.transport?.receiver(mid);
    return undefined;
  }

  private async announce(source: Source, kind: Kind, media: MediaStreamTrack, options: PublishOptions): Promise<string> {
    if (this.encryption ? !this.encryption.canSend : this.store.state.template?.endToEndEncrypted) {
      throw new AmphiError("encryption_required", "this room is end-to-end encrypted, and there is no key to send with");
    }
    const { width = 0, height = 0 } = kind === "video" ? media.getSettings() : {};
    const params = kind === "video" ? videoParamsFor(ownRole(this.store.state), source) : undefined;
    const layers = kind === "video" && !manyInOne(options.scalabilityMode) ? layersFor(params, fullHeight(media)) : [];
    const result = await this.client.command({
      case: "publish",
      value: {
        kind: kind === "audio" ? WireKind.AUDIO : WireKind.VIDEO,
        source,
        width,
        height,
        layers: layers.length > 1 ? layers.map((layer) => ({ ...layer })) : [],
        description: options.description ?? "",
      },
    });
    if (result.case !== "publish" || !result.value.track) throw new AmphiError("internal", "publish had no answer", true);
    const { id, muted } = result.value.track;
    // A track that a reloaded page had muted is still there, and still muted.
    if (muted) await this.client.command({ case: "updateTrack", value: { trackId: id, muted: false } });
    return id;
  }

  private async placeInSection(source: Source): Promise<void> {
    const sent = this.sent.get(source);
    const transport = this.transport;
    if (!sent || !transport) return;
    const section = transport.section(source, () => this.addTransceiver(transport.pc, source, sent));
    section.trackId = sent.trackId;
    const { sender } = section.transceiver;
    if (sender.track !== sent.media) await sender.replaceTrack(sent.media);
    if (sent.muted || sent.interest !== Infinity) await this.activate(source);
  }

  private addTransceiver(pc: RTCPeerConnection, source: Source, sent: Sent): RTCRtpTransceiver {
    const role = ownRole(this.store.state);
    if (sent.kind === "audio") {
      const maxBitrate = (role?.publish.audioBitrateKbps ?? 32) * 1000;
      return pc.addTransceiver(sent.media ?? "audio", { direction: "sendonly", sendEncodings: [{ maxBitrate }] });
    }
    const params = videoParamsFor(role, source);
    const sendEncodings = videoEncodings(params, fullHeight(sent.media), isFirefox(), sent.options);
    const transceiver = pc.addTransceiver(sent.media ?? "video", { direction: "sendonly", sendEncodings });
    const codecs = globalThis.RTCRtpSender?.getCapabilities?.("video")?.codecs;
    if (codecs) {
      const allowed = this.encryption?.allowed(codecs) ?? codecs;
      transceiver.setCodecPreferences?.(preferCodecs(allowed, params?.codecs ?? [], sent.options.codec));
    }
    return withLayers(transceiver);
  }

  private async activate(source: Source): Promise<void> {
    const sent = this.sent.get(source);
    if (sent) await this.transport?.activate(source, sent.muted ? -1 : sent.interest);
  }

  private drop(source: Source): void {
    this.sent.delete(source);
    this.pulse?.calm();
    const transport = this.transport;
    void transport?.vacate(source).then(() => {
      if (this.transport === transport) this.negotiateSoon();
    });
  }

  private replaceTransport(): void {
    clearTimeout(this.rescue);
    // The old one goes on showing its last pictures until the new one is connected.
    this.retiring?.close();
    this.retiring = this.transport;
    const generation = ++this.generation;
    this.observer.generation(generation);
    const pc = this.platform.peerConnection({ ...this.path.configuration(), ...this.encryption?.connection });
    const observer: TransportObserver = {
      stateChanged: (state) => this.transport === transport && this.transportChanged(state),
      negotiate: async (offer) => {
        const first = this.offerSent(transport);
        const answer = this.path.answer(await this.client.negotiate(offer));
        if (first) this.relaySoon(transport);
        return answer;
      },
    };
    const transport: Transport = new Transport(pc, generation, observer, this.encryption);
    this.transport = transport;
    this.pulse?.stop();
    this.pulse = new Pulse(this.platform, pc, {
      silent: () => this.transport === transport && this.pathSilent(),
      heard: () => this.transport === transport && this.transportChanged(transport.state),
    });
    this.subscribed = "";
    this.store.update({ transport: "connecting" });
    void this.furnish(transport);
  }

  private async furnish(transport: Transport): Promise<void> {
    const start = slotsToStartWith(this.store.state);
    transport.growSlots(start.audio, start.video);
    for (const source of this.sent.keys()) await this.placeInSection(source);
    if (transport.slotCount + transport.sections.size === 0) return; // nothing to carry yet
    this.negotiateSoon();
    this.subscribeSoon();
  }

  /** True for the first offer. The time to connect counts from there: a busy machine may take seconds to make it. */
  private offerSent(transport: Transport): boolean {
    if (this.transport !== transport || this.offered === transport) return false;
    this.offered = transport;
    this.rescueAfter(this.connectMs, () => this.replaceTransport());
    this.connectMs = Math.min(lastConnectMs, this.connectMs * 1.6);
    return true;
  }

  /** Tries relays as well when the direct ways lead nowhere. */
  private relaySoon(transport: Transport): void {
    clearTimeout(this.relayTimer);
    this.relayTimer = setTimeout(() => {
      const { pc } = transport;
      if (!this.running || this.transport !== transport || !["new", "checking"].includes(pc.iceConnectionState)) return;
      if (this.path.addRelays(pc)) transport.negotiate({ restartIce: true }).catch(() => this.retryReplacing());
    }, directMs);
  }

  /** Nothing comes any more, though ICE still waits: asks the signalling, which knows soon, and looks for another path. */
  private pathSilent(): void {
    if (!this.running) return;
    this.store.update({ transport: "interrupted" });
    this.client.probe();
    this.restartIce();
  }

  private transportChanged(state: RTCPeerConnectionState): void {
    if (!this.running) return; // held: the server has ended it
    if (state === "connected") {
      clearTimeout(this.rescue);
      this.retryMs = firstRetryMs;
      this.connectMs = firstConnectMs;
      this.retiring?.close();
      this.retiring = undefined;
      this.store.update({ transport: "connected" });
      this.subscribed = "";
      this.subscribeSoon();
    } else if (state === "disconnected") {
      this.store.update({ transport: "interrupted" });
      this.rescueAfter(interruptedMs, () => this.restartIce());
    } else if (state === "failed") {
      this.store.update({ transport: "interrupted" });
      this.retryReplacing();
    }
  }

  private restartIce(): void {
    if (this.store.state.phase !== "joined") return; // recover() follows the reconnection
    const transport = this.transport;
    if (!transport || this.client.renew(credentialsMs)) return;
    this.path.addRelays(transport.pc); // the new network may be worse than the old one
    this.rescueAfter(restartMs, () => {
      // A path that never broke says nothing when ICE starts anew.
      if (transport.state !== "connected" || this.pulse?.silent) this.replaceTransport();
    });
    const before = pairsOf(transport.pc);
    transport.negotiate({ restartIce: true }).then(
      async () => this.leaveDeadPair(transport, await before),
      () => this.retryReplacing(),
    );
  }

  /**
   * After an ICE restart a browser may keep to a dead pair for seconds, though another one is answered: a new transport
   * is faster. The server checks the pair in use when ICE restarts, so one that is alive has something to show.
   */
  private async leaveDeadPair(transport: Transport, before: Pairs): Promise<void> {
    const endMs = this.platform.now() + restartMs;
    for (let wait = signOfLifeMs; this.platform.now() < endMs; wait = lookMs) {
      await new Promise((resolve) => setTimeout(resolve, wait));
      if (!this.running || this.transport !== transport || this.store.state.phase !== "joined") return;
      const verdict = stuck(before, await pairsOf(transport.pc));
      if (verdict === false || this.transport !== transport) return;
      if (verdict) return this.replaceTransport();
    }
  }

  private retryReplacing(): void {
    if (this.store.state.phase !== "joined") return;
    this.rescueAfter(this.retryMs, () => this.replaceTransport());
    this.retryMs = Math.min(lastRetryMs, this.retryMs * 2);
  }

  private rescueAfter(ms: number, act: () => void): void {
    clearTimeout(this.rescue);
    this.rescue = setTimeout(() => {
      if (this.running) act();
    }, ms);
  }

  private negotiateSoon(): void {
    const transport = this.transport;
    if (!this.running) return;
    transport?.negotiate().catch((thrown: unknown) => {
      const error = asAmphiError(thrown);
      if (this.transport !== transport || !this.running || error.code === "connection_lost") return;
      this.observer.failed(error);
      if (error.retryable) this.retryReplacing();
    });
  }

  private subscribe(): void {
    if (!this.running || !this.transport) return;
    const tracks = wantedTracks(this.store.state, this.views.sizes(), this.preferences);
    const now = flowing(this.store.state, tracks);
    if (this.expected.some((id) => !now.includes(id))) this.pulse?.calm();
    this.expected = now;
    const text = JSON.stringify(tracks);
    if (text === this.subscribed) return;
    this.subscribed = text;
    this.client.setSubscriptions({ tracks });
  }

  private refresh(): void {
    this.views.refresh();
    const audio = new Map<MediaStreamTrack, string>();
    for (const [mid, trackId] of this.slots) {
      const media = this.transport?.receiver(mid);
      if (media) this.encryption?.from(media, peerOfTrack(this.store.state, trackId)?.id ?? "");
      if (media?.kind === "audio") audio.set(media, trackId);
    }
    this.loudspeakers.play(audio);
  }
}

function isFirefox(): boolean {
  return typeof navigator !== "undefined" && navigator.userAgent.includes("Firefox/");
}

function ignoreNotFound(thrown: unknown): void {
  if (asAmphiError(thrown).code !== "track_not_found") throw thrown;
}

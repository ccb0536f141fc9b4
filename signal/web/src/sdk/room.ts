import type { Joined, Welcome } from "../gen/amphi/v1/signal_pb.js";
import { Chat, Peers, Pushes, Recordings, Roles, SessionStore, Streams } from "./actions.js";
import type { Ask } from "./actions.js";
import { Client, signalUrl } from "./client.js";
import { modeOf, serverInfoOf, templateOf } from "./convert.js";
import { Emitter } from "./emitter.js";
import { Engine } from "./engine.js";
import { AmphiError, asAmphiError } from "./errors.js";
import type { MediaEncryption } from "./encryption.js";
import type { RoomEvents } from "./events.js";
import { Handover } from "./handover.js";
import { LocalMedia } from "./local.js";
import type { Preference, Source } from "./model.js";
import type { PathOptions } from "./path.js";
import { browserPlatform } from "./platform.js";
import type { Platform } from "./platform.js";
import type { StreamPlayer } from "./player.js";
import { mayPublish, needsTransport } from "./publishing.js";
import { applyEvent, takePlayback, takeSnapshot } from "./reduce.js";
import { ResumeShelf } from "./resume.js";
import type { SavedPeer } from "./resume.js";
import type { ServerBody } from "./socket.js";
import { ownRole, ownStream, selfOf, StateStore } from "./state.js";
import type { RoomState } from "./state.js";
import { receivable } from "./subscriptions.js";
import { tokenOfCode } from "./token.js";

export interface RoomConfig extends PathOptions {
  /** Address of a node; the page's own origin by default. */
  readonly server?: string;
  /** A room code such as `abc-defg-hij`, exchanged for a token. */
  readonly code?: string;
  /** An app token instead of a code, or what fetches one. */
  readonly token?: string | (() => Promise<string>);
  /** Goes into the token of a code. */
  readonly userId?: string;
  /** The region to be served in, as the nodes name theirs; unknown ones are ignored. By default that of the node reached. */
  readonly region?: string;
  /** End-to-end encryption: an `Encryption` of `amphi-e2ee.js`. It ends with the room object. */
  readonly encryption?: MediaEncryption;
  readonly platform?: Partial<Platform>;
}

export interface JoinOptions {
  readonly name: string;
  readonly metadata?: string;
}

const touchMs = 4_000;
const handoverCheckMs = 150;
const reconcileDelayMs = 250;

/** A room and this client's part in it: preview, join, what happens there, and the way out. */
export class Room {
  readonly chat: Chat;
  readonly peers: Peers;
  readonly roles: Roles;
  readonly streams: Streams;
  readonly recordings: Recordings;
  readonly pushes: Pushes;
  /** The session store's writing side; its entries are in `state.store`. */
  readonly store: SessionStore;
  /** Own microphone, camera, screen and other sources. */
  readonly local: LocalMedia;

  private readonly platform: Platform;
  private readonly server: string;
  private readonly states = new StateStore();
  private readonly events = new Emitter<RoomEvents>();
  private readonly client: Client;
  private readonly engine: Engine;
  private readonly handover: Handover;
  private readonly shelf: ResumeShelf;
  private readonly endTouch: () => void;
  private readonly endNetworkWatch: () => void;
  private handoverCheck: ReturnType<typeof setInterval> | undefined;
  private reconcileTimer: ReturnType<typeof setTimeout> | undefined;
  private mediaKept = false;
  private over = false; // everything was let go of
  private joinOptions: JoinOptions = { name: "" };
  private roleServed = ""; // that media and picture were made for

  constructor(private readonly config: RoomConfig) {
    this.platform = { ...browserPlatform(), ...config.platform };
    this.server = config.server ?? location.origin;
    this.shelf = new ResumeShelf(this.platform, shelfName(config));
    const url = signalUrl(this.server);
    this.client = new Client({
      url,
      platform: this.platform,
      token: () => this.token(),
      region: config.region,
      observer: {
        welcomed: (welcome) => this.welcomed(welcome),
        joined: (joined) => this.joined(joined),
        message: (body) => this.message(body),
        reconnecting: (error) => this.reconnecting(error),
        reconnected: (resumed) => this.reconnected(resumed),
        moved: () => this.engine.recover(true, false),
        ended: (error) => this.ended(error),
      },
    });
    this.engine = new Engine(
      this.client,
      this.platform,
      this.states,
      {
        generation: (generation) => this.shelf.put({ generation }),
        failed: (error) => this.events.emit("local-failed", { source: "", error }),
      },
      this.shelf.generation,
      config,
    );
    this.encryption = config.encryption;
    this.local = new LocalMedia(this.platform, this.states, this.engine, {
      canPublish: () => this.state.phase === "joined" || this.state.phase === "reconnecting",
      failed: (source, error) => this.events.emit("local-failed", { source, error }),
      changed: () => this.rememberLocal(),
    });
    this.handover = new Handover((shown, next) => this.pictureChanged(shown, next));
    const ask: Ask = (body) => this.client.command(body);
    this.chat = new Chat(ask);
    this.peers = new Peers(ask);
    this.roles = new Roles(ask);
    this.streams = new Streams(ask);
    this.recordings = new Recordings(ask);
    this.pushes = new Pushes(ask);
    this.store = new SessionStore(ask);
    this.endTouch = this.platform.every(touchMs, () => this.touch());
    this.endNetworkWatch = this.platform.onNetworkChange(() => this.engine.networkChanged());
  }

  /**
   * What encrypts and decrypts media. Set it before the join; what is set later holds for the next connection. With it
   * nothing is sent or played that is not encrypted, whatever the room's template says.
   */
  get encryption(): MediaEncryption | undefined {
    return this.engine.encryption;
  }

  set encryption(encryption: MediaEncryption | undefined) {
    this.engine.encryption = encryption;
    encryption?.report((error) => this.events.emit("encryption-error", error));
  }

  get state(): RoomState {
    return this.states.state;
  }

  /** Calls back after changes, at most once per turn of the event loop; returns what ends it. */
  subscribe(listener: (state: RoomState) => void): () => void {
    return this.states.subscribe(listener);
  }

  /** Listens to one kind of event; returns what ends it. */
  on<K extends keyof RoomEvents>(name: K, listener: (payload: RoomEvents[K]) => void): () => void {
    return this.events.on(name, listener);
  }

  /** Connects and learns about room, role and template without joining. */
  async preview(): Promise<void> {
    this.states.update({ phase: "connecting", error: undefined });
    try {
      await this.client.hello();
    } catch (thrown) {
      throw this.failedToEnter(thrown);
    }
  }

  /** Joins; without a preview before it connects first. What is captured and allowed is published. */
  async join(options: JoinOptions): Promise<void> {
    this.joinOptions = options;
    const before = this.state.phase;
    this.states.update({ phase: "joining", error: undefined });
    try {
      await this.client.join(options.name, options.metadata ?? "");
    } catch (thrown) {
      if (before !== "preview" || this.over) throw this.failedToEnter(thrown);
      const error = asAmphiError(thrown);
      this.states.update({ phase: "preview", error });
      throw error;
    }
    await this.enter();
  }

  /** After a reload: comes back as the same peer where its place is still held. False when there is none. */
  async resume(): Promise<boolean> {
    const saved = await this.shelf.take(60_000);
    if (!saved) return false;
    this.states.update({ phase: "joining", selfId: saved.peerId });
    try {
      await this.client.resume(saved.resumeToken);
    } catch {
      this.shelf.clear();
      if (!this.over) this.states.update({ phase: "idle", selfId: "" });
      return false;
    }
    const self = selfOf(this.state);
    if (self) this.joinOptions = { name: self.name, metadata: self.metadata };
    this.client.rejoinAs(this.joinOptions.name, this.joinOptions.metadata ?? "");
    await this.enter();
    void this.restoreLocal(saved);
    return true;
  }

  /** Leaves for good. A page that is merely closed or reloaded has not left. */
  async leave(): Promise<void> {
    this.shelf.clear();
    await this.client.leave();
    this.ended(new AmphiError("left", "left the room"));
  }

  /** Ends the room for everybody; `lock` keeps it closed. */
  async end(options: { reason?: string; lock?: boolean } = {}): Promise<void> {
    await this.client.command({ case: "endRoom", value: options });
  }

  /** Locks the room, so that nobody else may join, or sets its metadata. */
  async update(change: { locked?: boolean; metadata?: string }): Promise<void> {
    await this.client.command({ case: "updateRoom", value: change });
  }

  /** Answers the role change that this peer is asked for (`state.roleRequest`). Declining releases its devices. */
  async answerRoleRequest(accept: boolean): Promise<void> {
    const request = this.state.roleRequest;
    if (!request) return;
    this.states.update({ roleRequest: undefined, acceptedRole: accept ? request.role : undefined });
    if (!accept) await this.local.applyRole(ownRole(this.state));
    try {
      await this.roles.answer(request.requestId, accept);
    } catch (thrown) {
      // The server keeps what it refuses only for now: a role that is full, most often.
      const stands = asAmphiError(thrown).retryable && !this.state.roleRequest && this.state.roleName !== request.role;
      this.states.update({ acceptedRole: undefined, ...(stands ? { roleRequest: request } : {}) });
      if (!stands) await this.local.applyRole(ownRole(this.state));
      throw thrown;
    }
  }

  /** Answers `state.unmuteRequest`; accepting turns on what was asked for. */
  answerUnmuteRequest(accept: boolean): void {
    const asked = this.state.unmuteRequest?.sources ?? [];
    this.states.update({ unmuteRequest: undefined });
    if (!accept) return;
    const sources = (["mic", "camera"] as const).filter((source) => asked.includes(source));
    for (const source of sources.length > 0 ? sources : (["mic"] as const)) void this.local.enable(source);
  }

  /**
   * Shows a video track, one's own or another's, in an element until the returned function is called. The element's
   * size and visibility decide what is received.
   */
  attach(element: HTMLVideoElement, trackId: string): () => void {
    const own = [...this.state.local.values()].find((track) => track.trackId === trackId);
    return own ? this.attachLocal(element, own.source) : this.engine.views.attach(element, trackId);
  }

  /** Shows one of this peer's own sources, published or not; follows changes of device. */
  attachLocal(element: HTMLVideoElement, source: Source): () => void {
    let shown: MediaStreamTrack | undefined;
    const show = (state: RoomState): void => {
      const media = state.local.get(source)?.media;
      if (media === shown) return;
      shown = media;
      element.srcObject = media ? new MediaStream([media]) : null;
      if (media) void element.play().catch(() => undefined);
    };
    element.muted = true;
    element.playsInline = true;
    show(this.state);
    return this.subscribe(show);
  }

  /**
   * Plays the role's stream, or the named one, in an element until the player is closed. Loads the player, which is no
   * part of the core. Fails with `not_found` when there is no such stream.
   */
  async playStream(element: HTMLVideoElement, name?: string): Promise<StreamPlayer> {
    const url = this.streamUrl(name);
    const { StreamPlayer } = await import("./player.js");
    const player = new StreamPlayer(element, url, {
      clockOffsetMs: () => this.client.clockOffsetMs,
      refreshUrl: async () => {
        // Who comes back gets another playback token.
        this.client.renew(0);
        await this.connected();
        return this.streamUrl(name);
      },
    });
    const ready = (): void => this.handover.ready("hls");
    player.events.on("playing", () => {
      if ("requestVideoFrameCallback" in element) element.requestVideoFrameCallback(ready);
      else ready();
    });
    return player;
  }

  /** Bounds what is received of a track, or pauses it, whatever its size; `{}` takes that back. */
  prefer(trackId: string, preference: Preference): void {
    this.engine.prefer(trackId, preference);
  }

  /** Call from a click when `state.audioBlocked`. */
  unblockAudio(): Promise<void> {
    return this.engine.loudspeakers.unblock();
  }

  /** Volume of one received track, 0 to 1. */
  setVolume(trackId: string, volume: number): void {
    this.engine.loudspeakers.setVolume(trackId, volume);
  }

  /** Which loudspeaker plays the room, where the browser lets pages choose. */
  setLoudspeaker(deviceId: string): Promise<void> {
    return this.engine.loudspeakers.setSink(deviceId);
  }

  /** The browser's own WebRTC statistics; undefined without a transport. */
  stats(): Promise<RTCStatsReport | undefined> {
    return this.engine.stats();
  }

  /** Round trip to the server in milliseconds, by the newest ping. */
  get rttMs(): number {
    return this.client.rttMs;
  }

  /** Waits while the connection is being made anew. */
  private connected(): Promise<void> {
    return new Promise((resolve) => {
      let stop: (() => void) | undefined;
      const look = (): void => {
        if (this.state.phase === "reconnecting") return;
        stop?.();
        resolve();
      };
      stop = this.subscribe(look);
      look();
    });
  }

  private streamUrl(name: string | undefined): string {
    const stream = name === undefined ? ownStream(this.state) : this.state.streams.get(name);
    if (!stream?.url) throw new AmphiError("not_found", "there is no such stream now", true);
    return stream.url;
  }

  private async token(): Promise<string> {
    const { code, token } = this.config;
    if (typeof token === "function") return token();
    if (token) return token;
    if (!code) throw new AmphiError("invalid_argument", "a room needs a code or a token");
    return tokenOfCode(this.platform, this.server, code, this.config.userId);
  }

  private welcomed(welcome: Welcome): void {
    const basics: RoomState = {
      ...this.state,
      phase: this.state.phase === "connecting" ? "preview" : this.state.phase,
      room: welcome.room,
      roleName: welcome.role,
      userId: welcome.userId,
      template: welcome.template && templateOf(welcome.template),
      server: serverInfoOf(welcome.server),
    };
    this.states.replace(welcome.state ? takeSnapshot(basics, welcome.state, this.server) : basics);
  }

  private joined(joined: Joined): void {
    this.mediaKept = joined.mediaKept;
    const basics: RoomState = {
      ...this.state,
      phase: "joined",
      error: undefined,
      selfId: joined.peerId,
      mode: "normal", // another is told after this
      server: joined.server ? serverInfoOf(joined.server) : this.state.server,
    };
    const playing = takePlayback(basics, new Map(joined.playback.map((p) => [p.stream, p.url])), this.server);
    this.states.replace(joined.state ? takeSnapshot(playing, joined.state, this.server) : playing);
    this.shelf.put({
      resumeToken: this.client.resumeToken,
      peerId: joined.peerId,
      atMs: this.platform.now(),
      lastSeq: this.client.lastSeq,
    });
    if (!joined.resumed) void this.platform.claim("amphi." + joined.peerId);
  }

  /** Media, once joined or resumed. */
  private async enter(): Promise<void> {
    if (this.over) return;
    const role = ownRole(this.state);
    this.roleServed = this.state.roleName;
    this.handover.aim(role?.subscribe.delivery ?? "none");
    if (needsTransport(role)) this.engine.start();
    this.rememberLocal();
    await this.local.applyRole(role);
  }

  private message(body: ServerBody): void {
    switch (body.case) {
      case "event": {
        const [next, notices] = applyEvent(this.state, body.value, this.server);
        this.states.replace(next);
        this.engine.subscribeSoon();
        for (const notice of notices) {
          this.react(notice.name, notice.payload as never);
          this.events.emit(notice.name, notice.payload as never);
        }
        return;
      }
      case "slots":
        return this.engine.slotsChanged(body.value.slots, body.value.generation);
      case "slotsNeeded":
        return this.engine.slotsNeeded(body.value.audio, body.value.video);
      case "speakers":
        return this.states.update({ speakers: body.value.speakers });
      case "quality": {
        const { network, tracks, estimateKbps } = body.value;
        const qualities = new Map(this.state.qualities);
        for (const quality of tracks) qualities.set(quality.trackId, quality);
        this.states.update({ network, estimateKbps, qualities });
        return tracks.forEach((quality) => this.events.emit("track-quality", quality));
      }
      case "counts":
        return this.states.update({ total: body.value.total, roleCounts: body.value.byRole });
      case "modeChanged":
        return this.states.update({ mode: modeOf(body.value.mode) });
      case "interest":
        return this.engine.setInterest(body.value.trackId, body.value.maxSpatial);
    }
  }

  /** What an event means for this client's own media. */
  private react<K extends keyof RoomEvents>(name: K, payload: RoomEvents[K]): void {
    if (name === "role-changed" && (payload as RoomEvents["role-changed"]).self) {
      void this.ownRoleChanged();
    } else if (name === "role-change-answered") {
      // Nobody answered in time: devices that were opened for that role are for nothing.
      const { peerId } = payload as RoomEvents["role-change-answered"];
      if (peerId === this.state.selfId && !this.state.roleRequest && !this.state.acceptedRole) void this.local.applyRole(ownRole(this.state));
    } else if (name === "muted-by-other") {
      void this.local.mutedByOther((payload as RoomEvents["muted-by-other"]).track.source);
    } else if (name === "track-unpublished") {
      const { peer, track } = payload as RoomEvents["track-unpublished"];
      if (peer.id !== this.state.selfId) return;
      this.engine.unpublishedByServer(track.id);
      this.reconcileSoon();
    } else if (name === "peer-left" || name === "peer-joined") {
      const { peer } = payload as RoomEvents["peer-left"];
      if (peer.id === this.state.selfId) this.reconcileSoon();
    }
  }

  private async ownRoleChanged(): Promise<void> {
    const role = ownRole(this.state);
    this.roleServed = this.state.roleName;
    if (needsTransport(role)) this.engine.start();
    else this.engine.hold();
    this.handover.aim(role?.subscribe.delivery ?? "none");
    await this.local.applyRole(role);
  }

  private pictureChanged(shown: RoomState["picture"]["shown"], next: RoomState["picture"]["next"]): void {
    this.states.update({ picture: { shown, next } });
    clearInterval(this.handoverCheck);
    if (shown === next) {
      if (!needsTransport(ownRole(this.state))) this.engine.stop();
      return;
    }
    this.handoverCheck = setInterval(() => this.checkHandover(next), handoverCheckMs);
  }

  private checkHandover(next: RoomState["picture"]["next"]): void {
    if (next === "hls") {
      // Without a stream there is nothing to wait for; with one the player tells.
      const phase = ownStream(this.state)?.phase;
      if (phase !== "live" && phase !== "starting") this.handover.ready("hls");
      return;
    }
    if (this.state.transport !== "connected") return;
    const expected = receivable(this.state).some(({ track }) => track.kind === "video" && !track.muted);
    if (!expected || this.engine.framesSeen.size > 0) this.handover.ready("webrtc");
  }

  private reconnecting(error: AmphiError): void {
    this.states.update({ phase: "reconnecting", error });
    this.events.emit("reconnecting", { error });
  }

  private reconnected(resumed: boolean): void {
    if (!needsTransport(ownRole(this.state))) this.engine.hold();
    this.engine.recover(resumed, this.mediaKept);
    // No event tells of a role that came with a whole state: that of the token again, or one given meanwhile.
    if (this.state.roleName !== this.roleServed) void this.ownRoleChanged();
    this.reconcileSoon();
    this.events.emit("reconnected", { resumed });
  }

  /** Soon, because the events that were missed come first. */
  private reconcileSoon(): void {
    clearTimeout(this.reconcileTimer);
    this.reconcileTimer = setTimeout(() => {
      const self = selfOf(this.state);
      if (this.state.phase !== "joined" || !self) return;
      void this.local.reconcile(new Set(self.tracks.map((track) => track.id)));
    }, reconcileDelayMs);
  }

  private ended(error: AmphiError): void {
    this.shelf.clear();
    this.shutDown();
    const phase = goodEnds.has(error.code) ? "left" : "failed";
    this.states.update({ phase, error, picture: { shown: "none", next: "none" } });
    this.events.emit("ended", { error });
  }

  /** Lets go of everything; a room object is used once. */
  private shutDown(): void {
    this.over = true;
    this.client.close();
    this.endTouch();
    this.endNetworkWatch();
    clearInterval(this.handoverCheck);
    clearTimeout(this.reconcileTimer);
    this.handover.stop();
    this.local.release();
    this.engine.stop();
    this.encryption?.close();
  }

  private failedToEnter(thrown: unknown): AmphiError {
    const error = asAmphiError(thrown);
    if (this.over) return error; // it was left meanwhile
    this.shutDown();
    this.states.update({ phase: "failed", error });
    return error;
  }

  private touch(): void {
    if (this.state.phase !== "joined") return;
    this.shelf.put({ atMs: this.platform.now(), lastSeq: this.client.lastSeq });
  }

  private rememberLocal(): void {
    if (!this.state.selfId) return;
    const on = [...this.state.local.values()].filter((track) => track.status === "on" || track.status === "starting");
    this.shelf.put({ enabled: on.map((track) => track.source), devices: this.local.chosenDevices });
  }

  /** Turns on what was on before the reload, and takes back what is not sent any more. */
  private async restoreLocal(saved: SavedPeer): Promise<void> {
    const restorable = (["mic", "camera"] as const).filter((source) => saved.enabled.includes(source));
    await Promise.all(
      restorable.map(async (source) => {
        const device = saved.devices[source];
        if (device) await this.local.choose(source, device);
        if (mayPublish(ownRole(this.state), source, source === "mic" ? "audio" : "video")) {
          await this.local.enable(source);
        }
      }),
    );
    for (const track of selfOf(this.state)?.tracks ?? []) {
      if (this.state.local.get(track.source)?.trackId) continue;
      await this.client.command({ case: "unpublish", value: { trackId: track.id } }).catch(() => undefined);
    }
  }
}

const goodEnds: ReadonlySet<string> = new Set(["left", "removed", "banned", "room_ended", "replaced"]);

function shelfName(config: RoomConfig): string {
  if (config.code) return config.code;
  return typeof config.token === "string" ? config.token.slice(-24) : "room";
}

import { Devices } from "./devices.js";
import { AmphiError, asAmphiError } from "./errors.js";
import type { Kind, Role, Source } from "./model.js";
import type { Platform } from "./platform.js";
import { cameraConstraints, kindOf, mayPublish, micConstraints } from "./publishing.js";
import { awaitedRole, ownRole } from "./state.js";
import type { LocalTrack, StateStore } from "./state.js";

/** Where captured tracks go once the peer has joined. */
export interface Publisher {
  /** Announces and sends a track; answers its id. Publishing a source again answers the same id. */
  publish(source: Source, kind: Kind, media: MediaStreamTrack, options: PublishOptions): Promise<string>;
  /** Stops or starts sending. A muted camera is given no media, so that its light goes off. */
  setMuted(source: Source, muted: boolean, media: MediaStreamTrack | null): Promise<void>;
  replace(source: Source, media: MediaStreamTrack): Promise<void>;
  unpublish(source: Source): Promise<void>;
}

export interface PublishOptions {
  readonly description?: string;
  /** The codec to prefer to those of the role: `vp8`, `vp9`, `h264` or `av1`. A browser without it takes the role's. */
  readonly codec?: string;
  /** As in W3C's webrtc-svc: `L1T3` goes for each simulcast layer, a mode with more spatial layers replaces simulcast. */
  readonly scalabilityMode?: string;
}

export interface LocalObserver {
  /** True once joined and while the role may publish this. */
  canPublish(): boolean;
  failed(source: Source, error: AmphiError): void;
  /** The set of enabled sources or chosen devices changed. */
  changed(): void;
}

/**
 * This peer's own sources: captured in the preview, published after the join, released when the role no longer allows
 * them. A source that was never turned on is never published. Calls for one source happen one after the other.
 */
export class LocalMedia {
  readonly devices: Devices;
  private readonly turns = new Map<Source, Promise<void>>();
  private readonly chosen = new Map<Source, string>();
  private over = false;

  constructor(
    private readonly platform: Platform,
    private readonly store: StateStore,
    private readonly publisher: Publisher,
    private readonly observer: LocalObserver,
  ) {
    this.devices = new Devices(this.platform);
  }

  track(source: Source): LocalTrack {
    return this.store.state.local.get(source) ?? { source, kind: kindOf(source), status: "off" };
  }

  /** Device ids by source, as chosen. */
  get chosenDevices(): Readonly<Record<string, string>> {
    return Object.fromEntries(this.chosen);
  }

  /** Turns the microphone or camera on: captures it, and publishes or unmutes it once joined. */
  enable(source: "mic" | "camera"): Promise<void> {
    return this.inTurn(source, () => this.enableNow(source));
  }

  /** Mutes. The camera is released; the microphone stays open but nothing of it is sent. */
  disable(source: Source): Promise<void> {
    return this.inTurn(source, () => this.disableNow(source));
  }

  async toggle(source: "mic" | "camera"): Promise<void> {
    const { status } = this.track(source);
    await (status === "on" || status === "starting" ? this.disable(source) : this.enable(source));
  }

  /** Chooses a camera or microphone; takes effect at once where it is on. */
  choose(source: "mic" | "camera", deviceId: string): Promise<void> {
    return this.inTurn(source, async () => {
      this.chosen.set(source, deviceId);
      this.observer.changed();
      const now = this.track(source);
      if (now.status === "failed") return this.enableNow(source);
      if (now.status !== "on") return;
      const media = await this.capture(source);
      if (!media) return;
      this.stop(now.media);
      this.set({ ...now, media, deviceId: deviceIdOf(media) });
      if (now.trackId) await this.publisher.replace(source, media);
    });
  }

  /** Shares a screen, with its sound where there is one. Call from a click. */
  async shareScreen(options: DisplayMediaStreamOptions = { video: { frameRate: 15 }, audio: true }): Promise<void> {
    if (this.over) return;
    const tracks = await this.devices.captureScreen(options);
    if (this.over) return tracks.forEach((media) => media.stop());
    for (const media of tracks) {
      const source = media.kind === "audio" ? "screen-audio" : "screen";
      if (media.kind === "video") media.contentHint = "detail";
      media.onended = () => void this.stopScreen();
      if (this.over) media.stop();
      await this.publishTrack(media, source);
    }
  }

  async stopScreen(): Promise<void> {
    await Promise.all([this.unpublish("screen"), this.unpublish("screen-audio")]);
  }

  /** Publishes an application's own track; `source` is one of the known ones or starts with `x-`. */
  publishTrack(media: MediaStreamTrack, source: Source, options: PublishOptions = {}): Promise<void> {
    return this.inTurn(source, async () => {
      const kind = kindOf(source, media);
      const before = this.track(source).media;
      if (before !== media) this.stop(before);
      this.set({ source, kind, status: "on", media });
      await this.publishNow(source, options);
    });
  }

  unpublish(source: Source): Promise<void> {
    return this.inTurn(source, async () => {
      const now = this.track(source);
      if (now.status === "off") return;
      this.forget(source);
      if (now.trackId) await this.publisher.unpublish(source);
    });
  }

  /** Publishes what is on and may be published, and releases what the role no longer allows. */
  applyRole(role: Role | undefined): Promise<void> {
    return this.settle(() => role, () => undefined);
  }

  /** Both roles are asked when a source's turn comes; what only the awaited one may publish is kept, but not published. */
  private async settle(role: () => Role | undefined, awaited: () => Role | undefined): Promise<void> {
    const sources = [...this.store.state.local.keys()];
    await Promise.all(
      sources.map((source) =>
        this.inTurn(source, async () => {
          const now = this.track(source);
          if (!mayPublish(role(), source, now.kind)) {
            if (!mayPublish(awaited(), source, now.kind)) this.forget(source);
          } else if (now.status === "on" && !now.trackId) await this.publishNow(source, {});
        }),
      ),
    );
  }

  /** Publishes again what is on and the server no longer has; `known` are the ids of the tracks that it has. */
  async reconcile(known: ReadonlySet<string>): Promise<void> {
    for (const now of this.store.state.local.values()) {
      if (!now.trackId || known.has(now.trackId)) continue;
      if (now.status === "muted") this.forget(now.source);
      else this.set({ ...now, trackId: undefined });
    }
    // The devices of a preview for a role that was offered meanwhile must outlive this.
    await this.settle(
      () => ownRole(this.store.state),
      () => awaitedRole(this.store.state),
    );
  }

  /** Somebody else muted this track; the server already drops its packets. */
  mutedByOther(source: Source): Promise<void> {
    return this.inTurn(source, () => this.disableNow(source));
  }

  /** Stops every capture, for good: what somebody is still asked to allow is closed when it opens. */
  release(): void {
    this.over = true;
    for (const source of [...this.store.state.local.keys()]) this.forget(source);
  }

  private async enableNow(source: "mic" | "camera"): Promise<void> {
    const before = this.track(source);
    if (before.status === "on") return;
    const reuse = before.status === "muted" && before.media?.readyState === "live" ? before.media : undefined;
    if (!reuse) this.set({ ...before, status: "starting", error: undefined });
    const media = reuse ?? (await this.capture(source));
    if (!media) return;
    media.enabled = true;
    this.set({ ...before, status: "on", error: undefined, media, deviceId: deviceIdOf(media) });
    if (before.trackId) await this.guard(source, () => this.publisher.setMuted(source, false, media));
    else await this.publishNow(source, {});
  }

  private async disableNow(source: Source): Promise<void> {
    const now = this.track(source);
    if (now.status === "off" || now.status === "muted") return;
    const keep = now.kind === "audio" && now.trackId ? now.media : undefined;
    if (keep) keep.enabled = false;
    else this.stop(now.media);
    this.set({ ...now, status: now.trackId ? "muted" : "off", error: undefined, media: keep });
    if (now.trackId) await this.guard(source, () => this.publisher.setMuted(source, true, keep ?? null));
  }

  private async publishNow(source: Source, options: PublishOptions): Promise<void> {
    const now = this.track(source);
    if (!now.media || !this.observer.canPublish()) return;
    if (!mayPublish(ownRole(this.store.state), source, now.kind)) return;
    await this.guard(source, async () => {
      const trackId = await this.publisher.publish(source, now.kind, now.media!, options);
      const since = this.track(source);
      if (since.status !== "off") this.set({ ...since, trackId });
    });
  }

  private async capture(source: "mic" | "camera"): Promise<MediaStreamTrack | undefined> {
    const role = ownRole(this.store.state);
    const deviceId = this.chosen.get(source);
    try {
      const media =
        source === "mic"
          ? await this.devices.capture("audio", micConstraints(deviceId))
          : await this.devices.capture("video", cameraConstraints(role?.publish.videoParams, deviceId));
      if (this.over) {
        media.stop();
        return undefined;
      }
      media.onended = () => this.deviceLost(source);
      return media;
    } catch (thrown) {
      if (this.over) return undefined;
      const error = asAmphiError(thrown);
      this.set({ ...this.track(source), status: "failed", error, media: undefined });
      this.observer.failed(source, error);
      return undefined;
    }
  }

  private deviceLost(source: "mic" | "camera"): void {
    const error = new AmphiError("device_not_found", "the device was unplugged or taken away", true);
    void this.inTurn(source, async () => {
      await this.disableNow(source);
      this.set({ ...this.track(source), status: "failed", error });
      this.observer.failed(source, error);
    });
  }

  private async guard(source: Source, work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (thrown) {
      this.observer.failed(source, asAmphiError(thrown));
    }
  }

  private forget(source: Source): void {
    this.stop(this.track(source).media);
    const local = new Map(this.store.state.local);
    local.delete(source);
    this.store.update({ local });
    this.observer.changed();
  }

  private stop(media: MediaStreamTrack | undefined): void {
    if (!media) return;
    media.onended = null;
    media.stop();
  }

  private set(track: LocalTrack): void {
    this.store.update({ local: new Map(this.store.state.local).set(track.source, track) });
    this.observer.changed();
  }

  private inTurn(source: Source, work: () => Promise<void>): Promise<void> {
    const turn = (this.turns.get(source) ?? Promise.resolve()).then(() => (this.over ? undefined : work()));
    this.turns.set(
      source,
      turn.catch(() => undefined),
    );
    return turn;
  }
}

function deviceIdOf(media: MediaStreamTrack): string | undefined {
  return media.getSettings().deviceId;
}

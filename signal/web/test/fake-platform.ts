// The browser's boundary for tests in Node: sockets from ws, and an RTCPeerConnection that only keeps the books.
import { WebSocket } from "ws";
import type { Platform } from "../src/sdk/platform.js";

export class FakeTrack extends EventTarget {
  enabled = true;
  muted = false;
  readyState = "live";
  contentHint = "";
  onended: (() => void) | null = null;
  readonly id = Math.random().toString(36).slice(2);

  constructor(
    readonly kind: "audio" | "video",
    private readonly size = { width: 1280, height: 720 },
  ) {
    super();
  }

  getSettings() {
    return this.kind === "video" ? { ...this.size, deviceId: "camera-1" } : { deviceId: "mic-1" };
  }

  stop(): void {
    this.readyState = "ended";
  }
}

export class FakeSender {
  track: FakeTrack | null;
  parameters: { encodings: RTCRtpEncodingParameters[] };

  constructor(track: FakeTrack | null, encodings: RTCRtpEncodingParameters[]) {
    this.track = track;
    this.parameters = { encodings: encodings.map((e) => ({ ...e })) };
  }

  async replaceTrack(track: FakeTrack | null): Promise<void> {
    this.track = track;
  }

  getParameters() {
    return { encodings: this.parameters.encodings.map((e) => ({ ...e })) };
  }

  async setParameters(parameters: { encodings: RTCRtpEncodingParameters[] }): Promise<void> {
    this.parameters = parameters;
  }
}

export class FakeTransceiver {
  mid: string | null = null;
  direction: string;
  stopped = false;
  readonly sender: FakeSender;
  readonly receiver: { track: FakeTrack };

  constructor(
    readonly kind: "audio" | "video",
    track: FakeTrack | null,
    init: RTCRtpTransceiverInit,
  ) {
    this.direction = init.direction ?? "sendrecv";
    this.sender = new FakeSender(track, init.sendEncodings ?? []);
    this.receiver = { track: new FakeTrack(kind) };
  }

  setCodecPreferences(): void {
    // the order of codecs is tested where it is decided
  }

  stop(): void {
    this.stopped = true;
    this.direction = "stopped";
  }
}

export class FakePeerConnection {
  readonly transceivers: FakeTransceiver[] = [];
  connectionState: RTCPeerConnectionState = "new";
  iceConnectionState = "new";
  signalingState = "stable";
  onconnectionstatechange: (() => void) | null = null;
  offers: RTCOfferOptions[] = [];

  constructor(
    public configuration: RTCConfiguration = {},
    /** False: no path is found. */
    private readonly connects = true,
  ) {}

  addTransceiver(what: FakeTrack | "audio" | "video", init: RTCRtpTransceiverInit): FakeTransceiver {
    const track = typeof what === "string" ? null : what;
    const made = new FakeTransceiver(track?.kind ?? (what as "audio" | "video"), track, init);
    this.transceivers.push(made);
    return made;
  }

  async createOffer(options: RTCOfferOptions) {
    this.offers.push(options);
    return { type: "offer", sdp: `offer ${this.offers.length}` };
  }

  async setLocalDescription(description: { type: string }): Promise<void> {
    this.signalingState = description.type === "rollback" ? "stable" : "have-local-offer";
    this.transceivers.forEach((transceiver, i) => (transceiver.mid ??= String(i)));
  }

  async setRemoteDescription(): Promise<void> {
    this.signalingState = "stable";
    if (this.connectionState === "new" && this.connects) this.become("connected");
  }

  /** What has arrived, in bytes. */
  received = 0;

  /** Checks that were answered by the pair in use and by another one. */
  answers = { used: 0, other: 0 };

  async getStats() {
    const pair = { type: "candidate-pair", nominated: true, state: "succeeded" };
    return new Map<string, object>([
      ["transport", { type: "transport", id: "transport", selectedCandidatePairId: "pair" }],
      ["pair", { ...pair, id: "pair", bytesReceived: this.received, responsesReceived: this.answers.used }],
      ["other", { ...pair, id: "other", bytesReceived: 0, responsesReceived: this.answers.other }],
    ]);
  }

  getReceivers() {
    return [];
  }

  getConfiguration(): RTCConfiguration {
    return this.configuration;
  }

  setConfiguration(configuration: RTCConfiguration): void {
    this.configuration = configuration;
  }

  become(state: RTCPeerConnectionState): void {
    this.connectionState = this.iceConnectionState = state;
    this.onconnectionstatechange?.();
  }

  close(): void {
    this.connectionState = "closed";
  }
}

export interface FakePlatform extends Platform {
  readonly connections: FakePeerConnection[];
  readonly captured: FakeTrack[];
  /** Rings as when the browser says that the network changed, or is back. */
  networkChanged(back?: boolean): void;
  captureFails?: Error | undefined;
  /** What cameras, microphones and screens wait for, as for somebody's permission. */
  captureWaits?: Promise<void>;
  /** Connections made from now on find no path. */
  unreachable?: boolean;
}

export function fakePlatform(memory = new Map<string, string>()): FakePlatform {
  const connections: FakePeerConnection[] = [];
  const captured: FakeTrack[] = [];
  const watchers = new Set<(back: boolean) => void>();
  const platform: FakePlatform = {
    connections,
    captured,
    networkChanged: (back = false) => watchers.forEach((watcher) => watcher(back)),
    webSocket: (url, protocols) => new WebSocket(url, protocols) as unknown as globalThis.WebSocket,
    fetch: (url, init) => fetch(url, init),
    peerConnection: (configuration) => {
      const made = new FakePeerConnection(configuration, !platform.unreachable);
      connections.push(made);
      return made as unknown as RTCPeerConnection;
    },
    mediaDevices: () =>
      ({
        getUserMedia: async (constraints: MediaStreamConstraints) => {
          await platform.captureWaits;
          if (platform.captureFails) throw platform.captureFails;
          const track = new FakeTrack(constraints.audio ? "audio" : "video");
          captured.push(track);
          return { getTracks: () => [track] };
        },
        getDisplayMedia: async () => {
          await platform.captureWaits;
          const track = new FakeTrack("video");
          captured.push(track);
          return { getTracks: () => [track] };
        },
        enumerateDevices: async () => [],
        addEventListener: () => undefined,
        removeEventListener: () => undefined,
      }) as unknown as MediaDevices,
    storage: () =>
      ({
        getItem: (key: string) => memory.get(key) ?? null,
        setItem: (key: string, value: string) => void memory.set(key, value),
        removeItem: (key: string) => void memory.delete(key),
      }) as unknown as Storage,
    every: (ms, callback) => {
      const timer = setInterval(callback, ms);
      return () => clearInterval(timer);
    },
    onNetworkChange: (callback) => {
      watchers.add(callback);
      return () => void watchers.delete(callback);
    },
    claim: async () => true,
    now: () => Date.now(),
  };
  return platform;
}

/** Waits until something holds, or fails with what was waited for. */
export async function until(what: string, holds: () => boolean, timeoutMs = 8_000): Promise<void> {
  const deadline = Date.now() + timeoutMs;
  while (!holds()) {
    if (Date.now() > deadline) throw new Error(`waited in vain until ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

import type { AmphiError } from "./errors.js";
import type {
  Delivery,
  Kind,
  Message,
  Output,
  Peer,
  Role,
  RoleChangeRequest,
  ServerInfo,
  Source,
  Speaker,
  StoreEntry,
  Stream,
  Template,
  TrackQuality,
} from "./model.js";

/** Where this client is on its way through a room. `left` and `failed` are final. */
export type Phase = "idle" | "connecting" | "preview" | "joining" | "joined" | "reconnecting" | "left" | "failed";

/** One of this peer's own sources. */
export interface LocalTrack {
  readonly source: Source;
  readonly kind: Kind;
  /** `off`: nothing captured · `starting` · `on` · `muted`: published but silent · `failed`: see error. */
  readonly status: "off" | "starting" | "on" | "muted" | "failed";
  readonly error?: AmphiError;
  readonly deviceId?: string;
  /** Once published. */
  readonly trackId?: string;
  readonly media?: MediaStreamTrack;
}

export interface UnmuteRequest {
  readonly by: string;
  readonly sources: readonly Source[];
}

/** Everything that an app needs to draw a room. Values are replaced, never changed in place. */
export interface RoomState {
  readonly phase: Phase;
  /** Why the phase is `left`, `failed` or `reconnecting`. */
  readonly error?: AmphiError;
  readonly room: string;
  readonly sessionId: string;
  readonly startedMs: number;
  readonly template?: Template;
  readonly server?: ServerInfo;
  /** This peer's id; empty before the join. */
  readonly selfId: string;
  /** The role of this peer, before the join that of its token. */
  readonly roleName: string;
  readonly userId: string;
  /** The peers that this client is told of, itself included. In large rooms these are not all. */
  readonly peers: ReadonlyMap<string, Peer>;
  readonly total: number;
  readonly roleCounts: Readonly<Record<string, number>>;
  /** Chat, oldest first, bounded. Messages of other types are only events. */
  readonly messages: readonly Message[];
  readonly store: ReadonlyMap<string, StoreEntry>;
  readonly streams: ReadonlyMap<string, Stream>;
  /** The session's recordings and pushes by id, in the order of their start; ended ones too. */
  readonly outputs: ReadonlyMap<string, Output>;
  /** Paths by stream that this peer plays, with its playback tokens; in use in `streams` already. */
  readonly playback: ReadonlyMap<string, string>;
  readonly locked: boolean;
  readonly metadata: string;
  readonly chatPaused: boolean;
  /**
   * How far the room can decide. `frozen`: people come, go and mute themselves, other requests fail for now and may be
   * repeated. `no-owner`: media goes on, requests wait.
   */
  readonly mode: "normal" | "frozen" | "no-owner";
  readonly roleRequest?: RoleChangeRequest;
  /** The role that was accepted, until it is had. */
  readonly acceptedRole?: string;
  readonly unmuteRequest?: UnmuteRequest;
  /** Who speaks now: the dominant speaker, then the others, loudest first. */
  readonly speakers: readonly Speaker[];
  /** Of the link to this client: -1 unknown, 0 lost to 5 excellent. */
  readonly network: number;
  readonly estimateKbps: number;
  /** Of received tracks, by track id. */
  readonly qualities: ReadonlyMap<string, TrackQuality>;
  readonly transport: "none" | "connecting" | "connected" | "interrupted";
  /** The browser wants a click before it plays sound. */
  readonly audioBlocked: boolean;
  /** Which picture to show, and which one is being made ready while the other still shows. */
  readonly picture: { readonly shown: Delivery; readonly next: Delivery };
  readonly local: ReadonlyMap<Source, LocalTrack>;
}

export const emptyState: RoomState = {
  phase: "idle",
  room: "",
  sessionId: "",
  startedMs: 0,
  selfId: "",
  roleName: "",
  userId: "",
  peers: new Map(),
  total: 0,
  roleCounts: {},
  messages: [],
  store: new Map(),
  streams: new Map(),
  outputs: new Map(),
  playback: new Map(),
  locked: false,
  metadata: "",
  chatPaused: false,
  mode: "normal",
  speakers: [],
  network: -1,
  estimateKbps: 0,
  qualities: new Map(),
  transport: "none",
  audioBlocked: false,
  picture: { shown: "none", next: "none" },
  local: new Map(),
};

export const selfOf = (state: RoomState): Peer | undefined => state.peers.get(state.selfId);

export const roleNamed = (state: RoomState, name: string): Role | undefined =>
  state.template?.roles.find((role) => role.name === name);

export const ownRole = (state: RoomState): Role | undefined => roleNamed(state, state.roleName);

/** The role that this peer is asked to take, or has accepted. */
export const awaitedRole = (state: RoomState): Role | undefined =>
  roleNamed(state, state.roleRequest?.role ?? state.acceptedRole ?? "");

/** Raised hands, first come first. */
export const raisedHands = (state: RoomState): Peer[] =>
  [...state.peers.values()].filter((peer) => peer.handRaisedMs > 0).sort((a, b) => a.handRaisedMs - b.handRaisedMs);

export const peerOfTrack = (state: RoomState, trackId: string): Peer | undefined =>
  [...state.peers.values()].find((peer) => peer.tracks.some((track) => track.id === trackId));

/** The stream that this peer's role plays, or else the first one there is. */
export const ownStream = (state: RoomState): Stream | undefined =>
  state.streams.get(ownRole(state)?.subscribe.stream ?? "main") ?? state.streams.values().next().value;

/** Whether an output has not ended. */
export const working = (output: Output): boolean => output.phase !== "stopped" && output.phase !== "failed";

/** How far the room is recorded now: `paused` when all recordings are. */
export const recordingOf = (state: RoomState): "off" | "starting" | "on" | "paused" => {
  const phases = [...state.outputs.values()].filter((o) => o.kind !== "push" && working(o)).map((o) => o.phase);
  if (phases.length === 0) return "off";
  if (phases.includes("active")) return "on";
  return phases.every((phase) => phase === "paused") ? "paused" : "starting";
};

/** Holds the state and tells listeners, once per turn of the event loop however much changed. */
export class StateStore {
  private current = emptyState;
  private readonly listeners = new Set<(state: RoomState) => void>();
  private scheduled = false;

  get state(): RoomState {
    return this.current;
  }

  update(change: Partial<RoomState>): void {
    this.replace({ ...this.current, ...change });
  }

  replace(state: RoomState): void {
    this.current = state;
    if (this.scheduled) return;
    this.scheduled = true;
    queueMicrotask(() => {
      this.scheduled = false;
      for (const listener of [...this.listeners]) listener(this.current);
    });
  }

  subscribe(listener: (state: RoomState) => void): () => void {
    this.listeners.add(listener);
    return () => void this.listeners.delete(listener);
  }
}

// The nouns of the API, as plain read-only values. Times are milliseconds since 1970.

export type Kind = "audio" | "video";
export type Delivery = "none" | "webrtc" | "hls";
export type StreamPhase = "starting" | "live" | "stopped" | "failed";
/** A recording of a stream or of tracks, or a push of a stream to another server. */
export type OutputKind = "recording" | "tracks" | "push";
export type OutputPhase = "starting" | "active" | "paused" | "retrying" | "stopped" | "failed";
export type LayoutKind = "auto" | "grid" | "active-speaker" | "screen" | "single" | "picture-in-picture";

/**
 * How a stream's layout looks. What is left out is the default. Lengths are thousandths of the picture's shorter side, so
 * that one document fits every size, landscape and portrait.
 */
export interface LayoutOptions {
  /** Peer that is large instead of who speaks, as long as it is on stage. */
  readonly pinnedPeer?: string;
  /** The most tiles at once, 1 to 16. */
  readonly maxTiles?: number;
  /** Between tiles, 0 to 100. */
  readonly gap?: number;
  /** Around all tiles, 0 to 200. */
  readonly margin?: number;
  /** Cameras fill their tiles, or are shown whole. */
  readonly fit?: "cover" | "contain";
  readonly names?: boolean;
  /** Border around who speaks: `#rrggbb` or `none`. */
  readonly highlight?: string;
  /** `#rrggbb` */
  readonly background?: string;
  /** Name of a picture that was uploaded through the API. */
  readonly backgroundPicture?: string;
  readonly logo?: {
    readonly picture: string;
    readonly corner?: "top-left" | "top-right" | "bottom-left" | "bottom-right";
    /** Height, 10 to 500. */
    readonly size?: number;
    /** From the edges, 0 to 200. */
    readonly margin?: number;
    /** Per cent. */
    readonly opacity?: number;
  };
  /** How long a change fades, 0 to 2000 ms. */
  readonly fadeMs?: number;
}
export type LeaveReason = "left" | "lost" | "removed" | "room-ended" | "expired";
/** Circle of the amphitheatre: 1 on stage, 2 off stage in real time, 3 the live-stream audience. */
export type Level = 1 | 2 | 3;
/** `mic`, `camera`, `screen`, `screen-audio`, or an application's own with the prefix `x-`. */
export type Source = string;

export interface SimulcastLayer {
  readonly rid: string;
  readonly scaleDownBy: number;
  readonly maxBitrateKbps: number;
  readonly maxFramerate: number;
}

export interface VideoParams {
  readonly bitrateKbps: number;
  readonly framerate: number;
  readonly width: number;
  readonly height: number;
  readonly codecs: readonly string[];
  readonly layers: readonly SimulcastLayer[];
}

export interface Permissions {
  readonly endRoom: boolean;
  readonly removeOthers: boolean;
  readonly muteOthers: boolean;
  readonly askUnmute: boolean;
  readonly changeRole: boolean;
  readonly sendBroadcast: boolean;
  readonly sendToRoles: boolean;
  readonly sendDirect: boolean;
  readonly react: boolean;
  readonly sendEvents: boolean;
  readonly raiseHand: boolean;
  readonly writeStore: readonly string[];
  readonly managePolls: boolean;
  readonly answerPolls: boolean;
  readonly controlStream: boolean;
  /** Put timed metadata and captions into streams. */
  readonly annotateStream: boolean;
  readonly controlRecording: boolean;
  readonly controlPush: boolean;
  readonly moderateChat: boolean;
  readonly previewRoomState: boolean;
  readonly manageRoom: boolean;
}

export interface Role {
  readonly name: string;
  /** What people read; the name where the template gives no title. */
  readonly title: string;
  readonly level: Level;
  readonly publish: {
    readonly audio: boolean;
    readonly video: boolean;
    readonly screen: boolean;
    /** kbit/s */
    readonly audioBitrateKbps: number;
    readonly videoParams?: VideoParams;
    readonly screenParams?: VideoParams;
  };
  readonly subscribe: {
    readonly delivery: Delivery;
    readonly roles: readonly string[];
    /** The stream that a role with delivery `hls` plays. */
    readonly stream: string;
  };
  /** How many peers may have the role at once; 0 is no limit. */
  readonly maxPeers: number;
  readonly permissions: Permissions;
  /** Roles that "bring on stage" and "remove from stage" lead to; empty where the role offers neither. */
  readonly stageRole: string;
  readonly offStageRole: string;
}

export interface Template {
  readonly name: string;
  readonly description: string;
  readonly roles: readonly Role[];
  readonly streams: readonly { readonly name: string; readonly layout: LayoutKind; readonly roles: readonly string[] }[];
  /** Recordings and pushes that can be started by name. */
  readonly destinations: readonly Destination[];
  /** Peers encrypt what they publish; who has no key cannot publish. */
  readonly endToEndEncrypted: boolean;
}

export interface Track {
  readonly id: string;
  readonly kind: Kind;
  readonly source: Source;
  readonly muted: boolean;
  readonly width: number;
  readonly height: number;
  readonly codec: string;
  readonly description: string;
}

export interface Peer {
  readonly id: string;
  readonly name: string;
  readonly userId: string;
  readonly role: string;
  readonly metadata: string;
  readonly joinedMs: number;
  /** When the hand was raised; 0 is down. */
  readonly handRaisedMs: number;
  readonly tracks: readonly Track[];
  readonly previousRole: string;
  /** The peer's connection is lost and its place is held. */
  readonly lost: boolean;
  readonly chatBlocked: boolean;
}

export interface Recipients {
  readonly roles: readonly string[];
  readonly peers: readonly string[];
}

export interface Message {
  /** The number of the room event that carried it. */
  readonly id: number;
  readonly sender: string;
  readonly senderName: string;
  readonly senderRole: string;
  /** `chat`, `reaction` or an application's own. */
  readonly type: string;
  readonly text: string;
  /** Both lists empty: for everybody. */
  readonly to: Recipients;
  readonly timeMs: number;
  readonly pinned: boolean;
}

export interface StoreEntry {
  readonly key: string;
  /** A JSON value, encoded. */
  readonly value: string;
  readonly revision: number;
  readonly updatedBy: string;
  readonly updatedMs: number;
}

export interface Stream {
  readonly name: string;
  readonly phase: StreamPhase;
  /** Address of the multivariant playlist; empty until there is one. */
  readonly url: string;
  readonly startedMs: number;
  readonly startedBy: string;
  readonly failure: string;
  readonly layout: LayoutKind;
  readonly layoutOptions: LayoutOptions;
}

export interface Output {
  readonly id: string;
  readonly kind: OutputKind;
  /** The stream that it is made of; empty for tracks. */
  readonly stream: string;
  readonly phase: OutputPhase;
  /** Since when it is in this phase. */
  readonly phaseMs: number;
  /** Where a push goes, without its secrets. */
  readonly url: string;
  /** Empty: the best for a push, all for a recording. */
  readonly variant: string;
  /** The template's destination that it was started from. */
  readonly destination: string;
  readonly startedMs: number;
  /** When it was active first; 0: not yet. */
  readonly activeMs: number;
  readonly startedBy: string;
  /** Why it failed or is being tried again. */
  readonly failure: string;
  readonly bytes: number;
  readonly retries: number;
}

export interface Destination {
  readonly name: string;
  readonly kind: OutputKind;
  readonly stream: string;
  /** Without its secrets. */
  readonly url: string;
  /** It starts with its stream. */
  readonly autoStart: boolean;
}

export interface RoleChangeRequest {
  readonly requestId: string;
  readonly role: string;
  readonly by: string;
  readonly byName: string;
}

export interface Speaker {
  readonly peerId: string;
  readonly trackId: string;
  /** dBov, -127 to 0. */
  readonly level: number;
}

/** What a peer wants of one received track besides what follows from the size at which it is shown. */
export interface Preference {
  /** The highest simulcast layer, 0 lowest; absent is no bound. */
  readonly maxSpatial?: number;
  /** Nothing is sent for now. */
  readonly paused?: boolean;
}

export interface TrackQuality {
  readonly trackId: string;
  /** Simulcast layers, 0 lowest; -1 is none. */
  readonly max: number;
  readonly target: number;
  readonly current: number;
  /**
   * Why `current` is not the best there is: empty (it is), `size` (no more is needed), `preference` (no more was asked
   * for), `bandwidth`, `hidden`, `muted` (by the server), `not_loudest` (others speak), `codec` (this browser has no
   * decoder for it), `publisher` (does not send it) or `starting`.
   */
  readonly reason: string;
  readonly bitrateKbps: number;
}

export interface ServerInfo {
  readonly node: string;
  readonly region: string;
  readonly version: string;
  readonly iceServers: readonly RTCIceServer[];
  readonly pingIntervalMs: number;
  readonly pingTimeoutMs: number;
  readonly resumeWindowMs: number;
}

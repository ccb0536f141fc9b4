// Amphi's web SDK. README.md in this folder's parent is its guide.
export { Room } from "./room.js";
export type { JoinOptions, RoomConfig } from "./room.js";
export type { RoomEvents } from "./events.js";
export type { EncryptionError, MediaEncryption } from "./encryption.js";
export { ownRole, ownStream, peerOfTrack, raisedHands, recordingOf, roleNamed, selfOf, working } from "./state.js";
export type { LocalTrack, Phase, RoomState, UnmuteRequest } from "./state.js";
export { AmphiError, asAmphiError } from "./errors.js";
export { mayPublish } from "./publishing.js";
export { receivable } from "./subscriptions.js";
export { Devices, meterLevel } from "./devices.js";
export type { Device, DeviceKind } from "./devices.js";
export type { PlayerConfig, PlayerEvents, PlayerStats, StreamPlayer } from "./player.js";
export type { StreamCue } from "./cues.js";
export type { StreamCaptions, StreamLevel, StreamWindow } from "./playback.js";
export type { LocalMedia, PublishOptions } from "./local.js";
export type {
  Caption,
  Chat,
  CueOptions,
  OutputOptions,
  PeerPage,
  Peers,
  Pushes,
  Recordings,
  RoleChange,
  Roles,
  SendOptions,
  SessionStore,
  Streams,
  TrackOptions,
} from "./actions.js";
export type { PathOptions } from "./path.js";
export type { Platform } from "./platform.js";
export type * from "./model.js";

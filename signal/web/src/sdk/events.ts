import type { EncryptionError } from "./encryption.js";
import type { AmphiError } from "./errors.js";
import type { LeaveReason, Message, Output, Peer, RoleChangeRequest, Source, StoreEntry, Stream, Track, TrackQuality } from "./model.js";
import type { UnmuteRequest } from "./state.js";

/** What `room.on(name, listener)` tells. `by` is a peer id, empty for the management API. */
export interface RoomEvents {
  "peer-joined": { peer: Peer };
  "peer-updated": { peer: Peer; what: "name" | "metadata" | "hand" | "chat-block" | "other"; by: string };
  "peer-left": { peer: Peer; reason: LeaveReason; message: string; by: string };
  "role-changed": { peer: Peer; from: string; to: string; by: string; forced: boolean; self: boolean };
  "track-published": { peer: Peer; track: Track };
  "track-updated": { peer: Peer; track: Track; by: string };
  "track-unpublished": { peer: Peer; track: Track };
  /** One of this peer's own tracks was muted by somebody else. */
  "muted-by-other": { track: Track; by: string };
  "unmute-requested": UnmuteRequest;
  /** How a received track is, and why; whenever that of any track has changed. */
  "track-quality": TrackQuality;
  /** Of every type. Chat is kept in the state as well. */
  message: Message;
  "chat-moderated": {
    action: "pin" | "unpin" | "hide" | "block" | "unblock" | "pause" | "continue";
    subject: string;
    by: string;
  };
  "store-changed": { key: string; entry?: StoreEntry };
  "role-change-requested": RoleChangeRequest;
  /** To who asked; one that `expired`, to who was asked as well. */
  "role-change-answered": { requestId: string; peerId: string; accepted: boolean; expired: boolean; by: string };
  "room-updated": { locked: boolean; metadata: string };
  "stream-changed": Stream;
  /** A recording or a push has begun, ended, or does otherwise than before. */
  "output-changed": Output;
  reconnecting: { error: AmphiError };
  /** `resumed` is false when the peer had to join again, under another id. */
  reconnected: { resumed: boolean };
  /** This client's part in the room is over. Code `left` when it was its own wish. */
  ended: { error: AmphiError };
  /** Capture or publishing of an own source went wrong. */
  "local-failed": { source: Source; error: AmphiError };
  /** Media could not be encrypted or decrypted, and was dropped. */
  "encryption-error": EncryptionError;
}

/** One event with its name, as the reducer returns it. */
export type RoomNotice = { [K in keyof RoomEvents]: { name: K; payload: RoomEvents[K] } }[keyof RoomEvents];

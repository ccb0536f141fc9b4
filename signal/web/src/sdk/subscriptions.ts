// What this client wants to receive, from what there is and what is shown: pure.
import type { Peer, Preference, Track } from "./model.js";
import { ownRole } from "./state.js";
import type { RoomState } from "./state.js";

/** The size in pixels at which a track is shown; 0 × 0 is attached but hidden. */
export interface ShownSize {
  readonly width: number;
  readonly height: number;
}

export interface Wanted extends ShownSize, Preference {
  readonly trackId: string;
}

// Sizes are rounded up to this, so that a dragged window does not make a message per pixel.
const sizeStep = 16;

/** The tracks of others that this peer's role receives over WebRTC. */
export function receivable(state: RoomState): { peer: Peer; track: Track }[] {
  const subscribe = ownRole(state)?.subscribe;
  if (subscribe?.delivery !== "webrtc") return [];
  const found: { peer: Peer; track: Track }[] = [];
  for (const peer of state.peers.values()) {
    if (peer.id === state.selfId || !subscribe.roles.includes(peer.role)) continue;
    for (const track of peer.tracks) found.push({ peer, track });
  }
  return found;
}

/**
 * Every audio track, and the video tracks that something is attached to.
 * An audio track has no size; it carries any but 0 × 0, which would mean hidden.
 */
export function wantedTracks(
  state: RoomState,
  shown: ReadonlyMap<string, ShownSize>,
  preferences: ReadonlyMap<string, Preference> = new Map(),
): Wanted[] {
  const wanted: Wanted[] = [];
  for (const { track } of receivable(state)) {
    const { id } = track;
    const size = track.kind === "audio" ? { width: 1, height: 1 } : shown.get(id);
    if (size) wanted.push({ trackId: id, width: stepUp(size.width), height: stepUp(size.height), ...preferences.get(id) });
  }
  return wanted.sort((a, b) => (a.trackId < b.trackId ? -1 : 1));
}

/** Of wanted tracks those that should be arriving: shown, not muted, of peers that are there. */
export function flowing(state: RoomState, wanted: readonly Wanted[]): string[] {
  const live = receivable(state).filter(({ peer, track }) => !peer.lost && !track.muted);
  const ids = new Set(live.map(({ track }) => track.id));
  return wanted.filter(({ trackId, paused, width, height }) => !paused && width * height > 0 && ids.has(trackId)).map(({ trackId }) => trackId);
}

/** How many receiving sections a new transport starts with; the server asks for more when they run short. */
export function slotsToStartWith(state: RoomState): { audio: number; video: number } {
  if (ownRole(state)?.subscribe.delivery !== "webrtc") return { audio: 0, video: 0 };
  const tracks = receivable(state).map(({ track }) => track);
  const audio = tracks.filter((track) => track.kind === "audio").length;
  const video = tracks.length - audio;
  return { audio: clamp(audio + 1, 2, 10), video: clamp(video + 1, 3, 12) };
}

function stepUp(pixels: number): number {
  return Math.ceil(pixels / sizeStep) * sizeStep;
}

function clamp(n: number, low: number, high: number): number {
  return Math.min(high, Math.max(low, n));
}

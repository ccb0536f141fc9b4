// The room's state as a pure function of numbered events.
import type { ChatModerated, Event, PeerUpdated, RoomState as GenRoomState } from "../gen/amphi/v1/room_pb.js";
import { PeerUpdated_What as What } from "../gen/amphi/v1/room_pb.js";
import { leaveReasonOf, messageOf, outputOf, peerOf, storeEntryOf, streamOf, templateOf, trackOf } from "./convert.js";
import type { RoomNotice } from "./events.js";
import type { Message, Output, Peer, Track } from "./model.js";
import { working } from "./state.js";
import type { RoomState } from "./state.js";

/** The most chat messages that are kept. */
export const maxMessages = 500;
const maxOutputs = 64;

type Reduced = readonly [RoomState, RoomNotice[]];

/** The state with a whole snapshot from the server taken over. */
export function takeSnapshot(state: RoomState, snapshot: GenRoomState, server: string): RoomState {
  const peers = new Map(snapshot.peers.map((p) => [p.id, peerOf(p)]));
  const self = peers.get(state.selfId);
  const pending = snapshot.pending.find((request) => request.peerId === state.selfId);
  const total = Object.values(snapshot.roleCounts).reduce((sum, n) => sum + n, 0);
  return {
    ...state,
    room: snapshot.room || state.room,
    sessionId: snapshot.sessionId,
    startedMs: Number(snapshot.startedMs),
    template: snapshot.template ? templateOf(snapshot.template) : state.template,
    roleName: self?.role ?? state.roleName,
    peers,
    total: total || peers.size,
    roleCounts: total ? snapshot.roleCounts : countRoles(peers.values()),
    messages: snapshot.messages.map(messageOf).filter((message) => message.type === "chat"),
    store: new Map(snapshot.store.map((entry) => [entry.key, storeEntryOf(entry)])),
    streams: new Map(snapshot.streams.map((stream) => [stream.name, streamOf(stream, server, state.playback)])),
    outputs: new Map(snapshot.outputs.map((output) => [output.id, outputOf(output)])),
    locked: snapshot.locked,
    metadata: snapshot.metadata,
    chatPaused: snapshot.chatPaused,
    roleRequest: pending && {
      requestId: pending.requestId,
      role: pending.role,
      by: pending.by,
      byName: pending.byName,
    },
  };
}

/** The state with other addresses of its streams: tokens run out, and whoever comes back gets new ones. */
export function takePlayback(state: RoomState, own: ReadonlyMap<string, string>, server: string): RoomState {
  const streams = new Map(state.streams);
  for (const [name, stream] of streams) {
    const path = own.get(name);
    if (path && stream.url) streams.set(name, { ...stream, url: new URL(path, server).href });
  }
  return { ...state, playback: own, streams };
}

/** The state after one event, and what to tell listeners. */
export function applyEvent(state: RoomState, event: Event, server: string): Reduced {
  const body = event.body;
  switch (body.case) {
    case "peerJoined":
      return body.value.peer ? peerJoined(state, peerOf(body.value.peer)) : [state, []];
    case "peerUpdated":
      return peerUpdated(state, body.value);
    case "peerLeft":
      return peerLeft(state, body.value.peerId, {
        reason: leaveReasonOf(body.value.reason),
        message: body.value.message,
        by: body.value.by,
      });
    case "trackPublished":
      return body.value.track ? trackPublished(state, body.value.peerId, trackOf(body.value.track)) : [state, []];
    case "trackUpdated":
      return body.value.track
        ? trackUpdated(state, body.value.peerId, trackOf(body.value.track), body.value.by)
        : [state, []];
    case "trackUnpublished":
      return trackUnpublished(state, body.value.peerId, body.value.trackId);
    case "message":
      return message(state, messageOf(body.value));
    case "chatModerated":
      return chatModerated(state, body.value);
    case "storeChanged":
      return storeChanged(state, body.value.entry && storeEntryOf(body.value.entry), body.value.deleted);
    case "roleChangeRequested": {
      const { requestId, role, by, byName } = body.value;
      const request = { requestId, role, by, byName };
      return [{ ...state, roleRequest: request }, [{ name: "role-change-requested", payload: request }]];
    }
    case "roleChangeAnswered": {
      const { requestId, peerId, accepted, expired, by } = body.value;
      const open = state.roleRequest?.requestId === requestId ? undefined : state.roleRequest;
      return [{ ...state, roleRequest: open }, [{ name: "role-change-answered", payload: { requestId, peerId, accepted, expired, by } }]];
    }
    case "unmuteRequested": {
      const request = { by: body.value.by, sources: sourcesAsked(state, body.value.sources, body.value.trackIds) };
      return [{ ...state, unmuteRequest: request }, [{ name: "unmute-requested", payload: request }]];
    }
    case "roomUpdated": {
      const { locked, metadata } = body.value;
      return [{ ...state, locked, metadata }, [{ name: "room-updated", payload: { locked, metadata } }]];
    }
    case "streamChanged": {
      if (!body.value.stream) return [state, []];
      const stream = streamOf(body.value.stream, server, state.playback);
      const streams = new Map(state.streams).set(stream.name, stream);
      return [{ ...state, streams }, [{ name: "stream-changed", payload: stream }]];
    }
    case "outputChanged": {
      if (!body.value.output) return [state, []];
      const output = outputOf(body.value.output);
      const outputs = keepOutputs(new Map(state.outputs).set(output.id, output));
      return [{ ...state, outputs }, [{ name: "output-changed", payload: output }]];
    }
    case "sessionStarted":
      return [{ ...state, sessionId: body.value.sessionId, startedMs: Number(event.timeMs) }, []];
    default:
      return [state, []]; // roomEnded arrives with a goodbye; unknown events are ignored
  }
}

/** Of the outputs that have ended the oldest go, as at the server. */
function keepOutputs(outputs: Map<string, Output>): Map<string, Output> {
  if (outputs.size > maxOutputs) {
    const oldest = [...outputs.values()].find((output) => !working(output));
    if (oldest) outputs.delete(oldest.id);
  }
  return outputs;
}

function peerJoined(state: RoomState, peer: Peer): Reduced {
  const known = state.peers.get(peer.id);
  const next = withPeer(state, peer);
  if (known) return [next, []];
  return [recount(next, peer.role, 1), [{ name: "peer-joined", payload: { peer } }]];
}

function peerUpdated(state: RoomState, update: PeerUpdated): Reduced {
  if (!update.peer) return [state, []];
  const peer = peerOf(update.peer);
  const before = state.peers.get(peer.id);
  let next = withPeer(state, peer);
  if (before && before.role !== peer.role) {
    next = recount(recount(next, before.role, -1), peer.role, 1);
    const self = peer.id === state.selfId;
    if (self) next = { ...next, roleName: peer.role, roleRequest: undefined, acceptedRole: undefined };
    const payload = { peer, from: before.role, to: peer.role, by: update.by, forced: update.forced, self };
    return [next, [{ name: "role-changed", payload }]];
  }
  const what = whatNames[update.what] ?? "other";
  return [next, [{ name: "peer-updated", payload: { peer, what, by: update.by } }]];
}

const whatNames: Partial<Record<What, "name" | "metadata" | "hand" | "chat-block">> = {
  [What.NAME]: "name",
  [What.METADATA]: "metadata",
  [What.HAND]: "hand",
  [What.CHAT_BLOCK]: "chat-block",
};

function peerLeft(
  state: RoomState,
  peerId: string,
  how: { reason: ReturnType<typeof leaveReasonOf>; message: string; by: string },
): Reduced {
  const peer = state.peers.get(peerId);
  if (!peer) return [state, []];
  const peers = new Map(state.peers);
  peers.delete(peerId);
  const speakers = state.speakers.filter((speaker) => speaker.peerId !== peerId);
  const next = recount({ ...state, peers, speakers }, peer.role, -1);
  return [next, [{ name: "peer-left", payload: { peer, ...how } }]];
}

function trackPublished(state: RoomState, peerId: string, track: Track): Reduced {
  const peer = state.peers.get(peerId);
  if (!peer) return [state, []];
  const changed = { ...peer, tracks: [...peer.tracks.filter((t) => t.id !== track.id), track] };
  return [withPeer(state, changed), [{ name: "track-published", payload: { peer: changed, track } }]];
}

function trackUpdated(state: RoomState, peerId: string, track: Track, by: string): Reduced {
  const peer = state.peers.get(peerId);
  const before = peer?.tracks.find((t) => t.id === track.id);
  if (!peer || !before) return [state, []];
  const changed = { ...peer, tracks: peer.tracks.map((t) => (t.id === track.id ? track : t)) };
  const notices: RoomNotice[] = [{ name: "track-updated", payload: { peer: changed, track, by } }];
  if (peerId === state.selfId && by !== peerId && track.muted && !before.muted) {
    notices.push({ name: "muted-by-other", payload: { track, by } });
  }
  return [withPeer(state, changed), notices];
}

function trackUnpublished(state: RoomState, peerId: string, trackId: string): Reduced {
  const peer = state.peers.get(peerId);
  const track = peer?.tracks.find((t) => t.id === trackId);
  if (!peer || !track) return [state, []];
  const changed = { ...peer, tracks: peer.tracks.filter((t) => t.id !== trackId) };
  const qualities = new Map(state.qualities);
  qualities.delete(trackId);
  return [
    { ...withPeer(state, changed), qualities },
    [{ name: "track-unpublished", payload: { peer: changed, track } }],
  ];
}

function message(state: RoomState, said: Message): Reduced {
  const notices: RoomNotice[] = [{ name: "message", payload: said }];
  if (said.type !== "chat") return [state, notices];
  return [{ ...state, messages: [...state.messages, said].slice(-maxMessages) }, notices];
}

function chatModerated(state: RoomState, moderated: ChatModerated): Reduced {
  const action = moderated.action?.action;
  const told = (name: "pin" | "unpin" | "hide" | "block" | "unblock" | "pause" | "continue", subject: unknown) => [
    { name: "chat-moderated" as const, payload: { action: name, subject: String(subject), by: moderated.by } },
  ];
  const pinned = (id: bigint, on: boolean): RoomState => ({
    ...state,
    messages: state.messages.map((m) => (m.id === Number(id) ? { ...m, pinned: on } : m)),
  });
  const blocked = (id: string, on: boolean): RoomState => {
    const peer = state.peers.get(id);
    return peer ? withPeer(state, { ...peer, chatBlocked: on }) : state;
  };
  switch (action?.case) {
    case "pin":
      return [pinned(action.value, true), told("pin", action.value)];
    case "unpin":
      return [pinned(action.value, false), told("unpin", action.value)];
    case "hide": {
      const messages = state.messages.filter((m) => m.id !== Number(action.value));
      return [{ ...state, messages }, told("hide", action.value)];
    }
    case "blockPeer":
      return [blocked(action.value, true), told("block", action.value)];
    case "unblockPeer":
      return [blocked(action.value, false), told("unblock", action.value)];
    case "pause":
      return [{ ...state, chatPaused: action.value }, told(action.value ? "pause" : "continue", "")];
    default:
      return [state, []];
  }
}

function storeChanged(
  state: RoomState,
  entry: ReturnType<typeof storeEntryOf> | undefined,
  deleted: boolean,
): Reduced {
  if (!entry) return [state, []];
  const store = new Map(state.store);
  if (deleted) store.delete(entry.key);
  else store.set(entry.key, entry);
  const payload = deleted ? { key: entry.key } : { key: entry.key, entry };
  return [{ ...state, store }, [{ name: "store-changed", payload }]];
}

/** The own sources that an unmute request means, whether it named sources or tracks. */
function sourcesAsked(state: RoomState, sources: readonly string[], trackIds: readonly string[]): string[] {
  const own = state.peers.get(state.selfId)?.tracks ?? [];
  const byTrack = own.filter((track) => trackIds.includes(track.id)).map((track) => track.source);
  return [...new Set([...sources, ...byTrack])];
}

function withPeer(state: RoomState, peer: Peer): RoomState {
  return { ...state, peers: new Map(state.peers).set(peer.id, peer) };
}

function recount(state: RoomState, role: string, by: 1 | -1): RoomState {
  const n = Math.max(0, (state.roleCounts[role] ?? 0) + by);
  const roleCounts = { ...state.roleCounts, [role]: n };
  return { ...state, roleCounts, total: Object.values(roleCounts).reduce((sum, count) => sum + count, 0) };
}

function countRoles(peers: Iterable<Peer>): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const peer of peers) counts[peer.role] = (counts[peer.role] ?? 0) + 1;
  return counts;
}

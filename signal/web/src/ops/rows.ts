// What the page shows, from what the node says: pure.
import type {
  DownTrackStatusJson,
  NodeStatusJson,
  PeerStatusJson,
  RoomStatusJson,
  StreamStatusJson,
  UpTrackStatusJson,
} from "../gen/amphi/v1/api_pb.js";

export interface PeerRow {
  readonly key: string;
  readonly room: string;
  readonly peer: PeerStatusJson;
}

export interface DownTrackRow {
  readonly key: string;
  readonly room: string;
  readonly peer: PeerStatusJson;
  readonly track: DownTrackStatusJson;
  readonly publisher: string;
  readonly source: string;
}

export interface UpTrackRow {
  readonly key: string;
  readonly room: string;
  readonly peer: PeerStatusJson;
  readonly track: UpTrackStatusJson;
}

export function peerRows(rooms: readonly RoomStatusJson[]): PeerRow[] {
  return rooms.flatMap((room) =>
    (room.peers ?? []).map((peer) => ({ key: peer.peerId ?? "", room: room.name ?? "", peer })),
  );
}

export function downTrackRows(rooms: readonly RoomStatusJson[]): DownTrackRow[] {
  return rooms.flatMap((room) => {
    const peers = room.peers ?? [];
    const names = new Map(peers.map((peer) => [peer.peerId, peer.name]));
    const sources = new Map(peers.flatMap((peer) => (peer.up ?? []).map((up) => [up.trackId, up.source])));
    return peers.flatMap((peer) =>
      (peer.down ?? []).map((track) => ({
        key: `${peer.peerId} ${track.mid}`,
        room: room.name ?? "",
        peer,
        track,
        publisher: names.get(track.publisher) ?? track.publisher ?? "",
        source: sources.get(track.trackId) ?? "",
      })),
    );
  });
}

export function upTrackRows(rooms: readonly RoomStatusJson[]): UpTrackRow[] {
  return rooms.flatMap((room) =>
    (room.peers ?? []).flatMap((peer) =>
      mergedTracks(peer.up ?? []).map((track) => ({ key: track.trackId ?? "", room: room.name ?? "", peer, track })),
    ),
  );
}

/** One entry per track, where the room's and the media's view of it come apart. */
export function mergedTracks(tracks: readonly UpTrackStatusJson[]): UpTrackStatusJson[] {
  const byId = new Map<string, UpTrackStatusJson>();
  for (const track of tracks) {
    const before = byId.get(track.trackId ?? "");
    const encodings = [...(before?.encodings ?? []), ...(track.encodings ?? [])];
    byId.set(track.trackId ?? "", { ...before, ...track, encodings });
  }
  return [...byId.values()];
}

export function streamRows(status: NodeStatusJson): StreamStatusJson[] {
  return status.streams ?? [];
}

/** Whether every word of a search is somewhere in a row's text. */
export function matches(search: string, ...texts: readonly (string | number | undefined)[]): boolean {
  const text = texts.join(" ").toLowerCase();
  return search
    .toLowerCase()
    .split(/\s+/)
    .every((word) => text.includes(word));
}

// A reason that is nobody's fault and needs no attention.
const calm: ReadonlySet<string> = new Set(["", "ok", "size", "preference", "hidden", "muted", "not_loudest"]);

export const worthALook = (reason: string | undefined): boolean => !calm.has(reason ?? "");

export function bytes(n: string | number | undefined): string {
  const value = Number(n ?? 0);
  if (value >= 1e9) return `${(value / 1e9).toFixed(2)} GB`;
  if (value >= 1e6) return `${(value / 1e6).toFixed(1)} MB`;
  return `${(value / 1e3).toFixed(0)} kB`;
}

export function kbps(n: number | undefined): string {
  const value = n ?? 0;
  return value >= 1000 ? `${(value / 1000).toFixed(2)} Mbit/s` : `${value} kbit/s`;
}

export const count = (n: string | number | undefined): string => Number(n ?? 0).toLocaleString("en");

export function number(n: number | "NaN" | "Infinity" | "-Infinity" | undefined, digits: number): string {
  return typeof n === "number" ? n.toFixed(digits) : n === undefined ? (0).toFixed(digits) : "–";
}

export function duration(fromMs: string | undefined, nowMs: string | undefined): string {
  const s = Math.max(0, (Number(nowMs ?? 0) - Number(fromMs ?? 0)) / 1000);
  if (!fromMs || s === 0) return "–";
  if (s < 90) return `${s.toFixed(0)} s`;
  if (s < 5400) return `${(s / 60).toFixed(0)} min`;
  return `${(s / 3600).toFixed(1)} h`;
}

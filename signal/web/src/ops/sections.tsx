import type { EdgeStatusJson } from "../gen/amphi/v1/edge_pb.js";
import type { OutputStatusJson, RoomStatusJson, StreamStatusJson } from "../gen/amphi/v1/api_pb.js";
import { bytes, count, kbps, matches, mergedTracks, number, worthALook } from "./rows.js";
import type { DownTrackRow, PeerRow, UpTrackRow } from "./rows.js";
import { Table } from "./table.js";

export function Rooms({ rows, open }: { rows: readonly RoomStatusJson[]; open: (room: string) => void }) {
  const total = (room: RoomStatusJson): number => Object.values(room.peersByLevel ?? {}).reduce((sum, n) => sum + n, 0);
  return (
    <Table
      testid="ops-rooms"
      rows={rows}
      keyOf={(room) => room.name ?? ""}
      empty="No room has a session on this node."
      columns={[
        {
          name: "Room",
          order: (r) => r.name ?? "",
          cell: (r) => (
            <button type="button" class="link" onClick={() => open(r.name ?? "")}>
              {r.name}
            </button>
          ),
        },
        { name: "Session", cell: (r) => <code>{r.sessionId}</code> },
        { name: "Owner", cell: (r) => <code>{r.owner}</code> },
        { name: "Standby", cell: (r) => <code>{r.standby || "–"}</code> },
        { name: "Epoch", numeric: true, cell: (r) => r.epoch ?? 0 },
        { name: "Mode", order: (r) => r.mode ?? "", cell: (r) => <Chip text={r.mode} bad={r.mode !== "normal"} /> },
        { name: "Peers", numeric: true, order: total, cell: total },
        ...([1, 2, 3] as const).map((level) => ({
          name: `Level ${level}`,
          numeric: true,
          order: (r: RoomStatusJson) => r.peersByLevel?.[level] ?? 0,
          cell: (r: RoomStatusJson) => r.peersByLevel?.[level] ?? 0,
        })),
      ]}
    />
  );
}

export function Peers({ rows }: { rows: readonly PeerRow[] }) {
  return (
    <Table
      testid="ops-peers"
      rows={rows}
      keyOf={(r) => r.key}
      empty="No peer matches."
      columns={[
        { name: "Room", order: (r) => r.room, cell: (r) => r.room },
        { name: "Peer", order: (r) => r.peer.name ?? "", cell: (r) => <span title={r.peer.peerId}>{r.peer.name || r.peer.peerId}</span> },
        { name: "Role", order: (r) => r.peer.role ?? "", cell: (r) => r.peer.role },
        { name: "Level", numeric: true, order: (r) => r.peer.level ?? 0, cell: (r) => r.peer.level },
        { name: "Transport", order: (r) => r.peer.transport ?? "", cell: (r) => <Chip text={r.peer.transport} bad={/failed|disconnected/.test(r.peer.transport ?? "")} /> },
        { name: "RTT", numeric: true, order: (r) => Number(r.peer.rttMs ?? 0), cell: (r) => `${number(r.peer.rttMs, 0)} ms` },
        { name: "Loss", numeric: true, order: (r) => Number(r.peer.loss ?? 0), cell: (r) => `${(Number(r.peer.loss ?? 0) * 100).toFixed(1)} %` },
        { name: "Estimate", title: "Bandwidth towards the peer", numeric: true, order: (r) => r.peer.estimateKbps ?? 0, cell: (r) => kbps(r.peer.estimateKbps) },
        { name: "Up", title: "UpTracks", numeric: true, order: (r) => mergedTracks(r.peer.up ?? []).length, cell: (r) => mergedTracks(r.peer.up ?? []).length },
        { name: "Down", title: "DownTracks", numeric: true, order: (r) => r.peer.down?.length ?? 0, cell: (r) => r.peer.down?.length ?? 0 },
        { name: "Remote", cell: (r) => <code>{r.peer.remote}</code> },
      ]}
    />
  );
}

export function DownTracks({ rows }: { rows: readonly DownTrackRow[] }) {
  return (
    <Table
      testid="ops-downtracks"
      rows={rows}
      keyOf={(r) => r.key}
      empty="No DownTrack matches."
      columns={[
        { name: "Room", order: (r) => r.room, cell: (r) => r.room },
        { name: "To", order: (r) => r.peer.name ?? "", cell: (r) => <span title={r.peer.peerId}>{r.peer.name || r.peer.peerId}</span> },
        { name: "From", order: (r) => r.publisher, cell: (r) => r.publisher },
        { name: "Source", order: (r) => r.source, cell: (r) => r.source },
        { name: "Track", cell: (r) => <code>{r.track.trackId}</code> },
        { name: "Mid", cell: (r) => r.track.mid },
        { name: "Max", title: "The subscriber's cap", numeric: true, order: (r) => r.track.max ?? 0, cell: (r) => <Layer n={r.track.max} /> },
        { name: "Target", title: "The allocator's decision", numeric: true, order: (r) => r.track.target ?? 0, cell: (r) => <Layer n={r.track.target} /> },
        { name: "Current", title: "What is forwarded now", numeric: true, order: (r) => r.track.current ?? 0, cell: (r) => <Layer n={r.track.current} /> },
        { name: "Reason", order: (r) => r.track.reason ?? "", cell: (r) => <Chip text={r.track.reason} bad={worthALook(r.track.reason)} /> },
        { name: "Rate", numeric: true, order: (r) => r.track.bitrateKbps ?? 0, cell: (r) => kbps(r.track.bitrateKbps) },
        { name: "Packets", numeric: true, order: (r) => Number(r.track.packets ?? 0), cell: (r) => count(r.track.packets) },
        { name: "Sent again", numeric: true, order: (r) => Number(r.track.retransmitted ?? 0), cell: (r) => count(r.track.retransmitted) },
      ]}
    />
  );
}

export function UpTracks({ rows }: { rows: readonly UpTrackRow[] }) {
  return (
    <Table
      testid="ops-uptracks"
      rows={rows}
      keyOf={(r) => r.key}
      empty="No UpTrack matches."
      columns={[
        { name: "Room", order: (r) => r.room, cell: (r) => r.room },
        { name: "From", order: (r) => r.peer.name ?? "", cell: (r) => <span title={r.peer.peerId}>{r.peer.name || r.peer.peerId}</span> },
        { name: "Source", order: (r) => r.track.source ?? "", cell: (r) => r.track.source },
        { name: "Track", cell: (r) => <code>{r.track.trackId}</code> },
        { name: "Codec", order: (r) => r.track.codec ?? "", cell: (r) => r.track.codec },
        { name: "Muted", cell: (r) => (r.track.muted ? "muted" : "") },
        { name: "Wanted", title: "Up to which encoding somebody wants it", numeric: true, order: (r) => r.track.wanted ?? 0, cell: (r) => <Layer n={r.track.wanted} /> },
        {
          name: "Encodings, low to high",
          cell: (r) => (
            <span class="encodings">
              {(r.track.encodings ?? []).map((e, i) => (
                <span key={i} title={`${count(e.packets)} packets, ${count(e.lost)} lost, ${count(e.keyframeRequests)} keyframe requests`}>
                  {e.rid && <b>{e.rid}</b>} {e.width ? `${e.width}×${e.height}` : ""} {kbps(e.bitrateKbps)}
                </span>
              ))}
            </span>
          ),
        },
        {
          name: "Lost",
          numeric: true,
          order: (r) => lostOf(r),
          cell: (r) => count(lostOf(r)),
        },
      ]}
    />
  );
}

const lostOf = (r: UpTrackRow): number => (r.track.encodings ?? []).reduce((sum, e) => sum + Number(e.lost ?? 0), 0);

export function Streams({ rows }: { rows: readonly StreamStatusJson[] }) {
  return (
    <Table
      testid="ops-streams"
      rows={rows}
      keyOf={(s) => `${s.room}/${s.stream?.name}`}
      empty="No stream runs on this node."
      columns={[
        { name: "Room", order: (s) => s.room ?? "", cell: (s) => s.room },
        { name: "Stream", cell: (s) => s.stream?.name },
        { name: "State", cell: (s) => <Chip text={words(s.stream?.state)} bad={s.stream?.state === "STREAM_STATE_FAILED"} /> },
        { name: "Layout", cell: (s) => words(s.stream?.layout) },
        { name: "Latency", title: "From capture at the stage to the end of the part that carries it", numeric: true, order: (s) => Number(s.latencyMs ?? 0), cell: (s) => `${number(s.latencyMs, 0)} ms` },
        { name: "CPU", title: "And what it was expected to take with all its variants", numeric: true, order: (s) => Number(s.cpuCores ?? 0), cell: (s) => `${number(s.cpuCores, 2)} of ${number(s.expectedCores, 2)} cores` },
        { name: "Memory", numeric: true, cell: (s) => bytes(s.rssBytes) },
        { name: "Tiles", numeric: true, cell: (s) => s.tiles ?? 0 },
        { name: "Variants", title: "In brackets: nobody asks for it, so it is encoded at one picture a part", cell: (s) => (s.variants ?? []).map((v) => (s.idleVariants?.includes(v.name ?? "") ? `(${v.name})` : v.name)).join(", ") },
        { name: "Players", numeric: true, cell: (s) => s.players ?? 0 },
        { name: "Frames", numeric: true, cell: (s) => count(s.frames) },
        { name: "Late", title: "Ticks that came too late", numeric: true, cell: (s) => count(s.lateTicks) },
        { name: "Restarts", numeric: true, cell: (s) => s.restarts ?? 0 },
        { name: "Drops", cell: (s) => Object.entries(s.drops ?? {}).map(([reason, n]) => `${reason} ${count(n)}`).join(", ") },
      ]}
    />
  );
}

/** What this node serves of streams that other nodes make. */
export function StreamsOfOthers({ edge }: { edge: EdgeStatusJson }) {
  const hits = Number(edge.hits ?? 0);
  const asked = hits + Number(edge.misses ?? 0) + Number(edge.shared ?? 0);
  const failures = Number(edge.upstreamFailures ?? 0);
  return (
    <Table
      testid="ops-edge"
      rows={[edge]}
      keyOf={() => "edge"}
      empty=""
      columns={[
        { name: "Streams of other nodes", cell: (e) => `${e.playlists ?? 0} playlists followed` },
        { name: "Waiting", title: "Players' requests that wait for a part", numeric: true, cell: (e) => e.waiting ?? 0 },
        { name: "Objects asked for", numeric: true, cell: () => count(asked) },
        { name: "From the cache", numeric: true, cell: () => (asked ? `${number((100 * hits) / asked, 1)} %` : "–") },
        { name: "Upstream requests", numeric: true, cell: (e) => count(e.upstreamRequests) },
        { name: "Failed", numeric: true, cell: () => <Chip text={String(count(failures))} bad={failures > 0} /> },
        { name: "In", numeric: true, cell: (e) => bytes(e.bytesIn) },
        { name: "Out", numeric: true, cell: (e) => bytes(e.bytesOut) },
        { name: "Cached", numeric: true, cell: (e) => bytes(e.cachedBytes) },
      ]}
    />
  );
}

export function Outputs({ rows }: { rows: readonly OutputStatusJson[] }) {
  return (
    <Table
      testid="ops-outputs"
      rows={rows}
      keyOf={(o) => o.output?.id ?? ""}
      empty="This node makes no recordings and pushes."
      columns={[
        { name: "Room", order: (o) => o.room ?? "", cell: (o) => o.room },
        { name: "Kind", order: (o) => o.output?.kind ?? "", cell: (o) => words(o.output?.kind) },
        { name: "Stream", cell: (o) => [o.output?.stream, o.output?.variant].filter(Boolean).join(" ") },
        {
          name: "State",
          order: (o) => o.output?.state ?? "",
          cell: (o) => <Chip text={words(o.output?.state)} bad={/RETRYING|FAILED/.test(o.output?.state ?? "")} />,
        },
        { name: "Why", cell: (o) => o.output?.failure },
        { name: "Target", cell: (o) => o.output?.url },
        { name: "Size", numeric: true, order: (o) => Number(o.output?.bytes ?? 0), cell: (o) => bytes(o.output?.bytes) },
        { name: "Frames", numeric: true, cell: (o) => count(o.frames) },
        { name: "Dropped", numeric: true, order: (o) => Number(o.dropped ?? 0), cell: (o) => count(o.dropped) },
        { name: "Retries", numeric: true, order: (o) => o.output?.retries ?? 0, cell: (o) => o.output?.retries ?? 0 },
      ]}
    />
  );
}

export function Drops({ drops, search }: { drops: Readonly<Record<string, string>>; search: string }) {
  const rows = Object.entries(drops)
    .map(([reason, n]) => ({ reason, n: Number(n) }))
    .filter(({ reason }) => matches(search, reason))
    .sort((a, b) => b.n - a.n);
  return (
    <Table
      testid="ops-drops"
      rows={rows}
      keyOf={(r) => r.reason}
      empty="Nothing was dropped."
      columns={[
        { name: "Reason", order: (r) => r.reason, cell: (r) => r.reason },
        { name: "Dropped since start", numeric: true, order: (r) => r.n, cell: (r) => count(r.n) },
      ]}
    />
  );
}

export function Chip({ text, bad }: { text: string | undefined; bad: boolean }) {
  return text ? <span class={`chip ${bad ? "bad" : ""}`}>{text}</span> : null;
}

function Layer({ n }: { n: number | undefined }) {
  return n === -1 ? <span class="off">none</span> : <span>{n ?? 0}</span>;
}

/** "STREAM_STATE_LIVE" as "live". */
function words(enumName: string | undefined): string {
  return (enumName ?? "").replace(/^(STREAM_STATE|OUTPUT_STATE|OUTPUT_KIND|LAYOUT_KIND)_/, "").toLowerCase().replaceAll("_", " ");
}

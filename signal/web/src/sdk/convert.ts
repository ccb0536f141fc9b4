// Generated protobuf messages to the plain values of model.ts.
import type { MessageInitShape } from "@bufbuild/protobuf";
import * as look from "../gen/amphi/v1/layout_pb.js";
import * as gen from "../gen/amphi/v1/model_pb.js";
import type * as output from "../gen/amphi/v1/output_pb.js";
import type { ServerInfo as GenServerInfo } from "../gen/amphi/v1/signal_pb.js";
import type {
  Delivery,
  LayoutKind,
  LayoutOptions,
  LeaveReason,
  Level,
  Message,
  Output,
  OutputKind,
  OutputPhase,
  Peer,
  Permissions,
  Role,
  ServerInfo,
  StoreEntry,
  Stream,
  StreamPhase,
  Template,
  Track,
  VideoParams,
} from "./model.js";
import type { RoomState } from "./state.js";

const deliveries: readonly Delivery[] = ["none", "none", "webrtc", "hls"];
const phases: readonly StreamPhase[] = ["stopped", "starting", "live", "stopped", "failed"];
const outputKinds: readonly OutputKind[] = ["recording", "recording", "tracks", "push"];
const outputPhases: readonly OutputPhase[] = ["stopped", "starting", "active", "paused", "retrying", "stopped", "failed"];
const layouts: readonly LayoutKind[] = [
  "auto",
  "grid",
  "active-speaker",
  "screen",
  "single",
  "picture-in-picture",
  "auto",
];
const modes: readonly RoomState["mode"][] = ["normal", "normal", "normal", "frozen", "no-owner"];
const leaveReasons: readonly LeaveReason[] = ["left", "left", "lost", "removed", "room-ended", "expired"];
const noPermissions = withoutType<Permissions>({
  endRoom: false,
  removeOthers: false,
  muteOthers: false,
  askUnmute: false,
  changeRole: false,
  sendBroadcast: false,
  sendToRoles: false,
  sendDirect: false,
  react: false,
  sendEvents: false,
  raiseHand: false,
  writeStore: [],
  managePolls: false,
  answerPolls: false,
  controlStream: false,
  annotateStream: false,
  controlRecording: false,
  controlPush: false,
  moderateChat: false,
  previewRoomState: false,
  manageRoom: false,
});

export function layoutToWire(layout: LayoutKind): gen.LayoutKind {
  return layout === "auto" ? gen.LayoutKind.AUTO : layouts.indexOf(layout);
}

const corners = ["top-right", "top-left", "top-right", "bottom-left", "bottom-right"] as const;

export function layoutOptionsToWire(o: LayoutOptions): MessageInitShape<typeof look.LayoutOptionsSchema> {
  const { fit, logo, ...rest } = o;
  return {
    ...rest,
    ...(fit && { fit: fit === "contain" ? look.TileFit.CONTAIN : look.TileFit.COVER }),
    ...(logo && { logo: { ...logo, corner: logo.corner ? corners.indexOf(logo.corner, 1) : look.Corner.UNSPECIFIED } }),
  };
}

function layoutOptionsOf(o: look.LayoutOptions): LayoutOptions {
  return {
    ...(o.pinnedPeer && { pinnedPeer: o.pinnedPeer }),
    ...(o.maxTiles && { maxTiles: o.maxTiles }),
    ...(o.gap !== undefined && { gap: o.gap }),
    ...(o.margin && { margin: o.margin }),
    ...(o.fit && { fit: o.fit === look.TileFit.CONTAIN ? "contain" : "cover" }),
    ...(o.names !== undefined && { names: o.names }),
    ...(o.highlight && { highlight: o.highlight }),
    ...(o.background && { background: o.background }),
    ...(o.backgroundPicture && { backgroundPicture: o.backgroundPicture }),
    ...(o.logo && {
      logo: {
        picture: o.logo.picture,
        corner: corners[o.logo.corner] ?? "top-right",
        ...(o.logo.size && { size: o.logo.size }),
        ...(o.logo.margin !== undefined && { margin: o.logo.margin }),
        ...(o.logo.opacity && { opacity: o.logo.opacity }),
      },
    }),
    ...(o.fadeMs !== undefined && { fadeMs: o.fadeMs }),
  };
}

export function modeOf(mode: number): RoomState["mode"] {
  return modes[mode] ?? "normal";
}

export function leaveReasonOf(reason: gen.LeaveReason): LeaveReason {
  return leaveReasons[reason] ?? "left";
}

export function trackOf(t: gen.Track): Track {
  return {
    id: t.id,
    kind: t.kind === gen.Kind.AUDIO ? "audio" : "video",
    source: t.source,
    muted: t.muted,
    width: t.width,
    height: t.height,
    codec: t.codec,
    description: t.description,
  };
}

export function peerOf(p: gen.Peer): Peer {
  return {
    id: p.id,
    name: p.name,
    userId: p.userId,
    role: p.role,
    metadata: p.metadata,
    joinedMs: Number(p.joinedMs),
    handRaisedMs: Number(p.handRaisedMs),
    tracks: p.tracks.map(trackOf),
    previousRole: p.previousRole,
    lost: p.lost,
    chatBlocked: p.chatBlocked,
  };
}

export function messageOf(m: gen.Message): Message {
  return {
    id: Number(m.id),
    sender: m.sender,
    senderName: m.senderName,
    senderRole: m.senderRole,
    type: m.type || "chat",
    text: m.text,
    to: { roles: m.to?.roles ?? [], peers: m.to?.peers ?? [] },
    timeMs: Number(m.timeMs),
    pinned: m.pinned,
  };
}

export function storeEntryOf(e: gen.StoreEntry): StoreEntry {
  return {
    key: e.key,
    value: e.value,
    revision: Number(e.revision),
    updatedBy: e.updatedBy,
    updatedMs: Number(e.updatedMs),
  };
}

/**
 * @param server address that the stream's path is relative to
 * @param own paths by stream that this peer plays, with its tokens
 */
export function streamOf(s: gen.Stream, server: string, own: ReadonlyMap<string, string>): Stream {
  return {
    name: s.name,
    phase: phases[s.state] ?? "stopped",
    url: s.url ? new URL(own.get(s.name) ?? s.url, server).href : "",
    startedMs: Number(s.startedMs),
    startedBy: s.startedBy,
    failure: s.failure,
    layout: layouts[s.layout] ?? "auto",
    layoutOptions: s.layoutOptions ? layoutOptionsOf(s.layoutOptions) : {},
  };
}

export function outputOf(o: output.Output): Output {
  return {
    id: o.id,
    kind: outputKinds[o.kind] ?? "recording",
    stream: o.stream,
    phase: outputPhases[o.state] ?? "stopped",
    phaseMs: Number(o.stateMs),
    url: o.url,
    variant: o.variant,
    destination: o.destination,
    startedMs: Number(o.startedMs),
    activeMs: Number(o.activeMs),
    startedBy: o.startedBy,
    failure: o.failure,
    bytes: Number(o.bytes),
    retries: o.retries,
  };
}

export function outputKindToWire(kind: OutputKind): output.OutputKind {
  return outputKinds.lastIndexOf(kind);
}

export function templateOf(t: gen.Template): Template {
  return {
    name: t.name,
    description: t.description,
    roles: t.roles.map(roleOf),
    streams: t.streams.map((s) => ({ name: s.name, layout: layouts[s.layout] ?? "auto", roles: s.roles })),
    destinations: t.destinations.map((d) => ({
      name: d.name,
      kind: outputKinds[d.kind] ?? "recording",
      stream: d.stream || "main",
      url: d.url,
      autoStart: d.autoStart,
    })),
    endToEndEncrypted: t.endToEndEncrypted,
  };
}

function roleOf(r: gen.Role): Role {
  const p = r.publish;
  return {
    name: r.name,
    title: r.title || r.name,
    level: levelOf(r),
    publish: {
      audio: p?.audio ?? false,
      video: p?.video ?? false,
      screen: p?.screen ?? false,
      audioBitrateKbps: p?.audioParams?.bitrateKbps || 32,
      videoParams: paramsOf(p?.videoParams),
      screenParams: paramsOf(p?.screenParams),
    },
    subscribe: {
      delivery: deliveries[r.subscribe?.delivery ?? 0] ?? "none",
      roles: r.subscribe?.roles ?? [],
      stream: r.subscribe?.stream || "main",
    },
    maxPeers: r.maxPeers,
    permissions: r.permissions ? withoutType<Permissions>(r.permissions) : noPermissions,
    stageRole: r.stageRole,
    offStageRole: r.offStageRole,
  };
}

function levelOf(r: gen.Role): Level {
  if (r.level === 1 || r.level === 2 || r.level === 3) return r.level;
  if (r.publish?.audio || r.publish?.video || r.publish?.screen) return 1;
  return r.subscribe?.delivery === gen.Delivery.HLS ? 3 : 2;
}

function paramsOf(p: gen.VideoParams | undefined): VideoParams | undefined {
  return p && withoutType<VideoParams>({ ...p, layers: p.layers.map((layer) => withoutType(layer)) });
}

export function serverInfoOf(s: GenServerInfo | undefined): ServerInfo {
  return {
    node: s?.node ?? "",
    region: s?.region ?? "",
    version: s?.version ?? "",
    iceServers: (s?.iceServers ?? []).map((ice) => ({
      urls: ice.urls,
      username: ice.username || undefined,
      credential: ice.credential || undefined,
    })),
    pingIntervalMs: s?.pingIntervalMs || 5_000,
    pingTimeoutMs: s?.pingTimeoutMs || 15_000,
    resumeWindowMs: s?.resumeWindowMs || 60_000,
  };
}

/** A copy of the message's own fields, without protobuf's book-keeping. */
function withoutType<T extends object>(message: T & { $typeName?: string; $unknown?: unknown }): T {
  const { $typeName: _type, $unknown: _unknown, ...fields } = message;
  return fields as unknown as T;
}

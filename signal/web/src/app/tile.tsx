import { useEffect, useRef } from "preact/hooks";
import type { Peer, Source, Track } from "@amphi/sdk";
import { Icon } from "./icons.js";
import { useRoom, useRoomState } from "./session.js";
import { Avatar } from "./ui.js";
import { qualityInWords, reasonInWords } from "./words.js";

// A peer counts as speaking above this loudness, in dBov.
const audibleDbov = -55;

export interface TileSpec {
  readonly key: string;
  readonly peer: Peer;
  readonly source: Source;
}

/** One peer's rectangle: camera or screen, or who it is while there is no picture. */
export function Tile({ spec, style, large }: { spec: TileSpec; style?: Record<string, number>; large?: boolean }) {
  const { peer, source } = spec;
  const self = useRoomState((state) => state.selfId === peer.id);
  const speaking = useRoomState((state) =>
    state.speakers.some((speaker) => speaker.peerId === peer.id && speaker.level > audibleDbov),
  );
  const video = peer.tracks.find((track) => track.source === source);
  const reason = useRoomState((state) => (video && !self ? state.qualities.get(video.id)?.reason : undefined));
  const mic = peer.tracks.find((track) => track.source === "mic");
  const shown = video && !video.muted;
  const muted = !mic || mic.muted;
  const isScreen = source !== "camera";
  const name = peer.name || "Guest";
  const label = isScreen ? `${self ? "Your" : name + "’s"} screen` : self ? `${name} (you)` : name;
  return (
    <article
      class={`tile ${speaking && !isScreen ? "speaking" : ""} ${isScreen ? "screen" : ""} ${large ? "large" : ""}`}
      style={style}
      aria-label={label}
      data-testid="tile"
      data-peer={peer.id}
      data-name={peer.name}
      data-source={source}
      data-muted={muted}
    >
      {shown ? (
        <TilePicture track={video} self={self} source={source} />
      ) : (
        <div class="no-picture">
          <Avatar name={name} id={peer.id} size={large ? 96 : 64} />
        </div>
      )}
      {shown && !self && <Quality track={video} />}
      {peer.handRaisedMs > 0 && (
        <span class="tile-hand" title="Hand raised">
          <Icon name="hand" size={16} />
        </span>
      )}
      <footer class="tile-label" title={reason === undefined ? undefined : reasonInWords(reason)}>
        {!isScreen && muted && <Icon name="micOff" size={14} />}
        {isScreen && <Icon name="screen" size={14} />}
        <span>{label}</span>
      </footer>
    </article>
  );
}

function TilePicture({ track, self, source }: { track: Track; self: boolean; source: Source }) {
  const room = useRoom();
  const video = useRef<HTMLVideoElement>(null);
  useEffect(() => {
    if (!video.current) return undefined;
    return self ? room.attachLocal(video.current, source) : room.attach(video.current, track.id);
  }, [room, track.id, self, source]);
  return (
    <video
      ref={video}
      class={self && source === "camera" ? "mirrored" : source === "camera" ? "" : "contained"}
      autoplay
      muted
      playsInline
      data-testid="tile-video"
      data-track={track.id}
    />
  );
}

/** Tells why a picture is worse than it could be, when that is worth knowing; in the open where there is none. */
function Quality({ track }: { track: Track }) {
  const quality = useRoomState((state) => state.qualities.get(track.id));
  const words = qualityInWords(quality);
  if (!words) return null;
  return (
    <span class="tile-quality" title={words} data-testid="tile-quality" data-reason={quality?.reason}>
      <Icon name="signal" size={14} />
      {(quality?.current ?? -1) < 0 && <span>{words}</span>}
    </span>
  );
}

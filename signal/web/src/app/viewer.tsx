import { useEffect, useRef, useState } from "preact/hooks";
import { ownStream } from "@amphi/sdk";
import type { StreamLevel, StreamPlayer } from "@amphi/sdk";
import { Icon } from "./icons.js";
import { attempt } from "./notices.js";
import { useRoom, useRoomState } from "./session.js";
import { Button, IconButton, Menu, Spinner } from "./ui.js";

/** The live-stream audience's view: the program through LL-HLS. */
export function Viewer() {
  const stream = useRoomState(ownStream);
  const url = stream?.phase === "live" || stream?.phase === "starting" ? stream.url : "";
  return (
    <section class="viewer" aria-label="Live stream" data-testid="viewer" data-stream={stream?.phase ?? "none"}>
      {url && stream?.phase === "live" ? <Player key={url} /> : <Waiting starting={stream?.phase === "starting"} failed={stream?.phase === "failed"} />}
    </section>
  );
}

function Waiting({ starting, failed }: { starting: boolean; failed: boolean }) {
  return (
    <div class="empty-stage" data-testid="viewer-waiting">
      <span class="rings" aria-hidden="true">
        <i />
        <i />
        <i />
      </span>
      <h2>{starting ? "The live stream is starting" : failed ? "The live stream broke off" : "Not live yet"}</h2>
      <p>
        {starting
          ? "It plays here in a moment."
          : failed
            ? "It plays here again as soon as it is back."
            : "The picture appears here by itself when the hosts go live."}
      </p>
    </div>
  );
}

function Player() {
  const room = useRoom();
  const video = useRef<HTMLVideoElement>(null);
  const root = useRef<HTMLDivElement>(null);
  const [player, setPlayer] = useState<StreamPlayer>();
  const [waiting, setWaiting] = useState(true);
  const [silent, setSilent] = useState(false);
  const [levels, setLevels] = useState<readonly StreamLevel[]>([]);
  useEffect(() => {
    if (!video.current) return undefined;
    const made = room.playStream(video.current);
    if (!made) return undefined;
    setPlayer(made);
    made.events.on("playing", () => setWaiting(false));
    made.events.on("waiting", () => setWaiting(true));
    made.events.on("muted-by-browser", () => setSilent(true));
    made.events.on("levels", setLevels);
    return () => made.close();
  }, [room]);
  return (
    <div class="player" ref={root}>
      <video ref={video} autoplay playsInline data-testid="viewer-video" aria-label="Live stream" />
      {waiting && (
        <div class="player-waiting">
          <Spinner label="Loading the live stream" />
        </div>
      )}
      {silent && (
        <Button
          kind="primary"
          icon="soundOff"
          class="unmute"
          testid="viewer-unmute"
          onClick={() => {
            setSilent(false);
            attempt(player?.unmute() ?? Promise.resolve());
          }}
        >
          Turn the sound on
        </Button>
      )}
      <Latency player={player} />
      <PlayerControls player={player} video={video.current} root={root.current} levels={levels} />
    </div>
  );
}

function PlayerControls({
  player,
  video,
  root,
  levels,
}: {
  player: StreamPlayer | undefined;
  video: HTMLVideoElement | null;
  root: HTMLDivElement | null;
  levels: readonly StreamLevel[];
}) {
  const [volume, setVolume] = useState(1);
  const [muted, setMuted] = useState(false);
  const [level, setLevel] = useState(-1);
  useEffect(() => {
    if (!video) return undefined;
    const changed = (): void => {
      setVolume(video.volume);
      setMuted(video.muted);
    };
    video.addEventListener("volumechange", changed);
    return () => video.removeEventListener("volumechange", changed);
  }, [video]);
  const fullscreen = (): void => {
    if (document.fullscreenElement) void document.exitFullscreen();
    else void root?.requestFullscreen?.().catch(() => undefined);
  };
  const choose = (index: number): void => {
    setLevel(index);
    player?.setLevel(index);
  };
  return (
    <div class="player-controls">
      <IconButton
        icon={muted || volume === 0 ? "soundOff" : "sound"}
        label={muted ? "Turn the sound on" : "Turn the sound off"}
        testid="viewer-mute"
        onClick={() => video && (video.muted = !video.muted)}
      />
      <input
        class="volume"
        type="range"
        min="0"
        max="1"
        step="0.05"
        value={muted ? 0 : volume}
        aria-label="Volume"
        onInput={(event) => {
          if (!video) return;
          video.volume = Number(event.currentTarget.value);
          video.muted = false;
        }}
      />
      {levels.length > 1 && (
        <Menu
          label="Picture quality"
          icon="settings"
          items={[
            { label: "Automatic", checked: level === -1, act: () => choose(-1) },
            ...[...levels].reverse().map((l) => ({
              label: `${l.height}p`,
              checked: level === l.index,
              act: () => choose(l.index),
            })),
          ]}
        />
      )}
      <IconButton icon="expand" label="Full screen" testid="viewer-fullscreen" onClick={fullscreen} />
    </div>
  );
}

// Farther behind than this, a button offers to catch up.
const behindS = 8;

function Latency({ player }: { player: StreamPlayer | undefined }) {
  const [latency, setLatency] = useState<number>();
  useEffect(() => {
    const timer = setInterval(() => setLatency(player?.latencyS), 1_000);
    return () => clearInterval(timer);
  }, [player]);
  const known = latency !== undefined && latency > -2 && latency < 3_600;
  return (
    <span class="latency">
      <span class="live-dot">Live</span>
      {known && (
        <span data-testid="viewer-latency" data-seconds={latency.toFixed(2)} title="Time from the stage to this screen">
          {Math.max(0, latency).toFixed(1)} s
        </span>
      )}
      {known && latency > behindS && (
        <button type="button" class="link" onClick={() => player?.goLive()}>
          <Icon name="live" size={14} /> Catch up
        </button>
      )}
    </span>
  );
}

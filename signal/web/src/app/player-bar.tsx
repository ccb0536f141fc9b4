import { useEffect, useState } from "preact/hooks";
import type { PlayerStats, StreamCaptions, StreamLevel, StreamPlayer } from "@amphi/sdk";
import { Icon } from "./icons.js";
import { attempt } from "./notices.js";
import { IconButton, Menu } from "./ui.js";
import type { MenuItem } from "./ui.js";

// Less than this can be gone back to: not worth a bar.
const worthSeekingS = 20;
// What an arrow key moves by.
const keyStepS = 5;
// Farther behind than this, a viewer who follows the stream is offered to catch up.
const behindS = 8;

/** What a viewer steers the player with, and how the player does. */
export function PlayerBar({ player, video, root }: { player: StreamPlayer; video: HTMLVideoElement; root: HTMLElement }) {
  const stats = useStats(player);
  const [details, setDetails] = useState(false);
  return (
    <>
      <Latency player={player} stats={stats} />
      {details && <Details player={player} stats={stats} />}
      <div class="player-bar">
        <Seek player={player} />
        <div class="player-controls">
          <PlayPause player={player} video={video} />
          <Sound video={video} />
          <span class="player-gap" />
          <Choices player={player} details={details} onDetails={() => setDetails(!details)} />
          <IconButton icon="expand" label="Full screen" testid="viewer-fullscreen" onClick={() => fullscreen(root)} />
        </div>
      </div>
    </>
  );
}

function fullscreen(root: HTMLElement): void {
  if (document.fullscreenElement) void document.exitFullscreen();
  else void root.requestFullscreen?.().catch(() => undefined);
}

function useStats(player: StreamPlayer): PlayerStats {
  const [stats, setStats] = useState(() => player.stats());
  useEffect(() => player.events.on("stats", setStats), [player]);
  return stats;
}

function PlayPause({ player, video }: { player: StreamPlayer; video: HTMLVideoElement }) {
  const [paused, setPaused] = useState(video.paused);
  useEffect(() => {
    const changed = (): void => setPaused(video.paused);
    const names = ["play", "pause"] as const;
    for (const name of names) video.addEventListener(name, changed);
    return () => names.forEach((name) => video.removeEventListener(name, changed));
  }, [video]);
  return (
    <IconButton
      icon={paused ? "play" : "pause"}
      label={paused ? "Play" : "Pause"}
      testid="viewer-play"
      onClick={() => (paused ? attempt(player.play()) : player.pause())}
    />
  );
}

function Sound({ video }: { video: HTMLVideoElement }) {
  const [volume, setVolume] = useState(video.volume);
  const [muted, setMuted] = useState(video.muted);
  useEffect(() => {
    const changed = (): void => {
      setVolume(video.volume);
      setMuted(video.muted);
    };
    changed();
    video.addEventListener("volumechange", changed);
    return () => video.removeEventListener("volumechange", changed);
  }, [video]);
  return (
    <>
      <IconButton
        icon={muted || volume === 0 ? "soundOff" : "sound"}
        label={muted ? "Turn the sound on" : "Turn the sound off"}
        testid="viewer-mute"
        onClick={() => (video.muted = !video.muted)}
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
          video.volume = Number(event.currentTarget.value);
          video.muted = false;
        }}
      />
    </>
  );
}

/** Goes back in what the stream keeps. */
function Seek({ player }: { player: StreamPlayer }) {
  const [range, setRange] = useState(player.window);
  const [dragged, setDragged] = useState<number>();
  useEffect(() => {
    const timer = setInterval(() => setRange(player.window), 500);
    return () => clearInterval(timer);
  }, [player]);
  if (!range || range.lengthS < worthSeekingS) return null;
  const length = Math.round(range.lengthS);
  const behind = dragged ?? (player.isLive ? 0 : Math.min(length, Math.round(range.behindS)));
  const seek = (toS: number): void => {
    player.seek(toS);
    setRange(player.window);
  };
  const text = behind === 0 ? "Live" : `−${clock(behind)}`;
  return (
    <div class="player-seek">
      <input
        type="range"
        min={-length}
        max={0}
        step={1}
        value={-behind}
        style={{ "--part": `${(100 * (length - behind)) / length}%` }}
        aria-label="Position"
        aria-valuetext={behind === 0 ? "Live" : `${clock(behind)} behind live`}
        data-testid="viewer-seek"
        onInput={(event) => setDragged(-Number(event.currentTarget.value))}
        onChange={(event) => {
          setDragged(undefined);
          seek(-Number(event.currentTarget.value));
        }}
        onKeyDown={(event) => {
          const step = event.key === "ArrowLeft" ? keyStepS : event.key === "ArrowRight" ? -keyStepS : 0;
          if (!step) return;
          event.preventDefault();
          seek(Math.max(0, Math.min(length, behind + step)));
        }}
      />
      <button
        type="button"
        class={`player-live ${behind === 0 ? "on" : ""}`}
        aria-label={behind === 0 ? "Live" : "Go to the live picture"}
        data-testid="viewer-live"
        data-behind={behind}
        onClick={() => player.goLive()}
      >
        {text}
      </button>
    </div>
  );
}

function clock(seconds: number): string {
  const [h, m, s] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, Math.floor(seconds) % 60];
  const two = (n: number): string => String(n).padStart(2, "0");
  return h > 0 ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`;
}

/** Quality, captions, and how it does. */
function Choices({ player, details, onDetails }: { player: StreamPlayer; details: boolean; onDetails: () => void }) {
  const [levels, setLevels] = useState<readonly StreamLevel[]>(player.levels);
  const [captions, setCaptions] = useState<readonly StreamCaptions[]>(player.captions);
  const [level, setLevel] = useState(-1);
  const [caption, setCaption] = useState(player.currentCaptions);
  useEffect(() => player.events.on("levels", setLevels), [player]);
  useEffect(() => player.events.on("captions", setCaptions), [player]);
  const choose = (index: number): void => {
    setLevel(index);
    player.setLevel(index);
  };
  const showCaption = (index: number): void => {
    setCaption(index);
    player.setCaptions(index);
  };
  const qualities: MenuItem[] = [
    { label: "Automatic", checked: level === -1, act: () => choose(-1) },
    ...[...levels].reverse().map((l) => ({ label: `${l.height}p`, checked: level === l.index, act: () => choose(l.index) })),
  ];
  return (
    <>
      {captions.length > 0 && (
        <Menu
          label="Captions"
          icon="captions"
          testid="viewer-captions"
          items={[
            { label: "Off", checked: caption === -1, act: () => showCaption(-1) },
            ...captions.map((c) => ({
              label: c.name || c.language,
              checked: caption === c.index,
              testid: `caption-${c.language}`,
              act: () => showCaption(c.index),
            })),
          ]}
        />
      )}
      <Menu
        label="Picture quality"
        icon="settings"
        testid="viewer-quality"
        items={[...(levels.length > 1 ? qualities : []), { label: "Statistics", checked: details, testid: "viewer-stats", act: onDetails }]}
      />
    </>
  );
}

function Details({ player, stats }: { player: StreamPlayer; stats: PlayerStats }) {
  const seconds = (s: number | undefined): string => (s === undefined ? "–" : `${s.toFixed(2)} s`);
  const rows: readonly (readonly [string, string])[] = [
    ["Latency", `${seconds(stats.latencyS)} (aims at ${seconds(stats.targetLatencyS)})`],
    ["Buffer", seconds(stats.bufferS)],
    ["Picture", stats.level ? `${stats.level.height}p, ${stats.level.bitrateKbps} kbit/s` : "–"],
    ["Network", stats.bandwidthKbps === undefined ? "–" : `${stats.bandwidthKbps} kbit/s`],
    ["Stalls", `${stats.stalls}, ${stats.stalledS.toFixed(1)} s`],
    ["Frames dropped", `${stats.droppedFrames} of ${stats.decodedFrames}`],
    ["Started over", `${stats.reloads}`],
    ["Mode", player.isLive ? "live" : "behind live"],
  ];
  return (
    <dl class="player-details" data-testid="viewer-details">
      {rows.map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}

function Latency({ player, stats }: { player: StreamPlayer; stats: PlayerStats }) {
  const { latencyS } = stats;
  const known = latencyS !== undefined && latencyS > -2 && latencyS < 3_600 && player.isLive;
  return (
    <span class="latency">
      <span class="live-dot">{player.isLive ? "Live" : "Earlier"}</span>
      {known && (
        <span data-testid="viewer-latency" data-seconds={latencyS.toFixed(2)} title="Time from the stage to this screen">
          {Math.max(0, latencyS).toFixed(1)} s
        </span>
      )}
      {known && latencyS > behindS && (
        <button type="button" class="link" onClick={() => player.goLive()}>
          <Icon name="live" size={14} /> Catch up
        </button>
      )}
    </span>
  );
}

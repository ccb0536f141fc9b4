import { useEffect, useRef, useState } from "preact/hooks";
import { ownStream } from "@amphi/sdk";
import type { StreamPlayer } from "@amphi/sdk";
import { attempt } from "./notices.js";
import { PlayerBar } from "./player-bar.js";
import { useRoom, useRoomState } from "./session.js";
import { Button, Spinner } from "./ui.js";

/** The live-stream audience's view: the program through LL-HLS. */
export function Viewer() {
  const stream = useRoomState(ownStream);
  const live = stream?.phase === "live" && stream.url !== "";
  return (
    <section class="viewer" aria-label="Live stream" data-testid="viewer" data-stream={stream?.phase ?? "none"}>
      {live ? <Player key={stream.name} /> : <Waiting starting={stream?.phase === "starting"} failed={stream?.phase === "failed"} />}
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
  useEffect(() => {
    if (!video.current) return undefined;
    let gone = false;
    let made: StreamPlayer | undefined;
    const show = (loaded: StreamPlayer): void => {
      if (gone) return loaded.close();
      made = loaded;
      setPlayer(made);
      made.events.on("playing", () => setWaiting(false));
      made.events.on("waiting", () => setWaiting(true));
      made.events.on("muted-by-browser", () => setSilent(true));
    };
    attempt(room.playStream(video.current).then(show));
    return () => {
      gone = true;
      made?.close();
    };
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
      {player && video.current && root.current && <PlayerBar player={player} video={video.current} root={root.current} />}
    </div>
  );
}

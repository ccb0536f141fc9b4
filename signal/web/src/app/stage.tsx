import { useEffect, useRef, useState } from "preact/hooks";
import { ownRole, roleNamed } from "@amphi/sdk";
import type { Peer, RoomState } from "@amphi/sdk";
import { bestGrid, promoteSpeakers, tilesPerPage } from "./grid.js";
import type { Box } from "./grid.js";
import { Icon } from "./icons.js";
import { useRoomState } from "./session.js";
import { Tile } from "./tile.js";
import type { TileSpec } from "./tile.js";
import { IconButton } from "./ui.js";

const gap = 10;

/** The peers whose tiles this peer sees: itself and those whom its role receives, while they may publish. */
export function stagePeers(state: RoomState): Peer[] {
  const heard = ownRole(state)?.subscribe.roles ?? [];
  const onStage = [...state.peers.values()].filter((peer) => {
    if (roleNamed(state, peer.role)?.level !== 1) return false;
    return peer.id === state.selfId || heard.includes(peer.role);
  });
  return onStage.sort((a, b) => a.joinedMs - b.joinedMs || (a.id < b.id ? -1 : 1));
}

export function Stage() {
  const peers = useStagePeers();
  const speaking = useRoomState((state) => state.speakers.map((speaker) => speaker.peerId));
  const selfId = useRoomState((state) => state.selfId);
  const [ref, box] = useBox();
  const screens: TileSpec[] = peers.flatMap((peer) =>
    peer.tracks
      .filter((track) => track.kind === "video" && track.source !== "camera")
      .map((track) => ({ key: track.id, peer, source: track.source })),
  );
  // One's own screen is shown small: the large picture of it would be a hall of mirrors.
  const main = screens.find((screen) => screen.peer.id !== selfId);
  const faces: TileSpec[] = peers.map((peer) => ({ key: peer.id, peer, source: "camera" }));
  const rest = [...screens.filter((screen) => screen !== main), ...faces];
  return (
    <section class="stage" ref={ref} aria-label="Stage" data-testid="stage" data-layout={main ? "screen" : "grid"}>
      {peers.length === 0 && <EmptyStage />}
      {main ? (
        <ScreenLayout main={main} rest={rest} box={box} speaking={speaking} />
      ) : (
        <Grid tiles={rest} box={box} speaking={speaking} />
      )}
    </section>
  );
}

/** While the live stream is made ready, the others stay as they were: the new role may receive none of them. */
function useStagePeers(): Peer[] {
  const now = useRoomState(stagePeers);
  const selfId = useRoomState((state) => state.selfId);
  const leaving = useRoomState(({ picture }) => picture.shown === "webrtc" && picture.next === "hls");
  const last = useRef(now);
  if (!leaving) last.current = now;
  return leaving ? last.current.filter((peer) => peer.id !== selfId) : now;
}

function EmptyStage() {
  return (
    <div class="empty-stage" data-testid="empty-stage">
      <Icon name="people" size={40} />
      <h2>Nobody is on stage yet</h2>
      <p>This page shows them as soon as they come.</p>
    </div>
  );
}

function Grid({ tiles, box, speaking }: { tiles: readonly TileSpec[]; box: Box; speaking: readonly string[] }) {
  const [page, setPage] = useState(0);
  const perPage = Math.max(1, tilesPerPage(box));
  const pages = Math.max(1, Math.ceil(tiles.length / perPage));
  const current = Math.min(page, pages - 1);
  const order = promoteSpeakers(tiles.map((tile) => tile.key), new Set(speaking), perPage);
  const byKey = new Map(tiles.map((tile) => [tile.key, tile]));
  const shown = order.slice(current * perPage, (current + 1) * perPage).map((key) => byKey.get(key)!);
  const inner = { width: box.width, height: box.height - (pages > 1 ? 40 : 0) };
  const fit = bestGrid(shown.length, inner, gap);
  return (
    <div class="grid">
      <div class="grid-tiles" style={{ gap, maxWidth: fit.columns * (fit.tileWidth + gap) }}>
        {shown.map((tile) => (
          <Tile
            key={tile.key}
            spec={tile}
            style={{ width: fit.tileWidth, height: fit.tileHeight }}
            large={fit.tileHeight > 320}
          />
        ))}
      </div>
      {pages > 1 && (
        <nav class="pages" aria-label="Pages of tiles">
          <IconButton icon="left" label="Previous page" disabled={current === 0} onClick={() => setPage(current - 1)} />
          <span data-testid="page-number">
            {current + 1} / {pages}
          </span>
          <IconButton
            icon="right"
            label="Next page"
            disabled={current === pages - 1}
            onClick={() => setPage(current + 1)}
          />
        </nav>
      )}
    </div>
  );
}

function ScreenLayout({
  main,
  rest,
  box,
  speaking,
}: {
  main: TileSpec;
  rest: readonly TileSpec[];
  box: Box;
  speaking: readonly string[];
}) {
  const upright = box.width < box.height * 1.1;
  const fits = Math.max(2, upright ? Math.floor(box.width / 110) : Math.floor(box.height / 125));
  const order = promoteSpeakers(rest.map((tile) => tile.key), new Set(speaking), fits);
  const byKey = new Map(rest.map((tile) => [tile.key, tile]));
  const more = rest.length - fits;
  return (
    <div class={`screen-layout ${upright ? "upright" : ""}`}>
      <Tile key={main.key} spec={main} large />
      <div class="strip">
        {order.slice(0, more > 0 ? fits - 1 : fits).map((key) => (
          <Tile key={key} spec={byKey.get(key)!} />
        ))}
        {more > 0 && <div class="tile more">+{more + 1}</div>}
      </div>
    </div>
  );
}

/** The size of an element, kept current. */
function useBox(): [{ current: HTMLElement | null }, Box] {
  const ref = useRef<HTMLElement>(null);
  const [box, setBox] = useState<Box>({ width: 0, height: 0 });
  useEffect(() => {
    if (!ref.current) return undefined;
    const observer = new ResizeObserver(([entry]) => {
      const { width, height } = entry!.contentRect;
      setBox({ width, height });
    });
    observer.observe(ref.current);
    return () => observer.disconnect();
  }, []);
  return [ref, box];
}

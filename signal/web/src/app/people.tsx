import { useEffect, useState } from "preact/hooks";
import { ownRole, raisedHands, roleNamed } from "@amphi/sdk";
import type { Peer, PeerPage, Role, RoomState } from "@amphi/sdk";
import { Icon } from "./icons.js";
import { attempt, warn } from "./notices.js";
import { actionsFor, bringOnStage } from "./peer-actions.js";
import { useRoom, useRoomState } from "./session.js";
import { Avatar, Button, IconButton, Menu } from "./ui.js";

const searchDelayMs = 250;

export function PeoplePanel({ close }: { close: () => void }) {
  const total = useRoomState((state) => state.total);
  const known = useRoomState((state) => state.peers.size);
  const [search, setSearch] = useState("");
  const searchable = total > 8 || total > known;
  return (
    <aside class="panel" aria-label="People" data-testid="people-panel">
      <header class="panel-head">
        <h2>
          People <span class="count" data-testid="people-total">{total}</span>
        </h2>
        <IconButton icon="close" label="Close the list of people" onClick={close} />
      </header>
      {searchable && (
        <label class="search">
          <Icon name="search" size={16} />
          <input
            type="search"
            value={search}
            placeholder="Find somebody"
            aria-label="Find somebody"
            data-testid="people-search"
            onInput={(event) => setSearch(event.currentTarget.value)}
          />
        </label>
      )}
      <div class="panel-scroll">
        {search.trim() ? <Found search={search.trim()} /> : <Everybody />}
      </div>
    </aside>
  );
}

function Everybody() {
  const roles = useRoomState((state) => state.template?.roles ?? []);
  const counts = useRoomState((state) => state.roleCounts);
  return (
    <>
      <Hands />
      {roles.filter((role) => (counts[role.name] ?? 0) > 0).map((role) => (
        <RoleSection key={role.name} role={role} count={counts[role.name] ?? 0} />
      ))}
    </>
  );
}

/** The queue of raised hands, first come first. */
function Hands() {
  const room = useRoom();
  const hands = useRoomState(raisedHands);
  const may = useRoomState((state) => ownRole(state)?.permissions);
  if (hands.length === 0) return null;
  return (
    <section class="people-section hands" aria-label="Raised hands" data-testid="hands">
      <h3>
        Raised hands <span class="count">{hands.length}</span>
      </h3>
      <ol>
        {hands.map((peer, i) => (
          <li key={peer.id} class="person" data-testid="hand-row" data-peer={peer.id} data-name={peer.name}>
            <span class="place">{i + 1}</span>
            <Avatar name={peer.name || "?"} id={peer.id} size={26} />
            <PersonName peer={peer} />
            <BringOnStage peer={peer} />
            {(may?.changeRole || may?.manageRoom) && (
              <IconButton icon="close" class="small" label={`Lower ${peer.name}’s hand`} onClick={() => attempt(room.peers.raiseHand(false, peer.id))} />
            )}
          </li>
        ))}
      </ol>
    </section>
  );
}

function BringOnStage({ peer }: { peer: Peer }) {
  const room = useRoom();
  const target = useRoomState((state) =>
    ownRole(state)?.permissions.changeRole ? roleNamed(state, peer.role)?.stageRole : "",
  );
  if (!target) return null;
  return (
    <Button kind="primary" class="small" testid="bring-on-stage" onClick={() => bringOnStage(room, peer)}>
      Bring on stage
    </Button>
  );
}

function RoleSection({ role, count }: { role: Role; count: number }) {
  const peers = useRoomState((state) => peersOf(state, role.name));
  const hidden = count - peers.length;
  return (
    <section class="people-section" aria-label={role.title} data-testid="role-section" data-role={role.name}>
      <h3>
        {role.title} <span class="count">{count}</span>
      </h3>
      <ul>
        {peers.map((peer) => (
          <Person key={peer.id} peer={peer} />
        ))}
      </ul>
      {hidden > 0 && <p class="hidden-count">and {hidden} more: use the search to find somebody</p>}
    </section>
  );
}

function peersOf(state: RoomState, role: string): Peer[] {
  const peers = [...state.peers.values()].filter((peer) => peer.role === role);
  return peers.sort((a, b) => {
    if (a.id === state.selfId) return -1;
    if (b.id === state.selfId) return 1;
    return a.name.localeCompare(b.name);
  });
}

function Person({ peer }: { peer: Peer }) {
  const room = useRoom();
  const self = useRoomState((state) => state.selfId === peer.id);
  const publishes = useRoomState((state) => roleNamed(state, peer.role)?.level === 1);
  const role = useRoomState(ownRole);
  const mic = peer.tracks.find((track) => track.source === "mic");
  const camera = peer.tracks.find((track) => track.source === "camera");
  const items = role ? actionsFor(room, peer) : [];
  return (
    <li class="person" data-testid="people-row" data-peer={peer.id} data-name={peer.name} data-role={peer.role}>
      <Avatar name={peer.name || "?"} id={peer.id} />
      <PersonName peer={peer} self={self} />
      {peer.handRaisedMs > 0 && <Icon name="hand" size={16} />}
      {publishes && (
        <span class="person-media">
          <Icon name={mic && !mic.muted ? "mic" : "micOff"} size={16} />
          <Icon name={camera && !camera.muted ? "camera" : "cameraOff"} size={16} />
        </span>
      )}
      {items.length > 0 && (
        <Menu label={`Actions for ${peer.name}`} icon="more" items={items} buttonClass="icon-button small" testid="person-menu" />
      )}
    </li>
  );
}

function PersonName({ peer, self }: { peer: Peer; self?: boolean }) {
  return (
    <span class="person-name">
      <span>
        {peer.name || "Guest"}
        {self && <em> (you)</em>}
      </span>
      {peer.lost && <small>connection lost</small>}
      {peer.chatBlocked && <small>chat blocked</small>}
    </span>
  );
}

/** Search at the server, for in large rooms this client knows few of the peers. */
function Found({ search }: { search: string }) {
  const room = useRoom();
  const [page, setPage] = useState<PeerPage>();
  const load = (after: string): void => {
    room.peers
      .list({ search, limit: 50, after })
      .then((next) => setPage((now) => (after && now ? { ...next, peers: [...now.peers, ...next.peers] } : next)))
      .catch(warn);
  };
  useEffect(() => {
    const timer = setTimeout(() => load(""), searchDelayMs);
    return () => clearTimeout(timer);
  }, [search]);
  if (!page) return <p class="hidden-count">Searching…</p>;
  return (
    <section class="people-section">
      <h3>
        Found <span class="count">{page.total || page.peers.length}</span>
      </h3>
      <ul>
        {page.peers.map((peer) => (
          <Person key={peer.id} peer={room.state.peers.get(peer.id) ?? peer} />
        ))}
      </ul>
      {page.peers.length === 0 && <p class="hidden-count">Nobody has this in their name.</p>}
      {page.next && <Button onClick={() => load(page.next)}>Show more</Button>}
    </section>
  );
}

import { useEffect, useState } from "preact/hooks";
import type { NodeInfoJson, NodeStatusJson } from "../gen/amphi/v1/api_pb.js";
import { keepToken, listNodes, nodeStatus, RefusedError } from "./api.js";
import { ClusterFacts, ClusterMap, RelayTrees, Trunks } from "./cluster.js";
import { bytes, count, downTrackRows, duration, matches, number, peerRows, streamRows, upTrackRows } from "./rows.js";
import { Drops, DownTracks, Outputs, Peers, Rooms, Streams, StreamsOfOthers, UpTracks } from "./sections.js";

const pollMs = 2_000;
const tabs = ["Rooms", "Peers", "DownTracks", "UpTracks", "Streams", "Outputs", "Drops", "Trunks", "Trees"] as const;
// What only a node of a cluster has.
const clusterTabs: ReadonlySet<string> = new Set(["Trunks", "Trees"]);
type Tab = (typeof tabs)[number];

export function OpsPage({ start }: { start: string }) {
  const [token, setToken] = useState(start);
  const [refusal, setRefusal] = useState("");
  if (!token) {
    return (
      <TokenForm
        refusal={refusal}
        use={(t) => {
          keepToken(t);
          setToken(t);
        }}
      />
    );
  }
  return (
    <Dashboard
      token={token}
      refused={(why) => {
        keepToken("");
        setRefusal(why);
        setToken("");
      }}
    />
  );
}

function TokenForm({ refusal, use }: { refusal: string; use: (token: string) => void }) {
  const [text, setText] = useState("");
  return (
    <main class="token-form">
      <h1>Amphi ops</h1>
      <p>
        This page needs a management token. <code>amphi token --management</code> prints one; <code>amphi dev</code> prints
        a link that holds one.
      </p>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          if (text.trim()) use(text.trim());
        }}
      >
        <label>
          Management token
          <input value={text} onInput={(e) => setText(e.currentTarget.value)} autocomplete="off" spellcheck={false} autofocus data-testid="ops-token" />
        </label>
        {refusal && <p role="alert" class="alert">{refusal}</p>}
        <button type="submit">Open</button>
      </form>
    </main>
  );
}

function Dashboard({ token, refused }: { token: string; refused: (why: string) => void }) {
  const [node, setNode] = useState("");
  const { status, nodes, failure } = useNode(token, node, refused);
  const [tab, setTab] = useState<Tab>("Rooms");
  const [search, setSearch] = useState("");
  if (!status) return <main class="token-form">{failure ? <p class="alert" role="alert">{failure}</p> : <p>Asking the node…</p>}</main>;
  return (
    <main class="ops" data-testid="ops">
      <Head status={status} failure={failure} />
      {nodes.length > 1 && <ClusterMap token={token} nodes={nodes} shown={status.info?.id ?? ""} show={setNode} />}
      <ClusterFacts status={status} />
      <Figures status={status} />
      <nav class="tabs" role="tablist">
        {tabs.filter((name) => status.cluster || !clusterTabs.has(name)).map((name) => (
          <button key={name} type="button" role="tab" aria-selected={tab === name} data-testid={`tab-${name}`} onClick={() => setTab(name)}>
            {name} <span>{rowCount(status, name)}</span>
          </button>
        ))}
        <input type="search" placeholder="Search rooms, peers, tracks, reasons" aria-label="Search" value={search} data-testid="ops-search" onInput={(e) => setSearch(e.currentTarget.value)} />
      </nav>
      <Section status={status} tab={tab} search={search.trim()} open={(room) => { setSearch(room); setTab("Peers"); }} />
    </main>
  );
}

function Section({ status, tab, search, open }: { status: NodeStatusJson; tab: Tab; search: string; open: (room: string) => void }) {
  const rooms = status.rooms ?? [];
  switch (tab) {
    case "Rooms":
      return <Rooms rows={rooms.filter((r) => matches(search, r.name, r.sessionId, r.owner))} open={open} />;
    case "Peers":
      return (
        <Peers
          rows={peerRows(rooms).filter(({ room, peer }) => matches(search, room, peer.name, peer.peerId, peer.role, peer.transport, peer.remote))}
        />
      );
    case "DownTracks":
      return (
        <DownTracks
          rows={downTrackRows(rooms).filter((r) => matches(search, r.room, r.peer.name, r.peer.peerId, r.publisher, r.source, r.track.trackId, r.track.reason))}
        />
      );
    case "UpTracks":
      return (
        <UpTracks
          rows={upTrackRows(rooms).filter((r) => matches(search, r.room, r.peer.name, r.peer.peerId, r.track.trackId, r.track.source, r.track.codec))}
        />
      );
    case "Streams":
      return (
        <>
          <Streams rows={streamRows(status).filter((s) => matches(search, s.room, s.stream?.name, s.stream?.state))} />
          {status.edge && <StreamsOfOthers edge={status.edge} />}
        </>
      );
    case "Outputs":
      return (
        <Outputs
          rows={(status.outputs ?? []).filter((o) => matches(search, o.room, o.output?.kind, o.output?.state, o.output?.url, o.output?.id))}
        />
      );
    case "Trunks":
      return <Trunks rows={(status.trunks ?? []).filter((t) => matches(search, t.node, t.state))} />;
    case "Trees":
      return <RelayTrees rooms={rooms.filter((r) => matches(search, r.name, r.owner))} />;
    case "Drops":
      return <Drops drops={status.drops ?? {}} search={search} />;
  }
}

function rowCount(status: NodeStatusJson, tab: Tab): number {
  const rooms = status.rooms ?? [];
  switch (tab) {
    case "Rooms":
      return rooms.length;
    case "Peers":
      return peerRows(rooms).length;
    case "DownTracks":
      return downTrackRows(rooms).length;
    case "UpTracks":
      return upTrackRows(rooms).length;
    case "Streams":
      return streamRows(status).length;
    case "Outputs":
      return status.outputs?.length ?? 0;
    case "Trunks":
      return status.trunks?.length ?? 0;
    case "Trees":
      return rooms.filter((room) => (room.plan?.trees ?? []).length > 0).length;
    case "Drops":
      return Object.keys(status.drops ?? {}).length;
  }
}

function Head({ status, failure }: { status: NodeStatusJson; failure: string }) {
  const { info } = status;
  return (
    <header>
      <h1>Amphi ops</h1>
      <dl>
        <dt>Node</dt>
        <dd data-testid="ops-node">{info?.id}</dd>
        <dt>Region</dt>
        <dd>{info?.region || "–"}</dd>
        <dt>Version</dt>
        <dd>{info?.version || "–"}</dd>
        <dt>Up for</dt>
        <dd>{duration(info?.startedMs, status.timeMs)}</dd>
      </dl>
      {failure && <span class="alert" role="alert">{failure}</span>}
    </header>
  );
}

function Figures({ status }: { status: NodeStatusJson }) {
  const levels = [1, 2, 3].map((level) =>
    (status.rooms ?? []).reduce((sum, room) => sum + (room.peersByLevel?.[level] ?? 0), 0),
  );
  const drops = Object.values(status.drops ?? {}).reduce((sum, n) => sum + Number(n), 0);
  const figures: [string, string, string?][] = [
    ["On stage", count(levels[0]), "Level 1"],
    ["Off stage", count(levels[1]), "Level 2"],
    ["Live-stream audience", count(levels[2]), "Level 3"],
    ["Clients", count(status.clients)],
    ["CPU, node", `${number(status.cpuCores, 2)} cores`],
    ["CPU, compositors", `${number(status.compositorCpuCores, 2)} cores`],
    ["Memory", bytes(status.rssBytes)],
    ["Goroutines", count(status.goroutines)],
    ["Received", bytes(status.bytesIn), `${count(status.packetsIn)} packets`],
    ["Sent", bytes(status.bytesOut), `${count(status.packetsOut)} packets`],
    ["Dropped", count(drops)],
  ];
  if (status.storage) figures.push(["Storage", status.storage, status.storageReason || `${status.storageWaiting ?? 0} files wait`]);
  return (
    <section class="figures" aria-label="Figures of this node">
      {figures.map(([name, value, title]) => (
        <div key={name} title={title}>
          <span>{name}</span>
          <strong>{value}</strong>
        </div>
      ))}
    </section>
  );
}

interface Seen {
  readonly status: NodeStatusJson | undefined;
  readonly nodes: readonly NodeInfoJson[];
  readonly failure: string;
}

/** A node's status and the list of all, asked again and again while the page is seen. */
function useNode(token: string, node: string, refused: (why: string) => void): Seen {
  const [status, setStatus] = useState<NodeStatusJson>();
  const [nodes, setNodes] = useState<readonly NodeInfoJson[]>([]);
  const [failure, setFailure] = useState("");
  useEffect(() => {
    const stop = new AbortController();
    let timer: ReturnType<typeof setTimeout>;
    const poll = async (): Promise<void> => {
      try {
        if (document.visibilityState === "visible") {
          setNodes(await listNodes(token, stop.signal));
          setStatus(await nodeStatus(token, node, stop.signal));
          setFailure("");
        }
      } catch (thrown) {
        if (stop.signal.aborted) return;
        const why = thrown instanceof Error ? thrown.message : String(thrown);
        if (thrown instanceof RefusedError) return refused(why);
        setFailure(`The node does not answer: ${why}`);
      }
      timer = setTimeout(() => void poll(), pollMs);
    };
    void poll();
    return () => {
      stop.abort();
      clearTimeout(timer);
    };
  }, [token, node]);
  return { status, nodes, failure };
}

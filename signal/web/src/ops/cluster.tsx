import { useState } from "preact/hooks";
import type { NodeInfoJson, NodeStatusJson, RoomStatusJson, TrunkStatusJson } from "../gen/amphi/v1/api_pb.js";
import { drainNode, undrainNode } from "./api.js";
import { count, kbps, number } from "./rows.js";
import { Chip } from "./sections.js";
import { Table } from "./table.js";
import { byRegion, relayTrees } from "./tree.js";
import type { Branch } from "./tree.js";

/** All nodes by region. Choosing one shows it in the rest of the page. */
export function ClusterMap({ token, nodes, shown, show }: { token: string; nodes: readonly NodeInfoJson[]; shown: string; show: (id: string) => void }) {
  const [failure, setFailure] = useState("");
  const ask = (what: Promise<unknown>): void => {
    setFailure("");
    what.catch((thrown: unknown) => setFailure(thrown instanceof Error ? thrown.message : String(thrown)));
  };
  return (
    <section class="map" aria-label="Nodes by region" data-testid="ops-map">
      {failure && <p class="alert" role="alert">{failure}</p>}
      {byRegion(nodes).map(([region, members]) => (
        <div key={region} class="region">
          <h2>{region}</h2>
          {members.map((node) => (
            <NodeCard
              key={node.id}
              node={node}
              shown={node.id === shown}
              show={() => show(node.id ?? "")}
              drain={() => ask(drainNode(token, node.id ?? ""))}
              undrain={() => ask(undrainNode(token, node.id ?? ""))}
            />
          ))}
        </div>
      ))}
    </section>
  );
}

interface CardProps {
  readonly node: NodeInfoJson;
  readonly shown: boolean;
  show(): void;
  drain(): void;
  undrain(): void;
}

function NodeCard({ node, shown, show, drain, undrain }: CardProps) {
  const [sure, setSure] = useState(false);
  const load = Math.round(((node.load ?? 0) * 100) / 255);
  const draining = node.state === "draining";
  const gone = node.state === "down";
  return (
    <article class={`node ${shown ? "shown" : ""} ${gone ? "gone" : ""}`} data-testid={`node-${node.id}`}>
      <button type="button" class="link" disabled={gone} aria-pressed={shown} onClick={show}>
        {node.id}
      </button>
      <Chip text={node.state} bad={node.state !== "alive"} />
      {node.leader && <Chip text="raft leader" bad={false} />}
      {gone && node.revokedBeforeMs !== undefined && <Chip text="revoked" bad={true} />}
      <p>
        {(node.roles ?? []).join(", ")}
        {node.zone ? ` · ${node.zone}` : ""}
        {node.rttMs ? ` · ${number(node.rttMs, 1)} ms` : ""}
      </p>
      <meter min={0} max={100} high={90} value={load} aria-label={`Load of ${node.id}`} />
      <span class="load">{load} %</span>
      {draining && <button type="button" onClick={undrain}>Undrain</button>}
      {!draining && !gone && !sure && <button type="button" onClick={() => setSure(true)}>Drain…</button>}
      {sure && !draining && !gone && (
        <span class="sure">
          It moves everything away and ends.
          <button type="button" onClick={() => { setSure(false); drain(); }}>Drain {node.id}</button>
          <button type="button" onClick={() => setSure(false)}>Keep</button>
        </span>
      )}
    </article>
  );
}

/** Raft, gossip, the lease and a drain, as the shown node sees them. */
export function ClusterFacts({ status }: { status: NodeStatusJson }) {
  const { cluster, drain } = status;
  if (!cluster) return null;
  const facts: [string, string, boolean][] = [
    ["Raft", cluster.raftState ?? "–", false],
    ["Leader", cluster.leader || "nobody", !cluster.leader],
    ["Term", String(cluster.term ?? 0), false],
    ["Applied", `${count(cluster.appliedIndex)} of ${count(cluster.commitIndex)}`, false],
    ["Voters", (cluster.voters ?? []).join(", "), false],
    ["Lease", cluster.leased ? "valid" : "gone: it decides nothing", !cluster.leased],
    ["Gossip", `${cluster.alive ?? 0} alive, ${cluster.suspect ?? 0} suspect, ${cluster.dead ?? 0} dead`, (cluster.suspect ?? 0) + (cluster.dead ?? 0) > 0],
    ...Object.entries(cluster.refused ?? {}).map(([reason, n]): [string, string, boolean] => [`Refused: ${reason}`, count(n), true]),
    ...(drain ? [["Drain", `left: ${drain.roomsLeft ?? 0} rooms, ${drain.clientsLeft ?? 0} clients, ${drain.relaysLeft ?? 0} relays`, true] as [string, string, boolean]] : []),
  ];
  return (
    <dl class="facts" data-testid="ops-facts">
      {facts.map(([name, value, bad]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd class={bad ? "bad" : ""}>{value}</dd>
        </div>
      ))}
    </dl>
  );
}

export function Trunks({ rows }: { rows: readonly TrunkStatusJson[] }) {
  return (
    <Table
      testid="ops-trunks"
      rows={rows}
      keyOf={(t) => t.node ?? ""}
      empty="This node has no trunks."
      columns={[
        { name: "To", order: (t) => t.node ?? "", cell: (t) => <code>{t.node}</code> },
        { name: "State", order: (t) => t.state ?? "", cell: (t) => <Chip text={t.state} bad={t.state !== "up"} /> },
        { name: "RTT", numeric: true, order: (t) => Number(t.rttMs ?? 0), cell: (t) => `${number(t.rttMs, 1)} ms` },
        { name: "Loss", title: "Of what came in, before repair", numeric: true, order: (t) => Number(t.loss ?? 0), cell: (t) => `${(Number(t.loss ?? 0) * 100).toFixed(2)} %` },
        { name: "In", numeric: true, order: (t) => t.inKbps ?? 0, cell: (t) => kbps(t.inKbps) },
        { name: "Out", numeric: true, order: (t) => t.outKbps ?? 0, cell: (t) => kbps(t.outKbps) },
        { name: "Budget", title: "What congestion control allows out", numeric: true, order: (t) => t.budgetKbps ?? 0, cell: (t) => (t.budgetKbps ? kbps(t.budgetKbps) : "–") },
        { name: "Queue", numeric: true, order: (t) => Number(t.queueMs ?? 0), cell: (t) => `${number(t.queueMs, 1)} ms` },
        { name: "Relays in", numeric: true, order: (t) => t.relaysIn ?? 0, cell: (t) => t.relaysIn ?? 0 },
        { name: "Relays out", numeric: true, order: (t) => t.relaysOut ?? 0, cell: (t) => t.relaysOut ?? 0 },
      ]}
    />
  );
}

/** Over which nodes the tracks of each room travel. */
export function RelayTrees({ rooms }: { rooms: readonly RoomStatusJson[] }) {
  const planned = rooms.filter((room) => relayTrees(room).length > 0);
  if (planned.length === 0) return <p class="none">No room here spans several nodes.</p>;
  return (
    <div class="trees" data-testid="ops-trees">
      {planned.map((room) => (
        <section key={room.name}>
          <h2>
            {room.name} <small>owner {room.owner}, standby {room.standby || "none"}, epoch {room.epoch ?? 0}</small>
          </h2>
          {relayTrees(room).map((tree) => (
            <ul key={tree.node} class="tree">
              <Node branch={tree} home />
            </ul>
          ))}
        </section>
      ))}
    </div>
  );
}

function Node({ branch, home }: { branch: Branch; home?: boolean }) {
  return (
    <li>
      <code>{branch.node}</code>
      {home ? <small> home</small> : <small>{branch.tracks ? ` ${branch.tracks} relays, ${kbps(branch.kbps)}` : ""}</small>}
      {branch.backup && <small> · else from {branch.backup}</small>}
      {branch.children.length > 0 && (
        <ul>
          {branch.children.map((child) => (
            <Node key={child.node} branch={child} />
          ))}
        </ul>
      )}
    </li>
  );
}

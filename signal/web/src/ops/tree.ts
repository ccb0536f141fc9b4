// Relay trees, from what a node says of a room: pure.
import type { RoomStatusJson } from "../gen/amphi/v1/api_pb.js";

/** A node in the tree of one home, with those that take the home's tracks from it. */
export interface Branch {
  readonly node: string;
  /** Who it turns to when its parent is lost; empty: nobody else. */
  readonly backup: string;
  /** What its parent sends it now, where the node asked knows that. */
  readonly kbps: number;
  readonly tracks: number;
  readonly children: readonly Branch[];
}

/** One tree for each home; empty before there is a plan. */
export function relayTrees(room: RoomStatusJson): Branch[] {
  const plan = room.plan;
  if (!plan) return [];
  const name = (i: number | undefined): string => plan.nodes?.[i ?? 0] ?? "";
  return (plan.trees ?? []).map((tree) => {
    const below = (node: number, parent: number, backup: number, path: number): Branch => {
      const relays = (room.relays ?? []).filter((r) => r.home === name(tree.home) && r.from === name(parent) && r.to === name(node));
      const children = path > 64 ? [] : (tree.hops ?? []).filter((hop) => (hop.parent ?? 0) === node);
      return {
        node: name(node),
        backup: backup === parent ? "" : name(backup),
        kbps: relays.reduce((sum, r) => sum + (r.bitrateKbps ?? 0), 0),
        tracks: relays.length,
        children: children.map((hop) => below(hop.node ?? 0, node, hop.backup ?? 0, path + 1)),
      };
    };
    const home = tree.home ?? 0;
    return below(home, home, home, 0);
  });
}

/** Nodes by region, both in the order of their names. */
export function byRegion<T extends { readonly id?: string; readonly region?: string }>(nodes: readonly T[]): [string, T[]][] {
  const regions = new Map<string, T[]>();
  for (const node of [...nodes].sort((a, b) => (a.id ?? "").localeCompare(b.id ?? ""))) {
    const region = node.region || "–";
    regions.set(region, [...(regions.get(region) ?? []), node]);
  }
  return [...regions].sort(([a], [b]) => a.localeCompare(b));
}

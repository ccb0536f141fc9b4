import { selfOf } from "@amphi/sdk";
import type { Room } from "@amphi/sdk";

/**
 * Tells the page around an embedded room what happens, through postMessage. Every message is
 * `{ source: "amphi", type, ... }`; README.md lists the types. They hold no token.
 */
export function announceToParent(room: Room): void {
  if (window.parent === window) return;
  const origin = parentOrigin();
  const post = (type: string, detail: object = {}): void =>
    window.parent.postMessage({ source: "amphi", type, ...detail }, origin);
  let phase = room.state.phase;
  room.subscribe((state) => {
    if (state.phase === phase) return;
    phase = state.phase;
    const self = selfOf(state);
    post("phase", { phase, ...(state.error ? { code: state.error.code } : {}) });
    if (phase === "joined") post("joined", { room: state.room, peerId: state.selfId, role: state.roleName, name: self?.name });
  });
  room.on("role-changed", ({ self, from, to }) => self && post("role-changed", { from, to }));
  room.on("peer-joined", ({ peer }) => post("peer-joined", { peerId: peer.id, name: peer.name, role: peer.role }));
  room.on("peer-left", ({ peer, reason }) => post("peer-left", { peerId: peer.id, reason }));
  room.on("stream-changed", (stream) => post("stream", { name: stream.name, phase: stream.phase }));
  room.on("ended", ({ error }) => post("ended", { code: error.code }));
  post("ready");
}

function parentOrigin(): string {
  try {
    return document.referrer ? new URL(document.referrer).origin : "*";
  } catch {
    return "*";
  }
}

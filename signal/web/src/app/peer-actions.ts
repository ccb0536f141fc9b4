// What one may do with another peer, from the data of both roles.
import { ownRole, roleNamed } from "@amphi/sdk";
import type { Peer, Room } from "@amphi/sdk";
import { attempt, tell, warn } from "./notices.js";
import type { MenuItem } from "./ui.js";
import { wordsFor } from "./words.js";
import { AmphiError } from "@amphi/sdk";

/** Asks a peer to take its role's stage role. */
export function bringOnStage(room: Room, peer: Peer): void {
  const target = roleNamed(room.state, peer.role)?.stageRole;
  if (target) changeRole(room, peer, target, false);
}

/** Moves a peer off the stage at once: back to where it came from if that is off stage, else to the role's own way. */
export function removeFromStage(room: Room, peer: Peer): void {
  const role = roleNamed(room.state, peer.role);
  const previous = roleNamed(room.state, peer.previousRole);
  const target = previous?.stageRole === peer.role ? previous.name : role?.offStageRole;
  if (target) changeRole(room, peer, target, true);
}

function changeRole(room: Room, peer: Peer, role: string, force: boolean): void {
  const title = roleNamed(room.state, role)?.title ?? role;
  room.roles
    .change(peer.id, role, { force })
    .then((change) => {
      const refusal = change.failed[peer.id];
      if (refusal) return warn(new AmphiError(refusal, wordsFor(new AmphiError(refusal, "")).title));
      if (force) tell(`${peer.name} is now ${title}`);
      else tell(`${peer.name} was asked`, `They can accept or decline to be ${title}.`);
    })
    .catch(warn);
}

export function actionsFor(room: Room, peer: Peer): MenuItem[] {
  const { state } = room;
  const may = ownRole(state)?.permissions;
  const role = roleNamed(state, peer.role);
  const self = peer.id === state.selfId;
  if (!may) return [];
  const items: MenuItem[] = [];
  const published = (source: string): boolean => peer.tracks.some((track) => track.source === source && !track.muted);
  if (!self && may.muteOthers) {
    for (const [source, name] of [["mic", "microphone"], ["camera", "camera"], ["screen", "shared screen"]] as const) {
      if (!published(source)) continue;
      const act = (): void => attempt(room.peers.mute({ peers: [peer.id], sources: [source] }));
      items.push({ label: `Turn off their ${name}`, icon: source === "mic" ? "micOff" : source === "camera" ? "cameraOff" : "screenOff", testid: `mute-${source}`, act });
    }
  }
  if (!self && may.askUnmute && role?.publish.audio && !published("mic")) {
    items.push({
      label: "Ask to unmute",
      icon: "mic",
      testid: "ask-unmute",
      act: () => attempt(room.peers.askUnmute({ peers: [peer.id], sources: ["mic"] }).then(() => tell(`${peer.name} was asked to unmute`))),
    });
  }
  if (may.changeRole) items.push(...roleActions(room, peer));
  if (!self && may.moderateChat) {
    items.push({
      label: peer.chatBlocked ? "Let them chat again" : "Block their messages",
      icon: "chat",
      act: () => attempt(room.chat.block(peer.id, !peer.chatBlocked)),
    });
  }
  if (!self && may.removeOthers) {
    items.push(
      { label: "Remove from the room", icon: "leave", danger: true, testid: "remove-peer", act: () => attempt(room.peers.remove([peer.id])) },
      { label: "Remove and keep out", icon: "lock", danger: true, testid: "ban-peer", act: () => attempt(room.peers.remove([peer.id], { ban: true })) },
    );
  }
  return items;
}

function roleActions(room: Room, peer: Peer): MenuItem[] {
  const { state } = room;
  const role = roleNamed(state, peer.role);
  const self = peer.id === state.selfId;
  const items: MenuItem[] = [];
  if (!self && role?.stageRole) {
    items.push({ label: "Bring on stage", icon: "stageUp", testid: "menu-bring-on-stage", act: () => bringOnStage(room, peer) });
  }
  if (!self && role?.offStageRole) {
    items.push({ label: "Remove from stage", icon: "stageDown", testid: "remove-from-stage", act: () => removeFromStage(room, peer) });
  }
  for (const other of state.template?.roles ?? []) {
    if (other.name === peer.role) continue;
    items.push({
      label: `Make ${self ? "yourself " : ""}${other.title}`,
      icon: "people",
      testid: `make-${other.name}`,
      act: () => changeRole(room, peer, other.name, true),
    });
  }
  return items;
}

import { AmphiError, ownRole, roleNamed } from "@amphi/sdk";
import { tell, untell, warn } from "./notices.js";
import { bringOnStage } from "./peer-actions.js";
import { useRoom, useRoomEvent } from "./session.js";
import { roleInWords, sourceNames } from "./words.js";

/** Says what happens in the room, where it concerns this peer. */
export function useRoomNotices(chatOpen: boolean): void {
  const room = useRoom();

  useRoomEvent("peer-updated", ({ peer, what }) => {
    if (what !== "hand" || peer.id === room.state.selfId) return;
    if (peer.handRaisedMs === 0) return untell("hand " + peer.id);
    if (!ownRole(room.state)?.permissions.changeRole) return;
    const canCome = roleNamed(room.state, peer.role)?.stageRole;
    const action = { label: "Bring on stage", testid: "notice-bring-on-stage", act: () => bringOnStage(room, peer) };
    tell(`${peer.name} raised a hand`, undefined, { about: "hand " + peer.id, ...(canCome ? { action } : {}) });
  });

  useRoomEvent("peer-left", ({ peer }) => untell("hand " + peer.id));

  useRoomEvent("role-changed", ({ peer, self, forced, to }) => {
    untell("hand " + peer.id);
    if (!self) return;
    const role = roleNamed(room.state, to);
    if (!role) return;
    const hint = forced && role.publish.audio ? " Turn your microphone on when you want to speak." : "";
    tell(`You are now ${role.title}`, roleInWords(role) + hint);
  });

  useRoomEvent("role-change-answered", ({ peerId, accepted, expired }) => {
    if (peerId === room.state.selfId) return; // its dialog has closed
    const name = room.state.peers.get(peerId)?.name ?? "They";
    tell(accepted ? `${name} accepted` : `${name} ${expired ? "did not answer" : "declined"}`);
  });

  useRoomEvent("muted-by-other", ({ track, by }) => {
    const name = room.state.peers.get(by)?.name ?? "Somebody who runs the room";
    tell(`${name} turned your ${sourceNames[track.source] ?? track.source} off`);
  });

  useRoomEvent("message", (message) => {
    if (message.type !== "chat" || chatOpen || message.sender === room.state.selfId) return;
    if (message.to.peers.length > 0) tell(`${message.senderName} wrote to you`, message.text.slice(0, 120));
  });

  useRoomEvent("stream-changed", (stream) => {
    if (stream.phase === "failed") warn(new AmphiError("stream_failed", stream.failure));
    if (stream.phase === "live" && ownRole(room.state)?.permissions.controlStream) tell("You are live");
  });

  useRoomEvent("output-changed", (output) => {
    const may = ownRole(room.state)?.permissions;
    const controls = output.kind === "push" ? may?.controlPush : may?.controlRecording;
    if (output.phase === "failed" && controls) warn(new AmphiError("output_failed", output.failure));
    if (output.kind !== "push" && output.phase === "active" && output.startedBy !== room.state.selfId) {
      tell("This room is being recorded", undefined, { about: "recording" });
    }
  });

  useRoomEvent("reconnected", ({ resumed }) => {
    tell("You are back", resumed ? undefined : "You joined again, because your place was no longer held.");
  });

  useRoomEvent("encryption-error", ({ code, side }) => {
    if (side === "receive" && code !== "replayed") warn(new AmphiError(code, "media could not be decrypted"));
  });

  useRoomEvent("local-failed", ({ source, error }) => warn(error, source));
}

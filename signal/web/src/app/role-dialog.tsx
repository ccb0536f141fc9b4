import { useEffect } from "preact/hooks";
import { roleNamed, selfOf } from "@amphi/sdk";
import type { Role, RoleChangeRequest } from "@amphi/sdk";
import { DeviceSelect, LevelMeter } from "./device-fields.js";
import { attempt } from "./notices.js";
import { DeviceProblems, PreviewPicture } from "./preview.js";
import { useRoom, useRoomState } from "./session.js";
import { Button, Dialog } from "./ui.js";
import { roleInWords } from "./words.js";

/** Asks this peer whether it takes another role, with a look at its devices where the role may use them. */
export function RoleDialog() {
  const request = useRoomState((state) => state.roleRequest);
  const role = useRoomState((state) => (request ? roleNamed(state, request.role) : undefined));
  if (!request || !role) return null;
  return <Asked key={request.requestId} request={request} role={role} />;
}

function Asked({ request, role }: { request: RoleChangeRequest; role: Role }) {
  const room = useRoom();
  const name = useRoomState((state) => selfOf(state)?.name ?? "");
  const { audio, video } = role.publish;
  useEffect(() => {
    if (audio) void room.local.enable("mic");
    if (video) void room.local.enable("camera");
  }, [room, audio, video]);

  const answer = (accept: boolean): void => {
    attempt(room.answerRoleRequest(accept));
  };

  return (
    <Dialog title={audio || video ? "You are invited on stage" : `Become ${role.title}?`} onClose={() => answer(false)} testid="role-dialog" required>
      <p>
        {request.byName || "The organisers"} would like you to be <strong>{role.title}</strong>. {roleInWords(role)}
      </p>
      {(audio || video) && (
        <div class="role-devices">
          <PreviewPicture canShow={video} canSpeak={audio} name={name} />
          <DeviceProblems />
          <div class="device-row">
            {audio && (
              <div class="device-with-meter">
                <DeviceSelect source="mic" />
                <LevelMeter />
              </div>
            )}
            {video && <DeviceSelect source="camera" />}
          </div>
        </div>
      )}
      <footer>
        <Button testid="role-decline" onClick={() => answer(false)}>
          Not now
        </Button>
        <Button kind="primary" testid="role-accept" onClick={() => answer(true)}>
          {audio || video ? "Go on stage" : "Accept"}
        </Button>
      </footer>
    </Dialog>
  );
}

/** Somebody asks this peer to unmute; nothing is turned on without its consent. */
export function UnmuteDialog() {
  const room = useRoom();
  const request = useRoomState((state) => state.unmuteRequest);
  const by = useRoomState((state) => (request ? (state.peers.get(request.by)?.name ?? "The organisers") : ""));
  if (!request) return null;
  const sources = request.sources.filter((source): source is "mic" | "camera" => source === "mic" || source === "camera");
  const names = (sources.length > 0 ? sources : ["mic"]).map((s) => (s === "mic" ? "microphone" : "camera"));
  return (
    <Dialog title={`Turn your ${names.join(" and ")} on?`} onClose={() => room.answerUnmuteRequest(false)} testid="unmute-dialog">
      <p>{by} asks you to turn your {names.join(" and ")} on.</p>
      <footer>
        <Button testid="unmute-decline" onClick={() => room.answerUnmuteRequest(false)}>
          Not now
        </Button>
        <Button kind="primary" testid="unmute-accept" onClick={() => room.answerUnmuteRequest(true)}>
          Turn on
        </Button>
      </footer>
    </Dialog>
  );
}

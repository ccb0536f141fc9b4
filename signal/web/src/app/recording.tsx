import { ownRole, recordingOf, working } from "@amphi/sdk";
import { attempt } from "./notices.js";
import { useRoom, useRoomState } from "./session.js";
import { IconButton } from "./ui.js";

const badgeWords = { starting: "Starts", on: "Rec", paused: "Paused" } as const;
const titles = {
  starting: "The recording starts",
  on: "This room is being recorded",
  paused: "The recording is paused",
} as const;

/** Tells everybody that the room is recorded. */
export function RecordingBadge() {
  const recording = useRoomState(recordingOf);
  return (
    <span role="status">
      {recording !== "off" && (
        <span class={`live-dot rec ${recording}`} title={titles[recording]} data-testid="recording-badge" data-recording={recording}>
          <span class="sr-only">{titles[recording]}</span>
          <span aria-hidden="true">{badgeWords[recording]}</span>
        </span>
      )}
    </span>
  );
}

/** Starts and stops the recording of the live stream, which it starts too where it does not run. */
export function RecordButton() {
  const room = useRoom();
  const may = useRoomState((state) => ownRole(state)?.permissions.controlRecording);
  const running = useRoomState((state) => [...state.outputs.values()].some((o) => o.kind === "recording" && working(o)));
  const stream = useRoomState((state) => state.template?.streams[0]?.name);
  if (!may || !stream || room.encryption !== undefined) return null;
  const recordings = room.recordings;
  return (
    <IconButton
      icon={running ? "stop" : "record"}
      label={running ? "Stop the recording" : "Record the room"}
      pressed={running}
      class={running ? "active" : ""}
      testid="control-record"
      onClick={() => attempt(running ? recordings.stop() : recordings.record({ stream }))}
    />
  );
}

import { useState } from "preact/hooks";
import { mayPublish, ownRole, selfOf } from "@amphi/sdk";
import type { LayoutKind, Room } from "@amphi/sdk";
import { Icon } from "./icons.js";
import type { IconName } from "./icons.js";
import { attempt, tell } from "./notices.js";
import { ReactionPicker } from "./reactions.js";
import { RecordButton } from "./recording.js";
import { useRoom, useRoomState } from "./session.js";
import { Button, Dialog, IconButton, Menu } from "./ui.js";
import type { MenuItem } from "./ui.js";
import { layoutNames } from "./words.js";

export type Panel = "chat" | "people" | undefined;

// Phones cannot.
const canShareScreen = typeof navigator.mediaDevices?.getDisplayMedia === "function" || !isSecureContext;

export interface ControlsProps {
  readonly panel: Panel;
  readonly unread: number;
  setPanel(panel: Panel): void;
  openSettings(): void;
  openShortcuts(): void;
}

/** The row of controls beneath the stage. What a role does not allow is not there. */
export function Controls(props: ControlsProps) {
  const { panel, unread, setPanel, openSettings, openShortcuts } = props;
  const room = useRoom();
  const role = useRoomState(ownRole);
  const hands = useRoomState((state) => [...state.peers.values()].filter((peer) => peer.handRaisedMs > 0).length);
  const may = role?.permissions;
  useRoomState((state) => state.locked);
  const toggle = (which: Panel): void => setPanel(panel === which ? undefined : which);
  const more: MenuItem[] = [
    { label: "Devices and settings", icon: "settings", testid: "control-settings", act: openSettings },
    { label: "Keyboard shortcuts", icon: "keyboard", act: openShortcuts },
    { label: "Full screen", icon: "expand", act: () => void document.documentElement.requestFullscreen?.() },
  ];
  if (may?.manageRoom) more.push(lockItem(room));
  return (
    <nav class="controls" aria-label="Controls">
      <div class="controls-group">
        {mayPublish(role, "mic", "audio") && <SourceButton source="mic" on="mic" off="micOff" name="microphone" />}
        {mayPublish(role, "camera", "video") && <SourceButton source="camera" on="camera" off="cameraOff" name="camera" />}
        {canShareScreen && mayPublish(role, "screen", "video") && <ScreenButton />}
        {may?.raiseHand && <HandButton />}
        {may?.react && <ReactionPicker />}
        <RecordButton />
        {may?.controlStream && <LiveMenu />}
      </div>
      <div class="controls-group">
        <IconButton
          icon="chat"
          label={panel === "chat" ? "Close the chat" : "Open the chat"}
          pressed={panel === "chat"}
          badge={panel === "chat" ? undefined : unread}
          testid="control-chat"
          onClick={() => toggle("chat")}
        />
        <IconButton
          icon="people"
          label={panel === "people" ? "Close the list of people" : "Who is here"}
          pressed={panel === "people"}
          badge={panel === "people" ? undefined : may?.changeRole ? hands : undefined}
          testid="control-people"
          onClick={() => toggle("people")}
        />
        <Menu label="More" icon="more" items={more} testid="control-more" />
        <LeaveButton canEnd={may?.endRoom ?? false} leave={() => void room.leave()} />
      </div>
    </nav>
  );
}

function lockItem(room: Room): MenuItem {
  const locked = room.state.locked;
  return {
    label: locked ? "Unlock the room" : "Lock the room",
    icon: "lock",
    testid: "control-lock",
    act: () => attempt(room.update({ locked: !locked }).then(() => tell(locked ? "The room is open again" : "The room is locked"))),
  };
}

function SourceButton({ source, on, off, name }: { source: "mic" | "camera"; on: IconName; off: IconName; name: string }) {
  const room = useRoom();
  const status = useRoomState((state) => state.local.get(source)?.status ?? "off");
  const enabled = status === "on";
  return (
    <IconButton
      icon={enabled ? on : off}
      label={enabled ? `Turn the ${name} off` : `Turn the ${name} on`}
      pressed={enabled}
      class={enabled ? "" : status === "failed" ? "off failed" : "off"}
      disabled={status === "starting"}
      testid={`control-${source}`}
      onClick={() => attempt(room.local.toggle(source), source)}
    />
  );
}

function ScreenButton() {
  const room = useRoom();
  const sharing = useRoomState((state) => state.local.get("screen")?.status === "on");
  return (
    <IconButton
      icon={sharing ? "screenOff" : "screen"}
      label={sharing ? "Stop sharing the screen" : "Share the screen"}
      pressed={sharing}
      class={sharing ? "active" : ""}
      testid="control-screen"
      onClick={() => attempt(sharing ? room.local.stopScreen() : room.local.shareScreen(), "screen")}
    />
  );
}

function HandButton() {
  const room = useRoom();
  const raised = useRoomState((state) => (selfOf(state)?.handRaisedMs ?? 0) > 0);
  return (
    <IconButton
      icon="hand"
      label={raised ? "Lower your hand" : "Raise your hand"}
      pressed={raised}
      class={raised ? "active" : ""}
      testid="control-hand"
      onClick={() => attempt(room.peers.raiseHand(!raised))}
    />
  );
}

/** Go live, choose the layout, stop. */
function LiveMenu() {
  const room = useRoom();
  const stream = useRoomState((state) => [...state.streams.values()].find((s) => s.phase !== "stopped"));
  const name = useRoomState((state) => stream?.name ?? state.template?.streams[0]?.name ?? "main");
  const phase = stream?.phase ?? "stopped";
  const running = phase === "live" || phase === "starting";
  if (!running) {
    return (
      <Button kind="quiet" icon="live" class="go-live" testid="control-live" onClick={() => attempt(room.streams.start(name))}>
        Go live
      </Button>
    );
  }
  const layouts = (Object.keys(layoutNames) as LayoutKind[]).map((layout) => ({
    label: layoutNames[layout],
    checked: stream?.layout === layout,
    testid: `layout-${layout}`,
    act: () => attempt(room.streams.setLayout(layout, name)),
  }));
  return (
    <Menu
      label="Live stream"
      heading="Layout of the live stream"
      align="center"
      testid="control-live"
      buttonClass={`button live-button ${phase}`}
      items={[
        ...layouts,
        { label: "Stop the live stream", icon: "close", danger: true, testid: "live-stop", act: () => attempt(room.streams.stop(name)) },
      ]}
    >
      <span class="live-dot">{phase === "live" ? "Live" : "Starting…"}</span>
      <Icon name="down" size={16} />
    </Menu>
  );
}

function LeaveButton({ canEnd, leave }: { canEnd: boolean; leave: () => void }) {
  const room = useRoom();
  const [asking, setAsking] = useState(false);
  return (
    <>
      <Button
        kind="danger"
        icon="leave"
        class="leave"
        testid="control-leave"
        aria-label="Leave"
        onClick={() => (canEnd ? setAsking(true) : leave())}
      >
        Leave
      </Button>
      {asking && (
        <Dialog title="Leave the room?" onClose={() => setAsking(false)} testid="leave-dialog">
          <p>The others can go on without you, or you end the room for everybody.</p>
          <footer>
            <Button kind="danger" testid="leave-end" onClick={() => attempt(room.end())}>
              End for all
            </Button>
            <Button kind="primary" testid="leave-only" onClick={leave}>
              Leave
            </Button>
          </footer>
        </Dialog>
      )}
    </>
  );
}

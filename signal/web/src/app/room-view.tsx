import { useEffect, useState } from "preact/hooks";
import { mayPublish, ownRole, ownStream, selfOf } from "@amphi/sdk";
import { ChatPanel } from "./chat.js";
import { Controls } from "./controls.js";
import type { Panel } from "./controls.js";
import { Icon, Logo } from "./icons.js";
import { attempt } from "./notices.js";
import { PeoplePanel } from "./people.js";
import { FloatingReactions } from "./reactions.js";
import { RecordingBadge } from "./recording.js";
import { RoleDialog, UnmuteDialog } from "./role-dialog.js";
import { useRoomNotices } from "./room-notices.js";
import { useRoom, useRoomState, useSession } from "./session.js";
import { SettingsDialog } from "./settings.js";
import { ShortcutsDialog, useShortcuts } from "./shortcuts.js";
import type { Shortcut } from "./shortcuts.js";
import { Stage } from "./stage.js";
import { Button } from "./ui.js";
import { Viewer } from "./viewer.js";

const wide = matchMedia("(min-width: 1000px)");

/** The room, once joined. */
export function RoomView() {
  const { embedded } = useSession();
  const watching = useRoomState((state) => ownRole(state)?.subscribe.delivery === "hls");
  const [panel, setPanel] = useState<Panel>((wide.matches || watching) && !embedded ? "chat" : undefined);
  const [dialog, setDialog] = useState<"settings" | "shortcuts">();
  const unread = useUnread(panel === "chat");
  const shortcuts = useRoomShortcuts(panel, setPanel, () => setDialog("shortcuts"));
  useShortcuts(shortcuts);
  useRoomNotices(panel === "chat");
  const picture = useRoomState((state) => state.picture);
  useEffect(() => {
    // On a phone the panel lies over the stage, but beneath the live stream.
    if (!watching && !wide.matches) setPanel(undefined);
  }, [watching]);
  return (
    <div class={`room ${panel ? "with-panel" : ""} ${embedded ? "embedded" : ""}`} data-testid="room">
      {!embedded && <Header />}
      <ConnectionBanner />
      <main class="room-main">
        <div class="pictures" data-shown={picture.shown} data-next={picture.next}>
          <Pictures />
          <FloatingReactions />
          <SoundBlocked />
          {embedded && (
            <div class="over-picture">
              <RecordingBadge />
            </div>
          )}
        </div>
        {panel === "chat" && <ChatPanel close={() => setPanel(undefined)} />}
        {panel === "people" && <PeoplePanel close={() => setPanel(undefined)} />}
      </main>
      <Controls
        panel={panel}
        unread={unread}
        setPanel={setPanel}
        openSettings={() => setDialog("settings")}
        openShortcuts={() => setDialog("shortcuts")}
      />
      {dialog === "settings" && <SettingsDialog close={() => setDialog(undefined)} />}
      {dialog === "shortcuts" && <ShortcutsDialog shortcuts={shortcuts} close={() => setDialog(undefined)} />}
      <RoleDialog />
      <UnmuteDialog />
    </div>
  );
}

/** The picture that is shown, and beneath it the one that is being made ready. */
function Pictures() {
  const { shown, next } = useRoomState((state) => state.picture);
  const wanted = [...new Set([shown, next])];
  return (
    <>
      {(["webrtc", "hls", "none"] as const)
        .filter((delivery) => wanted.includes(delivery))
        .map((delivery) => (
          <div key={delivery} class={`picture ${delivery === shown ? "" : "beneath"}`} data-delivery={delivery}>
            {delivery === "webrtc" ? <Stage /> : delivery === "hls" ? <Viewer /> : <WaitingRoom />}
          </div>
        ))}
    </>
  );
}

function WaitingRoom() {
  const publishes = useRoomState((state) => ownRole(state)?.level === 1);
  if (publishes) return <Stage />;
  return (
    <section class="empty-stage" data-testid="waiting-room">
      <Icon name="lock" size={40} />
      <h2>You are in the waiting room</h2>
      <p>Somebody will let you in. Keep this page open.</p>
    </section>
  );
}

function Header() {
  const name = useRoomState((state) => state.room);
  const locked = useRoomState((state) => state.locked);
  const role = useRoomState((state) => ownRole(state)?.title);
  const live = useRoomState((state) => ownStream(state)?.phase === "live");
  const network = useRoomState((state) => state.network);
  const encrypted = useRoom().encryption !== undefined;
  return (
    <header class="room-head">
      <Logo />
      <h1 data-testid="room-name">{name}</h1>
      {encrypted && (
        <span class="role-chip" title="The server cannot see or hear what is said here" data-testid="encrypted-badge">
          <Icon name="lock" size={14} /> Encrypted
        </span>
      )}
      {locked && <Icon name="lock" size={16} />}
      {live && (
        <span class="live-dot" data-testid="live-badge">
          Live
        </span>
      )}
      <RecordingBadge />
      <span class="spacer" />
      <Network quality={network} />
      <span class="role-chip" data-testid="own-role" title="Your role">
        {role}
      </span>
    </header>
  );
}

const networkWords = ["lost", "very poor", "poor", "fair", "good", "excellent"];

function Network({ quality }: { quality: number }) {
  if (quality < 0) return null;
  const words = `Your connection is ${networkWords[quality] ?? "unknown"}`;
  return (
    <span class={`network q${quality}`} role="img" aria-label={words} title={words} data-testid="network" data-quality={quality}>
      {[1, 2, 3, 4, 5].map((bar) => (
        <i key={bar} class={bar <= quality ? "on" : ""} />
      ))}
    </span>
  );
}

function ConnectionBanner() {
  const phase = useRoomState((state) => state.phase);
  const transport = useRoomState((state) => state.transport);
  if (phase === "reconnecting") {
    return (
      <div class="banner" role="alert" data-testid="connection-banner" data-kind="reconnecting">
        <span class="spinner-ring" aria-hidden="true" />
        The connection is lost. Reconnecting…
      </div>
    );
  }
  if (transport !== "interrupted") return null;
  return (
    <div class="banner" role="alert" data-testid="connection-banner" data-kind="media">
      <span class="spinner-ring" aria-hidden="true" />
      Audio and video are interrupted. Connecting again…
    </div>
  );
}

function SoundBlocked() {
  const room = useRoom();
  const blocked = useRoomState((state) => state.audioBlocked);
  if (!blocked) return null;
  return (
    <Button kind="primary" icon="sound" class="unmute" testid="unblock-audio" onClick={() => attempt(room.unblockAudio())}>
      Click to hear the room
    </Button>
  );
}

/** How many messages came while the chat was closed. */
function useUnread(reading: boolean): number {
  const last = useRoomState((state) => state.messages.at(-1)?.id ?? 0);
  const [read, setRead] = useState(last);
  useEffect(() => {
    if (reading) setRead(last);
  }, [reading, last]);
  return useRoomState(
    (state) => state.messages.filter((message) => message.id > read && message.sender !== state.selfId).length,
  );
}

function useRoomShortcuts(panel: Panel, setPanel: (panel: Panel) => void, help: () => void): Shortcut[] {
  const room = useRoom();
  const role = useRoomState(ownRole);
  const toggle = (which: Panel): void => setPanel(panel === which ? undefined : which);
  const shortcuts: Shortcut[] = [];
  if (mayPublish(role, "mic", "audio")) {
    shortcuts.push({ key: "m", what: "Microphone on or off", act: () => attempt(room.local.toggle("mic"), "mic") });
  }
  if (mayPublish(role, "camera", "video")) {
    shortcuts.push({ key: "v", what: "Camera on or off", act: () => attempt(room.local.toggle("camera"), "camera") });
  }
  if (role?.permissions.raiseHand) {
    const raised = (selfOf(room.state)?.handRaisedMs ?? 0) > 0;
    shortcuts.push({ key: "h", what: "Raise or lower your hand", act: () => attempt(room.peers.raiseHand(!raised)) });
  }
  shortcuts.push(
    { key: "c", what: "Chat", act: () => toggle("chat") },
    { key: "p", what: "People", act: () => toggle("people") },
    { key: "escape", what: "Close what is open at the side", act: () => setPanel(undefined) },
    { key: "?", what: "These shortcuts", act: help },
  );
  return shortcuts;
}

import { useEffect, useState } from "preact/hooks";
import { asAmphiError } from "@amphi/sdk";
import type { AmphiError } from "@amphi/sdk";
import { unlockWithKnown } from "./encryption.js";
import { Notices } from "./notices.js";
import { Over } from "./over.js";
import { Preview, rememberedName } from "./preview.js";
import { RoomView } from "./room-view.js";
import { SessionProvider, useRoomState, useSession } from "./session.js";
import type { AppSession } from "./session.js";
import { Spinner } from "./ui.js";

export function App({ open }: { open: () => AppSession }) {
  const [session, setSession] = useState(open);
  return (
    <SessionProvider value={session} key={session.room}>
      <Screens again={() => setSession(open())} />
      <Notices />
    </SessionProvider>
  );
}

function Screens({ again }: { again: () => void }) {
  const phase = useRoomState((state) => state.phase);
  const ended = useRoomState((state) => state.error);
  const joined = useRoomState((state) => state.selfId !== "" && state.peers.has(state.selfId));
  const roomName = useRoomState((state) => state.room);
  const failure = useEntry();
  useEffect(() => {
    document.title = roomName ? `${roomName} · Amphi` : "Amphi";
  }, [roomName]);

  const error = failure ?? (phase === "left" || phase === "failed" ? ended : undefined);
  if (error) return <Over error={error} again={again} />;
  if (phase === "joined" || phase === "reconnecting") return joined ? <RoomView /> : <Loading />;
  if (phase === "preview" || (phase === "joining" && !joined && roomName)) return <Preview />;
  return <Loading />;
}

function Loading() {
  return (
    <main class="over" data-testid="loading">
      <Spinner label="Connecting to the room" />
    </main>
  );
}

/** Enters the room: as the peer of before a reload, else through the preview, which a link may ask to skip. */
function useEntry(): AmphiError | undefined {
  const { room, code } = useSession();
  const [failure, setFailure] = useState<AmphiError>();
  useEffect(() => {
    const enter = async (): Promise<void> => {
      const unlocked = await unlockWithKnown(room, code);
      if (await room.resume()) return;
      await room.preview();
      const name = rememberedName();
      const locked = room.state.template?.endToEndEncrypted && !unlocked;
      if (new URLSearchParams(location.search).has("skip_preview") && name && !locked) await room.join({ name });
    };
    enter().catch((thrown: unknown) => setFailure(asAmphiError(thrown)));
  }, [room, code]);
  return failure;
}

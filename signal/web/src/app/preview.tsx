import { useEffect, useState } from "preact/hooks";
import { asAmphiError, mayPublish, ownRole } from "@amphi/sdk";
import type { AmphiError, LocalTrack } from "@amphi/sdk";
import { DeviceSelect, LevelMeter, SelfPicture } from "./device-fields.js";
import { unlockWithPassphrase } from "./encryption.js";
import { Icon, Logo } from "./icons.js";
import { attempt } from "./notices.js";
import { useRoom, useRoomState, useSession } from "./session.js";
import { Avatar, Button, Field, IconButton } from "./ui.js";
import { roleInWords, wordsFor } from "./words.js";

const nameKey = "amphi.name";

export function rememberedName(): string {
  const asked = new URLSearchParams(location.search).get("name");
  if (asked) return asked;
  try {
    return localStorage.getItem(nameKey) ?? "";
  } catch {
    return "";
  }
}

function rememberName(name: string): void {
  try {
    localStorage.setItem(nameKey, name);
  } catch {
    // asked again next time
  }
}

/** Before joining: who one is, and how one looks and sounds. */
export function Preview() {
  const { room, code, embedded } = useSession();
  const role = useRoomState(ownRole);
  const roomName = useRoomState((state) => state.room);
  const total = useRoomState((state) => state.total);
  const joining = useRoomState((state) => state.phase === "joining");
  const live = useRoomState((state) => [...state.streams.values()].some((stream) => stream.phase === "live"));
  const encrypted = useRoomState((state) => state.template?.endToEndEncrypted ?? false);
  const [name, setName] = useState(rememberedName);
  const [passphrase, setPassphrase] = useState("");
  const asksPassphrase = encrypted && (!room.encryption || passphrase !== "");
  const [refusal, setRefusal] = useState<AmphiError>();
  const canSpeak = mayPublish(role, "mic", "audio");
  const canShow = mayPublish(role, "camera", "video");

  useEffect(() => {
    if (canSpeak) void room.local.enable("mic");
    if (canShow) void room.local.enable("camera");
  }, [room, canSpeak, canShow]);

  const join = async (): Promise<void> => {
    setRefusal(undefined);
    rememberName(name.trim());
    try {
      if (asksPassphrase) await unlockWithPassphrase(room, code, passphrase);
      await room.join({ name: name.trim() });
    } catch (thrown) {
      setRefusal(asAmphiError(thrown));
    }
  };

  return (
    <main class={`preview ${canShow || canSpeak ? "" : "without-devices"}`} data-testid="preview">
      {!embedded && (
        <div class="preview-brand">
          <Logo size={28} />
          <span>Amphi</span>
        </div>
      )}
      {(canShow || canSpeak) && <PreviewDevices canShow={canShow} canSpeak={canSpeak} name={name} />}
      <form
        class="preview-form"
        onSubmit={(event) => {
          event.preventDefault();
          void join();
        }}
      >
        <div>
          <p class="eyebrow">
            {live && <span class="live-dot">Live</span>}
            {total > 0 ? `${total} ${total === 1 ? "person is" : "people are"} here` : "You are invited to"}
          </p>
          <h1 data-testid="preview-room">{roomName}</h1>
          {role && (
            <p class="role-line">
              You join as <strong>{role.title}</strong>. {roleInWords(role)}
            </p>
          )}
        </div>
        <Field label="Your name">
          <input
            value={name}
            onInput={(event) => setName(event.currentTarget.value)}
            placeholder="How others see you"
            maxLength={64}
            required
            autocomplete="name"
            autofocus
            data-testid="preview-name"
          />
        </Field>
        {asksPassphrase && (
          <Field label="Passphrase">
            <input
              type="password"
              value={passphrase}
              onInput={(event) => setPassphrase(event.currentTarget.value)}
              placeholder="The one that everybody in this room uses"
              minLength={8}
              maxLength={256}
              required
              autocomplete="off"
              data-testid="preview-passphrase"
            />
          </Field>
        )}
        {(encrypted || room.encryption) && (
          <p class="role-line">
            <Icon name="lock" size={16} /> End-to-end encrypted: the server cannot see or hear what is said here.
          </p>
        )}
        {refusal && (
          <div class="inline-error" role="alert" data-testid="join-error" data-code={refusal.code}>
            <Icon name="warning" />
            <div>
              <strong>{wordsFor(refusal).title}</strong>
              <span>{wordsFor(refusal).text}</span>
            </div>
          </div>
        )}
        <Button kind="primary" type="submit" class="join" disabled={joining || !name.trim()} testid="preview-join">
          {joining ? "Joining…" : "Join"}
        </Button>
      </form>
    </main>
  );
}

function PreviewDevices({ canShow, canSpeak, name }: { canShow: boolean; canSpeak: boolean; name: string }) {
  return (
    <section class="preview-devices" aria-label="Camera and microphone">
      <PreviewPicture canShow={canShow} canSpeak={canSpeak} name={name} />
      <DeviceProblems />
      <div class="device-row">
        {canSpeak && (
          <div class="device-with-meter">
            <DeviceSelect source="mic" />
            <LevelMeter />
          </div>
        )}
        {canShow && <DeviceSelect source="camera" />}
      </div>
    </section>
  );
}

/** The own picture with the two switches on it; also in the dialog of a role change. */
export function PreviewPicture({ canShow, canSpeak, name }: { canShow: boolean; canSpeak: boolean; name: string }) {
  const room = useRoom();
  const camera = useRoomState((state) => state.local.get("camera"));
  const mic = useRoomState((state) => state.local.get("mic"));
  return (
    <div class="preview-picture">
      {camera?.status === "on" ? (
        <SelfPicture />
      ) : (
        <div class="no-picture">
          <Avatar name={name || "?"} id={name} size={88} />
          <span>{camera?.status === "starting" ? "Starting the camera…" : canShow ? "Your camera is off" : ""}</span>
        </div>
      )}
      <div class="picture-switches">
        {canSpeak && (
          <IconButton
            icon={mic?.status === "on" ? "mic" : "micOff"}
            label={mic?.status === "on" ? "Turn the microphone off" : "Turn the microphone on"}
            pressed={mic?.status === "on"}
            class={mic?.status === "on" ? "" : "off"}
            testid="preview-mic"
            onClick={() => attempt(room.local.toggle("mic"), "mic")}
          />
        )}
        {canShow && (
          <IconButton
            icon={camera?.status === "on" ? "camera" : "cameraOff"}
            label={camera?.status === "on" ? "Turn the camera off" : "Turn the camera on"}
            pressed={camera?.status === "on"}
            class={camera?.status === "on" ? "" : "off"}
            testid="preview-camera"
            onClick={() => attempt(room.local.toggle("camera"), "camera")}
          />
        )}
      </div>
    </div>
  );
}

/** Says what is wrong with camera and microphone, once per cause. */
export function DeviceProblems() {
  const room = useRoom();
  const failed = useRoomState((state) =>
    [...state.local.values()].filter((track) => track.status === "failed" && track.error),
  );
  if (failed.length === 0) return null;
  const sameCause = failed.length === 2 && failed[0]!.error!.code === failed[1]!.error!.code;
  const shown = sameCause ? failed.slice(0, 1) : failed;
  const retry = (track: LocalTrack): void => {
    const again = sameCause ? failed : [track];
    for (const { source } of again) void room.local.enable(source as "mic" | "camera");
  };
  return (
    <div class="device-problems">
      {shown.map((track) => {
        const words = wordsFor(track.error!, track.source);
        const title = sameCause ? words.title.replace(/microphone|camera/, "camera and microphone") : words.title;
        return (
          <div key={track.source} class="inline-error" role="alert" data-testid="device-error" data-code={track.error!.code}>
            <Icon name="warning" />
            <div>
              <strong>{title}</strong>
              <span>{words.text} You can join without.</span>
            </div>
            {track.error!.retryable && <Button onClick={() => retry(track)}>Try again</Button>}
          </div>
        );
      })}
    </div>
  );
}

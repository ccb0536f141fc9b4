import { useEffect, useRef, useState } from "preact/hooks";
import { meterLevel } from "@amphi/sdk";
import type { Device, DeviceKind } from "@amphi/sdk";
import { attempt } from "./notices.js";
import { useRoom, useRoomState } from "./session.js";
import { Field } from "./ui.js";

/** The devices of one kind, kept current. */
export function useDevices(kind: DeviceKind): readonly Device[] {
  const room = useRoom();
  // A permission that is granted makes labels known.
  const asked = useRoomState((state) => [state.local.get("mic")?.status, state.local.get("camera")?.status].join());
  const [devices, setDevices] = useState<readonly Device[]>([]);
  useEffect(() => {
    let current = true;
    const load = (): void => {
      void room.local.devices.list().then((all) => {
        if (current) setDevices(all.filter((device) => device.kind === kind && device.id));
      });
    };
    load();
    const end = room.local.devices.onChange(load);
    return () => {
      current = false;
      end();
    };
  }, [room, kind, asked]);
  return devices;
}

/** Chooses the camera or the microphone. */
export function DeviceSelect({ source }: { source: "mic" | "camera" }) {
  const room = useRoom();
  const track = useRoomState((state) => state.local.get(source));
  const devices = useDevices(source === "mic" ? "audioinput" : "videoinput");
  const label = source === "mic" ? "Microphone" : "Camera";
  const chosen = track?.deviceId ?? room.local.chosenDevices[source];
  return (
    <Field label={label}>
      <select
        value={chosen ?? ""}
        disabled={devices.length === 0}
        data-testid={`device-${source}`}
        onChange={(event) => attempt(room.local.choose(source, event.currentTarget.value), source)}
      >
        {devices.length === 0 && <option value="">No {label.toLowerCase()} known yet</option>}
        {devices.length > 0 && !chosen && <option value="">System default</option>}
        {devices.map((device) => (
          <option key={device.id} value={device.id}>
            {device.label}
          </option>
        ))}
      </select>
    </Field>
  );
}

/** Chooses the loudspeaker, where the browser lets pages do so. */
export function LoudspeakerSelect() {
  const room = useRoom();
  const devices = useDevices("audiooutput");
  const [chosen, setChosen] = useState("");
  if (devices.length === 0 || !("setSinkId" in HTMLMediaElement.prototype)) return null;
  return (
    <Field label="Loudspeaker">
      <select
        value={chosen}
        data-testid="device-loudspeaker"
        onChange={(event) => {
          setChosen(event.currentTarget.value);
          attempt(room.setLoudspeaker(event.currentTarget.value));
        }}
      >
        {!chosen && <option value="">System default</option>}
        {devices.map((device) => (
          <option key={device.id} value={device.id}>
            {device.label}
          </option>
        ))}
      </select>
    </Field>
  );
}

/** How loud the microphone is, as a row of lights. */
export function LevelMeter() {
  const media = useRoomState((state) => {
    const mic = state.local.get("mic");
    return mic?.status === "on" ? mic.media : undefined;
  });
  const bar = useRef<HTMLSpanElement>(null);
  useEffect(() => {
    if (!media) return undefined;
    return meterLevel(media, (level) => bar.current?.style.setProperty("--level", String(level)));
  }, [media]);
  return (
    <div class="level-meter" data-testid="level-meter" aria-hidden="true">
      {media && <span ref={bar} />}
    </div>
  );
}

/** The own camera's picture; mirrored, as people know themselves. */
export function SelfPicture({ source = "camera" }: { source?: "camera" | "screen" }) {
  const room = useRoom();
  const video = useRef<HTMLVideoElement>(null);
  useEffect(() => (video.current ? room.attachLocal(video.current, source) : undefined), [room, source]);
  return (
    <video
      ref={video}
      class={source === "camera" ? "mirrored" : "contained"}
      autoplay
      muted
      playsInline
      data-testid="self-video"
      aria-label={source === "camera" ? "Your camera" : "Your screen"}
    />
  );
}

import { useState } from "preact/hooks";
import { mayPublish, ownRole, selfOf } from "@amphi/sdk";
import { DeviceSelect, LevelMeter, LoudspeakerSelect, SelfPicture } from "./device-fields.js";
import { attempt } from "./notices.js";
import { useRoom, useRoomState } from "./session.js";
import { savedTheme, setTheme } from "./theme.js";
import type { Theme } from "./theme.js";
import { Button, Dialog, Field } from "./ui.js";

export function SettingsDialog({ close }: { close: () => void }) {
  const role = useRoomState(ownRole);
  const cameraOn = useRoomState((state) => state.local.get("camera")?.status === "on");
  const canSpeak = mayPublish(role, "mic", "audio");
  const canShow = mayPublish(role, "camera", "video");
  return (
    <Dialog title="Devices and settings" onClose={close} testid="settings-dialog">
      <div class="settings">
        {canShow && cameraOn && (
          <div class="preview-picture small">
            <SelfPicture />
          </div>
        )}
        {canShow && <DeviceSelect source="camera" />}
        {canSpeak && (
          <div class="device-with-meter">
            <DeviceSelect source="mic" />
            <LevelMeter />
          </div>
        )}
        <LoudspeakerSelect />
        <NameField />
        <ThemeField />
      </div>
    </Dialog>
  );
}

function NameField() {
  const room = useRoom();
  const name = useRoomState((state) => selfOf(state)?.name ?? "");
  const [edited, setEdited] = useState(name);
  const changed = edited.trim() !== "" && edited.trim() !== name;
  return (
    <Field label="Your name">
      <form
        class="with-button"
        onSubmit={(event) => {
          event.preventDefault();
          if (changed) attempt(room.peers.update({ name: edited.trim() }));
        }}
      >
        <input value={edited} maxLength={64} onInput={(event) => setEdited(event.currentTarget.value)} data-testid="settings-name" />
        <Button type="submit" disabled={!changed}>
          Change
        </Button>
      </form>
    </Field>
  );
}

const themes: readonly { value: Theme; name: string }[] = [
  { value: "system", name: "Like the system" },
  { value: "light", name: "Light" },
  { value: "dark", name: "Dark" },
];

function ThemeField() {
  const [theme, choose] = useState<Theme>(savedTheme);
  return (
    <fieldset class="segments">
      <legend>Appearance</legend>
      {themes.map(({ value, name }) => (
        <label key={value} class={theme === value ? "chosen" : ""}>
          <input
            type="radio"
            name="theme"
            checked={theme === value}
            data-testid={`theme-${value}`}
            onChange={() => {
              choose(value);
              setTheme(value);
            }}
          />
          {name}
        </label>
      ))}
    </fieldset>
  );
}

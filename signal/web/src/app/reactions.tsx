import { useRef, useState } from "preact/hooks";
import { Icon } from "./icons.js";
import { attempt } from "./notices.js";
import { useRoom, useRoomEvent } from "./session.js";
import { useDismiss, usePlacement } from "./ui.js";

const emojis = ["👍", "❤️", "👏", "😂", "😮", "🎉", "🙏", "🤔"];
const floatMs = 3_800;
const maxFloating = 40;

export function ReactionPicker() {
  const room = useRoom();
  const [open, setOpen] = useState(false);
  const root = useRef<HTMLDivElement>(null);
  useDismiss(root, open, () => setOpen(false));
  usePlacement(root, open, "center");
  return (
    <div class="menu" ref={root}>
      <button
        type="button"
        class="icon-button"
        aria-label="React"
        title="React"
        aria-expanded={open}
        data-testid="control-react"
        onClick={() => setOpen(!open)}
      >
        <Icon name="smile" />
      </button>
      {open && (
        <div class="popover emojis" role="group" aria-label="Reactions">
          {emojis.map((emoji) => (
            <button
              key={emoji}
              type="button"
              aria-label={`React with ${emoji}`}
              data-testid={`react-${emoji}`}
              onClick={() => attempt(room.chat.react(emoji))}
            >
              {emoji}
            </button>
          ))}
        </div>
      )}
    </div>
  );
}

interface Floating {
  readonly id: number;
  readonly emoji: string;
  readonly name: string;
  readonly left: number;
}

/** Reactions rising over the stage. */
export function FloatingReactions() {
  const [floating, setFloating] = useState<readonly Floating[]>([]);
  const room = useRoom();
  useRoomEvent("message", (message) => {
    if (message.type !== "reaction" || [...message.text].length > 8) return;
    const name = message.sender === room.state.selfId ? "You" : message.senderName;
    const one = { id: message.id, emoji: message.text, name, left: 6 + ((message.id * 37) % 70) };
    setFloating((now) => [...now, one].slice(-maxFloating));
    setTimeout(() => setFloating((now) => now.filter((f) => f.id !== one.id)), floatMs);
  });
  return (
    <div class="floating" aria-hidden="true">
      {floating.map((f) => (
        <span key={f.id} style={{ left: `${f.left}%` }} data-testid="reaction" data-emoji={f.emoji}>
          <b>{f.emoji}</b>
          <small>{f.name}</small>
        </span>
      ))}
    </div>
  );
}

import { useEffect, useRef } from "preact/hooks";
import { Dialog } from "./ui.js";

export interface Shortcut {
  readonly key: string;
  readonly what: string;
  act(): void;
}

/** Single keys, while nobody types and no dialog is open. */
export function useShortcuts(shortcuts: readonly Shortcut[]): void {
  const newest = useRef(shortcuts);
  newest.current = shortcuts;
  useEffect(() => {
    const press = (event: KeyboardEvent): void => {
      if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || typing(event.target)) return;
      if (document.querySelector("dialog[open]")) return;
      const found = newest.current.find((shortcut) => shortcut.key === event.key.toLowerCase());
      if (!found) return;
      event.preventDefault();
      found.act();
    };
    document.addEventListener("keydown", press);
    return () => document.removeEventListener("keydown", press);
  }, []);
}

export function ShortcutsDialog({ shortcuts, close }: { shortcuts: readonly Shortcut[]; close: () => void }) {
  return (
    <Dialog title="Keyboard shortcuts" onClose={close} testid="shortcuts-dialog">
      <dl class="shortcuts">
        {shortcuts.map((shortcut) => (
          <div key={shortcut.key}>
            <dt>
              <kbd>{shortcut.key === "escape" ? "Esc" : shortcut.key.toUpperCase()}</kbd>
            </dt>
            <dd>{shortcut.what}</dd>
          </div>
        ))}
      </dl>
    </Dialog>
  );
}

function typing(target: EventTarget | null): boolean {
  return target instanceof HTMLElement && (target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName));
}

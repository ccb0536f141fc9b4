import type { AmphiError } from "@amphi/sdk";
import { Logo } from "./icons.js";
import { useSession } from "./session.js";
import { Button } from "./ui.js";
import { wordsFor } from "./words.js";

// After these there is nothing to come back to.
const final: ReadonlySet<string> = new Set(["code_unknown", "code_disabled", "banned", "unauthenticated", "not_found"]);

// One was in the room before.
const inRoom: ReadonlySet<string> = new Set(["left", "replaced", "removed", "room_ended"]);

/** The end: left, removed, ended, or why one could not come in. */
export function Over({ error, again }: { error: AmphiError; again: () => void }) {
  const { embedded } = useSession();
  const words = wordsFor(error);
  return (
    <main class="over" data-testid="over" data-code={error.code}>
      {!embedded && <Logo size={44} />}
      <h1>{words.title}</h1>
      <p>{words.text}</p>
      {!final.has(error.code) && (
        <Button kind="primary" testid="over-again" onClick={again}>
          {inRoom.has(error.code) ? "Join again" : "Try again"}
        </Button>
      )}
    </main>
  );
}

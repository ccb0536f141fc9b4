import { useEffect, useState } from "preact/hooks";
import { asAmphiError } from "@amphi/sdk";
import type { Source } from "@amphi/sdk";
import { Icon } from "./icons.js";
import { Button, IconButton } from "./ui.js";
import { wordsFor } from "./words.js";

export interface Notice {
  readonly id: number;
  readonly tone: "info" | "warning";
  readonly title: string;
  readonly text?: string;
  /** Names what it is about, so that it can be taken back when that is over. */
  readonly about?: string;
  readonly action?: { label: string; testid?: string; act(): void };
}

type Listener = (notices: readonly Notice[]) => void;

const shownMs = 6_000;
const shownWithActionMs = 15_000;
const maxShown = 4;

/** Short messages that come and go by themselves. */
class NoticeBoard {
  private notices: readonly Notice[] = [];
  private listener: Listener | undefined;
  private nextId = 1;

  listen(listener: Listener): () => void {
    this.listener = listener;
    return () => (this.listener = undefined);
  }

  post(notice: Omit<Notice, "id">): void {
    const id = this.nextId++;
    const others = this.notices.filter((n) => n.title !== notice.title);
    this.set([...others, { ...notice, id }].slice(-maxShown));
    setTimeout(() => this.remove(id), notice.action ? shownWithActionMs : shownMs);
  }

  remove(id: number): void {
    this.set(this.notices.filter((notice) => notice.id !== id));
  }

  removeAbout(about: string): void {
    this.set(this.notices.filter((notice) => notice.about !== about));
  }

  private set(notices: readonly Notice[]): void {
    this.notices = notices;
    this.listener?.(notices);
  }
}

const board = new NoticeBoard();

export function tell(title: string, text?: string, more: Pick<Notice, "action" | "about"> = {}): void {
  board.post({ tone: "info", title, ...(text ? { text } : {}), ...more });
}

/** Takes back the notices about something that is over. */
export function untell(about: string): void {
  board.removeAbout(about);
}

export function warn(thrown: unknown, source?: Source): void {
  const error = asAmphiError(thrown);
  if (error.code === "capture_cancelled") return;
  board.post({ tone: "warning", ...wordsFor(error, source) });
}

/** Runs something that may be refused, and says so when it is. */
export function attempt(work: Promise<unknown>, source?: Source): void {
  work.catch((thrown: unknown) => warn(thrown, source));
}

export function Notices() {
  const [notices, setNotices] = useState<readonly Notice[]>([]);
  useEffect(() => board.listen(setNotices), []);
  return (
    <div class="notices" role="status" aria-live="polite" data-testid="notices">
      {notices.map((notice) => (
        <div key={notice.id} class={`notice ${notice.tone}`} data-testid="notice">
          <Icon name={notice.tone === "warning" ? "warning" : "info"} />
          <div class="notice-words">
            <strong>{notice.title}</strong>
            {notice.text && <span>{notice.text}</span>}
          </div>
          {notice.action && (
            <Button
              kind="primary"
              testid={notice.action.testid ?? "notice-action"}
              onClick={() => {
                board.remove(notice.id);
                notice.action!.act();
              }}
            >
              {notice.action.label}
            </Button>
          )}
          <IconButton icon="close" label="Dismiss" onClick={() => board.remove(notice.id)} />
        </div>
      ))}
    </div>
  );
}

/** Timed metadata of a stream: something that belongs to a moment of the picture. */
export interface StreamCue {
  readonly id: string;
  /** What kind of thing it is: the CLASS of its date range. */
  readonly type: string;
  /** Moment of the program that it belongs to, in milliseconds since 1970. */
  readonly startMs: number;
  /** How long it lasts, where that is known. */
  readonly durationMs?: number;
  /** Its own attributes, by the names that they have in the playlist without "X-", in lower case. */
  readonly data: Readonly<Record<string, string>>;
}

const maxCues = 1_000;
// A cue that becomes known this much after its moment is still given; older ones were not for this viewer.
const lateMs = 3_000;
// The picture moves on by less than this between two looks; more, or backwards, is a seek.
const jumpMs = 1_500;

/** Gives each cue once, when the picture reaches it, and again after the viewer went back. Pure: positions are the program's time. */
export class CueSchedule {
  private cues: StreamCue[] = []; // by time
  private readonly ids = new Set<string>();
  private given = new Set<string>();
  private positionMs: number | undefined;

  /** Takes a cue that the playlist lists; one that is known already is ignored. */
  add(cue: StreamCue): void {
    if (this.ids.has(cue.id) || !Number.isFinite(cue.startMs)) return;
    this.ids.add(cue.id);
    const at = this.cues.findIndex((c) => c.startMs > cue.startMs);
    this.cues.splice(at < 0 ? this.cues.length : at, 0, cue);
    if (this.cues.length > maxCues) this.forget(this.cues.shift()!);
  }

  /** The picture is at this moment of the program: returns what has become due. */
  reach(positionMs: number): readonly StreamCue[] {
    const before = this.positionMs;
    this.positionMs = positionMs;
    const jumped = before === undefined || positionMs < before - 1 || positionMs > before + jumpMs;
    if (jumped) this.given = new Set(this.cues.filter((c) => c.startMs < positionMs).map((c) => c.id));
    const due = this.cues.filter((c) => c.startMs <= positionMs && c.startMs > positionMs - lateMs && !this.given.has(c.id));
    for (const cue of due) this.given.add(cue.id);
    return due;
  }

  /** When the next cue is due; undefined if none is known. */
  get nextMs(): number | undefined {
    const { positionMs } = this;
    if (positionMs === undefined) return undefined;
    return this.cues.find((c) => c.startMs > positionMs)?.startMs;
  }

  private forget(cue: StreamCue): void {
    this.ids.delete(cue.id);
    this.given.delete(cue.id);
  }
}

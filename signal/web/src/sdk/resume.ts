import type { Platform } from "./platform.js";

/** What a reloaded page needs to be the same peer again. */
export interface SavedPeer {
  readonly resumeToken: string;
  readonly peerId: string;
  /** When the server was last heard. */
  readonly atMs: number;
  /** Of the newest RTCPeerConnection. */
  readonly generation: number;
  /** The last event seen. A page that kept nothing else asks for the whole state instead. */
  readonly lastSeq: number;
  /** Own sources that were captured and not muted. */
  readonly enabled: readonly string[];
  readonly devices: Readonly<Record<string, string>>;
}

/** Keeps a SavedPeer in sessionStorage. */
export class ResumeShelf {
  private readonly key: string;

  constructor(
    private readonly platform: Platform,
    name: string,
  ) {
    this.key = "amphi.resume." + name;
  }

  /** The saved peer, if its place is still held and no other tab is using it. */
  async take(windowMs: number): Promise<SavedPeer | undefined> {
    const saved = this.read();
    if (!saved || this.platform.now() - saved.atMs > windowMs) return undefined;
    return (await this.platform.claim("amphi." + saved.peerId)) ? saved : undefined;
  }

  /** Of the newest RTCPeerConnection that this tab had in the room. */
  get generation(): number {
    return this.read()?.generation ?? 0;
  }

  put(change: Partial<SavedPeer>): void {
    const before = this.read();
    const nothing = { resumeToken: "", peerId: "", atMs: 0, generation: 0, lastSeq: 0, enabled: [], devices: {} };
    try {
      this.platform.storage()?.setItem(this.key, JSON.stringify({ ...nothing, ...before, ...change }));
    } catch {
      // full or refused: a reload then joins as a new peer
    }
  }

  clear(): void {
    this.platform.storage()?.removeItem(this.key);
  }

  private read(): SavedPeer | undefined {
    try {
      const text = this.platform.storage()?.getItem(this.key);
      const saved = text ? (JSON.parse(text) as SavedPeer) : undefined;
      return saved?.resumeToken ? saved : undefined;
    } catch {
      return undefined;
    }
  }
}

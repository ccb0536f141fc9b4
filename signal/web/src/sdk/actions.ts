// What a peer may ask of the room, by subject. Every method throws an AmphiError when it is refused.
import type { MessageInitShape } from "@bufbuild/protobuf";
import { ControlOutput_Action as OutputAction } from "../gen/amphi/v1/output_pb.js";
import type { ControlOutputSchema } from "../gen/amphi/v1/output_pb.js";
import { ControlStream_Action as StreamAction } from "../gen/amphi/v1/room_pb.js";
import type { Result } from "../gen/amphi/v1/room_pb.js";
import type { CommandBody } from "./client.js";
import { layoutOptionsToWire, layoutToWire, outputKindToWire, outputOf, peerOf } from "./convert.js";
import type { LayoutKind, LayoutOptions, Output, OutputKind, Peer, Source } from "./model.js";

/** Sends a command to the room's owner and answers its result. */
export type Ask = (body: CommandBody) => Promise<Result["body"]>;

export interface SendOptions {
  /** `chat` by default; `reaction`, or an application's own. */
  readonly type?: string;
  /** Names of roles and ids of peers; neither is everybody. */
  readonly roles?: readonly string[];
  readonly peers?: readonly string[];
}

export class Chat {
  constructor(private readonly ask: Ask) {}

  /** Sends a message; answers its id. At most 4096 bytes. */
  async send(text: string, options: SendOptions = {}): Promise<number> {
    const to = { roles: [...(options.roles ?? [])], peers: [...(options.peers ?? [])] };
    const addressed = to.roles.length + to.peers.length > 0;
    const value = { text, type: options.type ?? "chat", to: addressed ? to : undefined };
    const result = await this.ask({ case: "send", value });
    return result.case === "send" ? Number(result.value.id) : 0;
  }

  react(emoji: string): Promise<number> {
    return this.send(emoji, { type: "reaction" });
  }

  async pin(messageId: number): Promise<void> {
    await this.ask({ case: "moderate", value: { action: { case: "pin", value: BigInt(messageId) } } });
  }

  async unpin(messageId: number): Promise<void> {
    await this.ask({ case: "moderate", value: { action: { case: "unpin", value: BigInt(messageId) } } });
  }

  /** Removes a message for everybody. */
  async hide(messageId: number): Promise<void> {
    await this.ask({ case: "moderate", value: { action: { case: "hide", value: BigInt(messageId) } } });
  }

  /** Refuses or allows a peer's messages. */
  async block(peerId: string, blocked: boolean): Promise<void> {
    const kind = blocked ? "blockPeer" : "unblockPeer";
    await this.ask({ case: "moderate", value: { action: { case: kind, value: peerId } } });
  }

  /** Pauses chat for everybody without the permission to moderate it. */
  async pause(paused: boolean): Promise<void> {
    await this.ask({ case: "moderate", value: { action: { case: "pause", value: paused } } });
  }
}

export interface PeerPage {
  readonly peers: readonly Peer[];
  /** Pass as `after` for the next page; empty at the end. */
  readonly next: string;
  readonly total: number;
}

export class Peers {
  constructor(private readonly ask: Ask) {}

  /** A page of everybody in the room, those included that the state does not hold. */
  async list(
    query: { search?: string; roles?: readonly string[]; limit?: number; after?: string } = {},
  ): Promise<PeerPage> {
    const value = { ...query, roles: [...(query.roles ?? [])] };
    const result = await this.ask({ case: "listPeers", value });
    if (result.case !== "listPeers") return { peers: [], next: "", total: 0 };
    const { peers, next, total } = result.value;
    return { peers: peers.map(peerOf), next, total };
  }

  /** Mutes others at once. */
  async mute(
    whom: { peers?: readonly string[]; roles?: readonly string[]; sources?: readonly Source[] },
  ): Promise<void> {
    await this.ask({ case: "mutePeers", value: { ...lists(whom), muted: true } });
  }

  /** Asks others to unmute, which they may decline. */
  async askUnmute(
    whom: { peers?: readonly string[]; roles?: readonly string[]; sources?: readonly Source[] },
  ): Promise<void> {
    await this.ask({ case: "mutePeers", value: { ...lists(whom), muted: false } });
  }

  /** Removes peers; `ban` refuses their user ids for the rest of the session. */
  async remove(peers: readonly string[], options: { reason?: string; ban?: boolean } = {}): Promise<void> {
    await this.ask({ case: "removePeers", value: { peers: [...peers], ...options } });
  }

  /** Raises or lowers a hand: one's own, or with another's id lowers that. */
  async raiseHand(raised: boolean, peerId = ""): Promise<void> {
    await this.ask({ case: "raiseHand", value: { raised, peerId } });
  }

  /** Changes this peer's own name or metadata. */
  async update(change: { name?: string; metadata?: string }): Promise<void> {
    await this.ask({ case: "updatePeer", value: change });
  }
}

export interface RoleChange {
  /** Set when the peer was asked and has not answered. */
  readonly requestId: string;
  readonly changed: readonly string[];
  /** Codes by peer id. */
  readonly failed: Readonly<Record<string, string>>;
}

export class Roles {
  constructor(private readonly ask: Ask) {}

  /** Asks one peer to take a role, or with `force` moves it at once. */
  change(peerId: string, role: string, options: { force?: boolean } = {}): Promise<RoleChange> {
    return this.send({ peers: [peerId], role, force: options.force ?? false });
  }

  /** Moves several peers, or everybody of some roles, at once. */
  changeMany(whom: { peers?: readonly string[]; fromRoles?: readonly string[] }, role: string): Promise<RoleChange> {
    return this.send({ peers: [...(whom.peers ?? [])], fromRoles: [...(whom.fromRoles ?? [])], role, force: true });
  }

  /** Answers a request that this peer was sent. */
  async answer(requestId: string, accept: boolean): Promise<void> {
    await this.ask({ case: "answerRoleChange", value: { requestId, accept } });
  }

  private async send(value: {
    peers: string[];
    fromRoles?: string[];
    role: string;
    force: boolean;
  }): Promise<RoleChange> {
    const result = await this.ask({ case: "changeRole", value });
    if (result.case !== "changeRole") return { requestId: "", changed: [], failed: {} };
    const { requestId, changed, failed } = result.value;
    return { requestId, changed, failed };
  }
}

export interface CueOptions {
  /** `main` by default. */
  readonly stream?: string;
  /** When it happens, in Unix milliseconds; now by default. */
  readonly timeMs?: number;
  readonly durationMs?: number;
  /** Unique in the stream; made by the server by default. */
  readonly id?: string;
}

export interface Caption {
  /** When the words were said, in Unix milliseconds. */
  readonly startMs: number;
  readonly endMs: number;
  readonly text: string;
}

export class Streams {
  constructor(private readonly ask: Ask) {}

  /** Starts a stream. The room's streams in the state tell how it goes. */
  start(name = "main", layout: LayoutKind = "auto"): Promise<void> {
    return this.control(name, StreamAction.START, layout);
  }

  stop(name = "main"): Promise<void> {
    return this.control(name, StreamAction.STOP, "auto");
  }

  /** Rearranges a stream while it runs. Options replace those before as a whole; without any they stay. */
  setLayout(layout: LayoutKind, name = "main", options?: LayoutOptions): Promise<void> {
    return this.control(name, StreamAction.LAYOUT, layout, options);
  }

  /**
   * Puts something that happens into a stream, now or at another time in Unix milliseconds. Players get it with the picture of
   * that moment. Answers its id and time.
   */
  async sendMetadata(type: string, text: string, options: CueOptions = {}): Promise<{ id: string; timeMs: number }> {
    const metadata = {
      type,
      text,
      id: options.id ?? "",
      timeMs: BigInt(Math.round(options.timeMs ?? 0)),
      durationMs: Math.round(options.durationMs ?? 0),
    };
    const result = await this.ask({
      case: "streamCue",
      value: { stream: options.stream ?? "", body: { case: "metadata", value: metadata } },
    });
    const cue = result.case === "streamCue" ? result.value.cue?.body : undefined;
    return cue?.case === "metadata"
      ? { id: cue.value.id, timeMs: Number(cue.value.timeMs) }
      : { id: metadata.id, timeMs: Number(metadata.timeMs) };
  }

  /** Puts captions under the picture of a stream; the language is one of the stream's, or its first. */
  async addCaptions(captions: readonly Caption[], language = "", stream = ""): Promise<void> {
    const list = captions.map((c) => ({
      startMs: BigInt(Math.round(c.startMs)),
      endMs: BigInt(Math.round(c.endMs)),
      text: c.text,
    }));
    await this.ask({
      case: "streamCue",
      value: { stream, body: { case: "captions", value: { language, captions: list } } },
    });
  }

  private async control(name: string, action: StreamAction, layout: LayoutKind, options?: LayoutOptions): Promise<void> {
    const layoutOptions = options && layoutOptionsToWire(options);
    await this.ask({
      case: "controlStream",
      value: { name, action, layout: layoutToWire(layout), ...(layoutOptions && { layoutOptions }) },
    });
  }
}

export interface OutputOptions {
  /** `main` by default. An output of a stream that does not run starts it. */
  readonly stream?: string;
  /** Name of one of the stream's variants. */
  readonly variant?: string;
}

export interface TrackOptions {
  /** Absent or empty: all. */
  readonly roles?: readonly string[];
  readonly peers?: readonly string[];
  readonly sources?: readonly Source[];
}

class Outputs {
  constructor(
    private readonly ask: Ask,
    private readonly kind: OutputKind,
  ) {}

  protected async start(value: MessageInitShape<typeof ControlOutputSchema>, kind = this.kind): Promise<Output> {
    const started = await this.control({ ...value, kind: outputKindToWire(kind), action: OutputAction.START });
    return started[0] as Output;
  }

  protected change(action: OutputAction, id: string): Promise<Output[]> {
    return this.control({ action, id, kind: outputKindToWire(this.kind) });
  }

  private async control(value: MessageInitShape<typeof ControlOutputSchema>): Promise<Output[]> {
    const result = await this.ask({ case: "controlOutput", value });
    return result.case === "controlOutput" ? result.value.outputs.map(outputOf) : [];
  }
}

/** Recordings of streams and tracks. Without an id a change is about all that run. */
export class Recordings extends Outputs {
  constructor(ask: Ask) {
    super(ask, "recording");
  }

  /** Records a stream, all its variants by default. One that is recorded already is answered as it is. */
  record(options: OutputOptions = {}): Promise<Output> {
    return this.start(options);
  }

  /** Records what people publish, a file for each track. */
  recordTracks(tracks: TrackOptions = {}): Promise<Output> {
    return this.start({ tracks: lists(tracks) }, "tracks");
  }

  /** Starts what the template provides for under a name. */
  startDestination(destination: string): Promise<Output> {
    return this.start({ destination });
  }

  stop(id = ""): Promise<Output[]> {
    return this.change(OutputAction.STOP, id);
  }

  pause(id = ""): Promise<Output[]> {
    return this.change(OutputAction.PAUSE, id);
  }

  resume(id = ""): Promise<Output[]> {
    return this.change(OutputAction.RESUME, id);
  }
}

/** Pushes of streams to other servers, each on its own. */
export class Pushes extends Outputs {
  constructor(ask: Ask) {
    super(ask, "push");
  }

  /** Pushes to `rtmp://`, `rtmps://` or `srt://`. The URL's secrets are told to nobody afterwards. */
  add(url: string, options: OutputOptions = {}): Promise<Output> {
    return this.start({ ...options, url });
  }

  /** Starts what the template provides for under a name. */
  startDestination(destination: string): Promise<Output> {
    return this.start({ destination });
  }

  /** Ends one, or all. */
  remove(id = ""): Promise<Output[]> {
    return this.change(OutputAction.STOP, id);
  }

  /** Tries one at once that waits, or has failed. */
  retry(id: string): Promise<Output[]> {
    return this.change(OutputAction.RETRY, id);
  }
}

export class SessionStore {
  constructor(private readonly ask: Ask) {}

  /**
   * Writes a JSON value; answers its revision. With `ifRevision` only when the entry has that revision now, 0 for
   * "not there": else it is refused with `conflict`.
   */
  async set(key: string, value: unknown, options: { ifRevision?: number; durable?: boolean } = {}): Promise<number> {
    return this.write(key, JSON.stringify(value), options);
  }

  async delete(key: string, options: { ifRevision?: number } = {}): Promise<void> {
    await this.write(key, undefined, options);
  }

  private async write(
    key: string,
    value: string | undefined,
    options: { ifRevision?: number; durable?: boolean },
  ): Promise<number> {
    const ifRevision = options.ifRevision === undefined ? undefined : BigInt(options.ifRevision);
    const set = { key, value, ifRevision, durable: options.durable ?? false };
    const result = await this.ask({ case: "setStore", value: set });
    return result.case === "store" ? Number(result.value.revision) : 0;
  }
}

function lists(whom: { peers?: readonly string[]; roles?: readonly string[]; sources?: readonly Source[] }): {
  peers: string[];
  roles: string[];
  sources: string[];
} {
  return { peers: [...(whom.peers ?? [])], roles: [...(whom.roles ?? [])], sources: [...(whom.sources ?? [])] };
}

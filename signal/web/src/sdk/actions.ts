// What a peer may ask of the room, by subject. Every method throws an AmphiError when it is refused.
import { ControlStream_Action as StreamAction } from "../gen/amphi/v1/room_pb.js";
import type { Result } from "../gen/amphi/v1/room_pb.js";
import type { CommandBody } from "./client.js";
import { layoutToWire, peerOf } from "./convert.js";
import type { LayoutKind, Peer, Source } from "./model.js";

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

export class Streams {
  constructor(private readonly ask: Ask) {}

  /** Starts a stream. The room's streams in the state tell how it goes. */
  start(name = "main", layout: LayoutKind = "auto"): Promise<void> {
    return this.control(name, StreamAction.START, layout);
  }

  stop(name = "main"): Promise<void> {
    return this.control(name, StreamAction.STOP, "auto");
  }

  setLayout(layout: LayoutKind, name = "main"): Promise<void> {
    return this.control(name, StreamAction.LAYOUT, layout);
  }

  private async control(name: string, action: StreamAction, layout: LayoutKind): Promise<void> {
    await this.ask({ case: "controlStream", value: { name, action, layout: layoutToWire(layout) } });
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

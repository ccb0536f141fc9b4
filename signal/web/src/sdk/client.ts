import type { MessageInitShape } from "@bufbuild/protobuf";
import type { CommandSchema, Result } from "../gen/amphi/v1/room_pb.js";
import type { Joined, NegotiateSchema, SetSubscriptionsSchema, Welcome } from "../gen/amphi/v1/signal_pb.js";
import { AmphiError, asAmphiError } from "./errors.js";
import type { Platform } from "./platform.js";
import { Socket } from "./socket.js";
import type { ClientBody, ServerBody } from "./socket.js";

export type CommandBody = NonNullable<MessageInitShape<typeof CommandSchema>["body"]>;

export interface ClientObserver {
  /** What hello was answered with: in the preview, before a join without one, and before joining anew. */
  welcomed(welcome: Welcome): void;
  /** A first join, a resume or a join anew. Comes before the events that follow it. */
  joined(joined: Joined): void;
  /** Events in order, each once, and everything unnumbered. */
  message(body: ServerBody): void;
  reconnecting(error: AmphiError): void;
  reconnected(resumed: boolean): void;
  /** Another node serves the peer from now on; nothing was missed, but media has to be negotiated there. */
  moved(): void;
  /** Final. */
  ended(error: AmphiError): void;
}

export interface ClientConfig {
  /** Of the WebSocket. */
  readonly url: string;
  readonly platform: Platform;
  readonly observer: ClientObserver;
  /** An app token, fetched anew whenever one is needed. */
  token(): Promise<string>;
  readonly region?: string | undefined;
}

const clientName = "amphi-web/1";
// Pauses between attempts to come back; the last one repeats. Each varies by a fifth, so that not all come at once.
const pausesMs = [0, 300, 700, 1_500, 3_000, 5_000];
// Less than the burst that a server takes from a client: all of it is sent at once when the connection is back.
const maxQueued = 100;
// How long one of several nodes has to answer before the next one is tried.
const nodePatienceMs = 1_500;

interface Queued {
  readonly body: ClientBody;
  resolve(answer: ServerBody): void;
  reject(error: AmphiError): void;
}

/** The resumable signalling connection of one peer: joins, loses its socket, comes back, knows what it has seen. */
export class Client {
  resumeToken = "";
  lastSeq = 0;

  private socket: Socket | undefined;
  private newest: Socket | undefined; // the last that was made; it may not serve yet
  private joinWith: { name: string; metadata: string } | undefined;
  private state: "new" | "open" | "joined" | "reconnecting" | "ended" = "new";
  private readonly queue: Queued[] = [];
  private moving = false;
  private lostMeanwhile: AmphiError | undefined;
  private url: string;
  // Nodes to come back to when that one does not answer, the best first.
  private backups: readonly string[] = [];
  private resumeWindowMs = 60_000;
  private joinedMs = 0;
  private wakeUp: (() => void) | undefined;
  private readonly endNetworkWatch: () => void;

  constructor(private readonly config: ClientConfig) {
    this.url = config.url;
    this.endNetworkWatch = config.platform.onNetworkChange((back) => {
      this.wakeUp?.();
      // What was gone has come back with another address, mostly.
      if (back && this.state === "joined") this.socket?.giveUp();
      else this.probe();
    });
  }

  /** Doubts the connection: it has to show soon that it lives, or is replaced. */
  probe(): void {
    this.socket?.probe();
  }

  /** Replaces a connection that began longer ago, as its relay credentials or playback tokens may end. False when it need not be. */
  renew(olderThanMs: number): boolean {
    if (this.state !== "joined" || this.config.platform.now() - this.joinedMs < olderThanMs) return false;
    this.socket?.giveUp();
    return true;
  }

  get clockOffsetMs(): number {
    return this.socket?.clockOffsetMs ?? 0;
  }

  get rttMs(): number {
    return this.socket?.rttMs ?? 0;
  }

  /** Connects and learns about the room, without joining. */
  async hello(): Promise<void> {
    const socket = await this.reach((socket, sentOn) => this.greet(socket, sentOn));
    if (this.state === "ended") throw notConnected();
    this.socket = socket;
    this.state = "open";
  }

  async join(name: string, metadata: string): Promise<Joined> {
    this.joinWith = { name, metadata };
    if (this.state !== "open" || !this.socket) await this.hello();
    return this.sendJoin(this.socket!);
  }

  /** Comes back as the peer of a resume token, for a page that was reloaded. */
  async resume(resumeToken: string): Promise<Joined> {
    this.resumeToken = resumeToken;
    let joined: Joined | undefined;
    await this.reach(async (socket, sentOn) => (joined = await this.sendResume(socket, sentOn)));
    return joined!;
  }

  /** What to join with when the place is gone and the peer has to join anew. */
  rejoinAs(name: string, metadata: string): void {
    this.joinWith = { name, metadata };
  }

  /** Asks the room's owner. Waits through a reconnection; what was on the way when a connection broke is refused. */
  async command(body: CommandBody): Promise<Result["body"]> {
    const answer = await this.request({ case: "command", value: { body } });
    if (answer.case !== "answer" || answer.value.body.case !== "result") return { case: undefined };
    const result = answer.value.body.value.body;
    if (result.case === "error") {
      const { code, message, retryable, details } = result.value;
      throw new AmphiError(code, message, retryable, details);
    }
    return result;
  }

  async negotiate(offer: MessageInitShape<typeof NegotiateSchema>): Promise<string> {
    if (this.state !== "joined" || !this.socket) throw notConnected();
    const answer = await this.socket.request({ case: "negotiate", value: offer });
    if (answer.case !== "answer" || answer.value.body.case !== "negotiated") throw notConnected();
    return answer.value.body.value.sdp;
  }

  /** Nothing while there is no connection: whoever subscribes does so again after a reconnection. */
  setSubscriptions(wanted: MessageInitShape<typeof SetSubscriptionsSchema>): void {
    if (this.state === "joined") this.socket?.notify({ case: "setSubscriptions", value: wanted });
  }

  /** Says goodbye and closes. */
  async leave(): Promise<void> {
    const leaving = this.state === "joined" ? this.socket : undefined;
    const said = leaving?.request({ case: "command", value: { body: { case: "leave", value: {} } } });
    this.state = "ended";
    await Promise.race([said?.catch(() => undefined), new Promise((resolve) => setTimeout(resolve, 1_000))]);
    this.close();
  }

  /** Ends without a word to the server. */
  close(): void {
    this.state = "ended";
    this.endNetworkWatch();
    this.wakeUp?.();
    this.socket?.close();
    this.newest?.close(); // nobody comes in, or back, after this
    for (const queued of this.queue.splice(0)) queued.reject(notConnected());
  }

  private request(body: ClientBody): Promise<ServerBody> {
    if ((this.state === "reconnecting" || this.moving) && this.queue.length < maxQueued) {
      return new Promise((resolve, reject) => this.queue.push({ body, resolve, reject }));
    }
    if (this.state !== "joined" || !this.socket) return Promise.reject(notConnected());
    return this.socket.request(body);
  }

  private connect(patienceMs?: number): Socket {
    const socket: Socket = new Socket(this.url, this.config.platform, {
      message: (body) => this.receive(body, socket),
      closed: (error, resumable) => {
        if (this.socket === socket) this.lost(error, resumable);
      },
    }, patienceMs);
    this.newest = socket;
    return socket;
  }

  /** Connects and has `greet` say the first words, at another node where the first one sends it there. */
  private async reach(greet: (socket: Socket, sentOn: boolean) => Promise<unknown>, patienceMs?: number): Promise<Socket> {
    for (let sentOn = false; ; sentOn = true) {
      if (this.state === "ended") throw notConnected();
      const socket = this.connect(patienceMs);
      try {
        await greet(socket, sentOn);
        return socket;
      } catch (thrown) {
        socket.close();
        const { code, details } = asAmphiError(thrown);
        if (code !== "redirected" || sentOn || !details["url"]) throw thrown;
        this.url = signalUrl(details["url"]);
      }
    }
  }

  private async greet(socket: Socket, sentOn: boolean): Promise<void> {
    const [token] = await Promise.all([this.config.token(), socket.opened]);
    const welcome = await socket.request({ case: "hello", value: { token, client: clientName, redirected: sentOn, region: this.config.region ?? "" } });
    if (welcome.case !== "welcome") throw new AmphiError("invalid_message", "the server sent no welcome");
    const server = welcome.value.server;
    socket.startHeartbeat(server?.pingIntervalMs || 5_000, server?.pingTimeoutMs || 15_000, () => this.lastSeq);
    this.config.observer.welcomed(welcome.value);
  }

  private async sendJoin(socket: Socket): Promise<Joined> {
    const body: CommandBody = { case: "join", value: this.joinWith ?? {} };
    return joinedIn(await socket.request({ case: "command", value: { body } }));
  }

  private async sendResume(socket: Socket, redirected: boolean): Promise<Joined> {
    await socket.opened;
    const value = { resumeToken: this.resumeToken, lastSeq: BigInt(this.lastSeq), client: clientName, redirected };
    const joined = joinedIn(await socket.request({ case: "resume", value }));
    const server = joined.server;
    socket.startHeartbeat(server?.pingIntervalMs || 5_000, server?.pingTimeoutMs || 15_000, () => this.lastSeq);
    return joined;
  }

  private receive(body: ServerBody, socket: Socket): void {
    if (body.case === "joined") {
      if (this.state === "ended") return socket.close();
      this.resumeToken = body.value.resumeToken || this.resumeToken;
      this.backups = body.value.backups.map(signalUrl);
      if (body.value.state) this.lastSeq = Number(body.value.state.seq);
      if (body.value.server?.resumeWindowMs) this.resumeWindowMs = body.value.server.resumeWindowMs;
      this.socket = socket;
      this.state = "joined";
      this.joinedMs = this.config.platform.now();
      this.config.observer.joined(body.value);
      return;
    }
    if (body.case === "move") {
      void this.moveTo(signalUrl(body.value.url), socket);
      return;
    }
    if (body.case === "event") {
      const seq = Number(body.value.seq);
      if (seq <= this.lastSeq) return; // seen before the connection broke
      this.lastSeq = seq;
    }
    this.config.observer.message(body);
  }

  private lost(error: AmphiError, resumable: boolean): void {
    if (this.moving) {
      // The other node may have the peer already; else it comes back here.
      this.lostMeanwhile = error;
      return;
    }
    this.socket = undefined;
    if (this.state === "ended") return;
    if (this.state === "open") {
      this.state = "new"; // the preview connects again when it joins
      return;
    }
    if (!resumable) return this.finish(error);
    this.state = "reconnecting";
    this.config.observer.reconnecting(error);
    void this.comeBack(error);
  }

  private async comeBack(cause: AmphiError): Promise<void> {
    const deadlineMs = this.config.platform.now() + this.resumeWindowMs;
    for (let attempt = 0; this.reconnecting(); attempt++) {
      const pauseMs = pausesMs[Math.min(attempt, pausesMs.length - 1)]!;
      await this.pause(pauseMs * (0.9 + 0.2 * Math.random()));
      if (!this.reconnecting()) return;
      if (this.config.platform.now() > deadlineMs) return this.finish(cause);
      const home = this.url;
      for (const url of [home, ...this.backups]) {
        this.url = url;
        const refusal = await this.tryOnce();
        if (!refusal || !this.reconnecting()) return;
        if (!refusal.retryable) return this.finish(refusal);
        if (!nodeIsGone.has(refusal.code)) break; // it lives, and has what it kept of this peer
        this.url = home;
      }
    }
  }

  /** One attempt: resume, or join anew where the place is no longer held. Undefined when it worked. */
  private async tryOnce(): Promise<AmphiError | undefined> {
    try {
      let resumed = true;
      try {
        await this.reach((socket, sentOn) => this.sendResume(socket, sentOn), this.backups.length ? nodePatienceMs : undefined);
      } catch (thrown) {
        if (!placeIsGone.has(asAmphiError(thrown).code)) throw thrown;
        resumed = false;
        await this.joinAnew();
      }
      this.config.observer.reconnected(resumed);
      this.flush();
      return undefined;
    } catch (thrown) {
      return asAmphiError(thrown);
    }
  }

  /** Goes on at another node, make before break; stays where it is when that does not work. */
  private async moveTo(url: string, from: Socket): Promise<void> {
    if (this.moving || this.state !== "joined" || this.socket !== from) return;
    const before = this.url;
    this.moving = true; // what is asked meanwhile is asked there
    await from.quiet();
    let there: Socket | undefined;
    if (this.state === "joined" && this.socket === from) {
      this.url = url;
      const socket = this.connect(nodePatienceMs);
      try {
        await this.sendResume(socket, true);
        there = socket;
      } catch {
        socket.close();
        this.url = before;
      }
    }
    this.moving = false;
    const lost = this.lostMeanwhile;
    this.lostMeanwhile = undefined;
    if (!there && lost) return this.lost(lost, true);
    if (there) {
      from.close();
      this.config.observer.moved();
    }
    if (this.state === "joined") this.flush();
  }

  private flush(): void {
    for (const queued of this.queue.splice(0)) this.request(queued.body).then(queued.resolve, queued.reject);
  }

  private async joinAnew(): Promise<void> {
    this.lastSeq = 0;
    await this.reach(async (socket, sentOn) => {
      await this.greet(socket, sentOn);
      await this.sendJoin(socket);
    });
  }

  private reconnecting(): boolean {
    return this.state === "reconnecting";
  }

  private pause(ms: number): Promise<void> {
    return new Promise((resolve) => {
      this.wakeUp = () => {
        clearTimeout(timer);
        this.wakeUp = undefined;
        resolve();
      };
      const timer = setTimeout(this.wakeUp, ms);
    });
  }

  private finish(error: AmphiError): void {
    this.close();
    this.config.observer.ended(error);
  }
}

// The server forgot this peer, or never knew it (it was started anew).
const placeIsGone: ReadonlySet<string> = new Set(["resume_expired", "unauthenticated", "token_expired", "not_found"]);

/** The WebSocket of the node at an address. */
export function signalUrl(node: string): string {
  const url = new URL("/v1/signal", node);
  url.protocol = url.protocol === "https:" || url.protocol === "wss:" ? "wss:" : "ws:";
  return url.href;
}

const nodeIsGone: ReadonlySet<string> = new Set(["server_unreachable", "connection_lost", "shutdown"]);

function joinedIn(body: ServerBody): Joined {
  if (body.case !== "joined") throw new AmphiError("invalid_message", "the server answered a join otherwise");
  return body.value;
}

function notConnected(): AmphiError {
  return new AmphiError("connection_lost", "not connected to the room", true);
}

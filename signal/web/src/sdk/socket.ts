import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { Error as WireError } from "../gen/amphi/v1/model_pb.js";
import { ClientMessageSchema, ServerMessageSchema } from "../gen/amphi/v1/signal_pb.js";
import type { ServerMessage } from "../gen/amphi/v1/signal_pb.js";
import { AmphiError, errorOfClose } from "./errors.js";
import type { Platform } from "./platform.js";

export type ClientBody = NonNullable<MessageInitShape<typeof ClientMessageSchema>["body"]>;
export type ServerBody = ServerMessage["body"];

export interface SocketObserver {
  /** Everything that is not the answer to a request, a pong or a goodbye. */
  message(body: ServerBody): void;
  /** Called once. `resumable` is what goodbye said, or else what the close code implies. */
  closed(error: AmphiError, resumable: boolean): void;
}

const open = 1; // WebSocket.OPEN
const subprotocol = "amphi.v1.pb";
// How long a connection has to open, and how soon a doubted one must show a sign of life.
const openTimeoutMs = 6_000;
const leastProbeMs = 500;
const mostProbeMs = 2_500;
const requestTimeoutMs = 15_000;
const quietCheckMs = 20;

interface Pending {
  resolve(body: ServerBody): void;
  reject(error: AmphiError): void;
  timer: ReturnType<typeof setTimeout>;
}

/** One WebSocket: frames, requests and their answers, heartbeat. It never reconnects; client.ts does. */
export class Socket {
  readonly opened: Promise<void>;
  /** Server time minus ours, and the round trip, in milliseconds, from the newest pong. */
  clockOffsetMs = 0;
  rttMs = 0;

  private readonly ws: WebSocket;
  private readonly pending = new Map<number, Pending>();
  private nextId = 1;
  private lastHeardMs: number;
  private goodbye: { error: AmphiError; resumable: boolean } | undefined;
  private over = false;
  private endHeartbeat: (() => void) | undefined;
  private lastSeq: () => number = () => 0;

  constructor(
    url: string,
    private readonly platform: Platform,
    private readonly observer: SocketObserver,
    patienceMs = openTimeoutMs,
  ) {
    this.lastHeardMs = platform.now();
    this.ws = platform.webSocket(url, [subprotocol]);
    this.ws.binaryType = "arraybuffer";
    this.opened = new Promise((resolve, reject) => {
      const timer = setTimeout(() => this.end(unreachable(), true), patienceMs);
      this.ws.onopen = () => {
        clearTimeout(timer);
        resolve();
      };
      this.ws.onclose = (event) => {
        clearTimeout(timer);
        reject(unreachable());
        const error = this.goodbye?.error ?? errorOfClose(event.code);
        this.end(error, this.goodbye?.resumable ?? error.retryable);
      };
    });
    this.ws.onerror = () => undefined; // a close follows and tells
    this.opened.catch(() => undefined); // whoever waits hears of it; nobody must
    this.ws.onmessage = (event: MessageEvent<ArrayBuffer>) => this.receive(new Uint8Array(event.data));
  }

  /** Sends a request and waits for the message that answers it; a refusal is thrown. */
  request(body: ClientBody): Promise<ServerBody> {
    if (this.over) return Promise.reject(lostWhileWaiting());
    const id = this.nextId++;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.pending.delete(id);
        reject(new AmphiError("timeout", "the server did not answer in time", true));
      }, requestTimeoutMs);
      this.pending.set(id, { resolve, reject, timer });
      this.send(id, body);
    });
  }

  /** Resolves when no request waits for its answer. */
  async quiet(): Promise<void> {
    while (this.pending.size > 0) await new Promise((resolve) => setTimeout(resolve, quietCheckMs));
  }

  /** Sends without wanting an answer. */
  notify(body: ClientBody): void {
    if (!this.over) this.send(0, body);
  }

  /** Pings from now on and gives the connection up after `timeoutMs` of silence. */
  startHeartbeat(intervalMs: number, timeoutMs: number, lastSeq: () => number): void {
    this.lastSeq = lastSeq;
    this.endHeartbeat?.();
    this.endHeartbeat = this.platform.every(intervalMs, () => {
      if (this.platform.now() - this.lastHeardMs > timeoutMs) this.giveUp();
      else this.ping();
    });
  }

  /** Doubts the connection: gives it up unless something is heard soon. */
  probe(): void {
    if (this.over || this.ws.readyState !== open) return;
    const askedMs = this.platform.now();
    this.ping();
    setTimeout(() => {
      if (this.lastHeardMs < askedMs) this.giveUp();
    }, Math.min(mostProbeMs, leastProbeMs + 2 * this.rttMs));
  }

  /** Ends the connection without telling the observer. */
  close(): void {
    this.over = true;
    this.stop(new AmphiError("left", "the connection was closed", false));
    this.ws.close(1000);
  }

  private ping(): void {
    this.notify({
      case: "ping",
      value: { timeMs: BigInt(this.platform.now()), lastSeq: BigInt(this.lastSeq()) },
    });
  }

  /** Ends the connection as one that was lost. */
  giveUp(): void {
    this.end(new AmphiError("connection_lost", "the server fell silent", true), true);
  }

  private send(id: number, body: ClientBody): void {
    if (this.ws.readyState !== open) return; // its close is on the way and fails the request
    this.ws.send(toBinary(ClientMessageSchema, create(ClientMessageSchema, { id, body })));
  }

  private receive(frame: Uint8Array): void {
    if (this.over) return;
    this.lastHeardMs = this.platform.now();
    const { body } = fromBinary(ServerMessageSchema, frame);
    switch (body.case) {
      case "pong": {
        this.rttMs = this.platform.now() - Number(body.value.timeMs);
        this.clockOffsetMs = Number(body.value.serverMs) - this.platform.now() + this.rttMs / 2;
        return;
      }
      case "goodbye":
        this.goodbye = { error: errorFromWire(body.value.reason), resumable: body.value.resume };
        return;
      case "answer":
        if (body.value.body.case === "error") this.settle(body.value.requestId, errorFromWire(body.value.body.value));
        else this.settle(body.value.requestId, body);
        return;
      case "welcome":
        this.settle(body.value.requestId, body);
        return;
      case "joined":
        // Before the promise resolves, so that the events behind it find the state in place.
        this.observer.message(body);
        this.settle(body.value.requestId, body);
        return;
      default:
        this.observer.message(body);
    }
  }

  private settle(id: number, outcome: ServerBody | AmphiError): void {
    const waiting = this.pending.get(id);
    if (!waiting) return;
    this.pending.delete(id);
    clearTimeout(waiting.timer);
    if (!(outcome instanceof AmphiError)) return waiting.resolve(outcome);
    waiting.reject(outcome);
  }

  private end(error: AmphiError, resumable: boolean): void {
    if (this.over) return;
    this.over = true;
    this.stop(this.goodbye && (!resumable || error.code === "redirected") ? error : lostWhileWaiting());
    this.ws.close();
    this.observer.closed(error, resumable);
  }

  private stop(error: AmphiError): void {
    this.endHeartbeat?.();
    for (const id of [...this.pending.keys()]) this.settle(id, error);
  }
}

export function errorFromWire(error: WireError | undefined): AmphiError {
  if (!error) return new AmphiError("internal", "the server gave no reason", true);
  return new AmphiError(error.code, error.message, error.retryable, error.details);
}

function unreachable(): AmphiError {
  return new AmphiError("server_unreachable", "the server cannot be reached", true);
}

function lostWhileWaiting(): AmphiError {
  return new AmphiError("connection_lost", "the connection was lost before the server answered", true);
}

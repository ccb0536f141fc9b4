// A server of the client protocol in a few lines, for tests: one room, scripted by the test.
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { WebSocketServer } from "ws";
import type { WebSocket as ServerSocket } from "ws";
import { ClientMessageSchema, ServerMessageSchema } from "../src/gen/amphi/v1/signal_pb.js";
import type { ClientMessage } from "../src/gen/amphi/v1/signal_pb.js";
import type { EventSchema, RoomStateSchema } from "../src/gen/amphi/v1/room_pb.js";

type ServerInit = NonNullable<MessageInitShape<typeof ServerMessageSchema>["body"]>;
type EventBody = NonNullable<MessageInitShape<typeof EventSchema>["body"]>;
export type StateInit = MessageInitShape<typeof RoomStateSchema>;

/** One connection as the test sees it. */
export class Connection {
  readonly received: ClientMessage[] = [];

  constructor(
    private readonly socket: ServerSocket,
    readonly server: FakeServer,
  ) {}

  send(body: ServerInit): void {
    this.socket.send(toBinary(ServerMessageSchema, create(ServerMessageSchema, { body })));
  }

  event(seq: number, body: EventBody): void {
    this.send({ case: "event", value: { seq: BigInt(seq), body } });
  }

  refuse(id: number, code: string, retryable = false): void {
    this.send({ case: "answer", value: { requestId: id, body: { case: "error", value: { code, message: code, retryable } } } });
  }

  ok(id: number): void {
    this.send({ case: "answer", value: { requestId: id, body: { case: "result", value: {} } } });
  }

  goodbye(code: string, resume: boolean, close: number, details: Record<string, string> = {}): void {
    this.send({ case: "goodbye", value: { reason: { code, message: code, retryable: resume, details }, resume } });
    this.socket.close(close);
  }

  /** Breaks off without a close frame. */
  cut(): void {
    this.socket.terminate();
  }
}

export type Handler = (connection: Connection, message: ClientMessage) => boolean;

/**
 * Answers hello, join, resume, publish, negotiate and ping as a friendly server would; `handler` goes first and takes
 * a message by returning true.
 */
export class FakeServer {
  readonly connections: Connection[] = [];
  handler: Handler = () => false;
  state: StateInit = { seq: 1n, room: "demo", peers: [{ id: "pe_self", name: "Ada", role: "host" }] };
  role = "host";
  /** Whether the template says that the room is end-to-end encrypted. */
  encrypted = false;
  pingIntervalMs = 5_000;
  pingTimeoutMs = 15_000;
  backups: string[] = [];
  iceServers: { urls: string[]; username: string; credential: string }[] = [];
  private nextTrack = 1;
  private readonly http = createServer((request, response) => this.token(request.url ?? "", response));
  private readonly wss = new WebSocketServer({ server: this.http, handleProtocols: () => "amphi.v1.pb" });

  async start(): Promise<string> {
    this.wss.on("connection", (socket) => {
      const connection = new Connection(socket, this);
      this.connections.push(connection);
      socket.on("message", (data: Buffer) => this.receive(connection, fromBinary(ClientMessageSchema, new Uint8Array(data))));
    });
    await new Promise<void>((resolve) => this.http.listen(0, "127.0.0.1", resolve));
    return `http://127.0.0.1:${(this.http.address() as AddressInfo).port}`;
  }

  async stop(): Promise<void> {
    for (const socket of this.wss.clients) socket.terminate();
    this.wss.close();
    await new Promise((resolve) => this.http.close(resolve));
  }

  get last(): Connection {
    return this.connections.at(-1)!;
  }

  /** How many connections are open. */
  get open(): number {
    return this.wss.clients.size;
  }

  /** Every message of a kind, over all connections. */
  messages(kind: ClientMessage["body"]["case"]): ClientMessage[] {
    return this.connections.flatMap((c) => c.received).filter((message) => message.body.case === kind);
  }

  private receive(connection: Connection, message: ClientMessage): void {
    connection.received.push(message);
    if (this.handler(connection, message)) return;
    const { id, body } = message;
    const server = { pingIntervalMs: this.pingIntervalMs, pingTimeoutMs: this.pingTimeoutMs, resumeWindowMs: 60_000, iceServers: this.iceServers };
    switch (body.case) {
      case "hello":
        return connection.send({
          case: "welcome",
          value: { requestId: id, room: "demo", role: this.role, template: this.template(), server },
        });
      case "resume":
        return connection.send({
          case: "joined",
          value: {
            requestId: id,
            peerId: "pe_self",
            resumeToken: "resume-2",
            resumed: true,
            server,
            backups: this.backups,
            ...(body.value.lastSeq === 0n ? { state: this.wholeState() } : {}),
          },
        });
      case "ping":
        return connection.send({ case: "pong", value: { timeMs: body.value.timeMs, serverMs: body.value.timeMs } });
      case "negotiate":
        return connection.send({
          case: "answer",
          value: { requestId: id, body: { case: "negotiated", value: { sdp: "answer" } } },
        });
      case "command":
        return this.command(connection, id, body.value.body.case);
    }
  }

  private wholeState(): StateInit {
    return { ...this.state, template: this.template() } as StateInit;
  }

  private template() {
    return { ...template(), endToEndEncrypted: this.encrypted };
  }

  private command(connection: Connection, id: number, kind: string | undefined): void {
    if (kind === "join") {
      const value = { requestId: id, peerId: "pe_self", resumeToken: "resume-1", state: this.state, backups: this.backups };
      return connection.send({ case: "joined", value });
    }
    if (kind === "publish") {
      const track = { id: `tr_${this.nextTrack++}` };
      const result = { body: { case: "publish" as const, value: { track } } };
      return connection.send({ case: "answer", value: { requestId: id, body: { case: "result", value: result } } });
    }
    connection.ok(id);
  }

  private token(url: string, response: import("node:http").ServerResponse): void {
    const known = url === "/v1/token";
    response.writeHead(known ? 200 : 404, { "content-type": "application/json" });
    response.end(JSON.stringify(known ? { token: "app-token", room: "demo", role: this.role } : {}));
  }
}

/** Three roles with names that no code knows: on stage, off stage, and the live-stream audience. */
export function template() {
  const publish = { audio: true, video: true, screen: true };
  const layers = [
    { rid: "f", scaleDownBy: 1, maxBitrateKbps: 1500 },
    { rid: "q", scaleDownBy: 4, maxBitrateKbps: 150 },
    { rid: "h", scaleDownBy: 2, maxBitrateKbps: 500 },
  ];
  return {
    name: "test",
    roles: [
      { name: "host", publish: { ...publish, videoParams: { layers } }, subscribe: { delivery: 2, roles: ["host"] }, level: 1 },
      { name: "listener", subscribe: { delivery: 2, roles: ["host"] }, level: 2 },
      { name: "watcher", subscribe: { delivery: 3, roles: ["host"], stream: "main" }, level: 3, stageRole: "host" },
    ],
  };
}

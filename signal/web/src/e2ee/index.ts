// End-to-end encryption for Amphi's web SDK: a file of its own, loaded by those who need it. Loaded by itself as a
// worker it is the worker.
import type { EncryptionError, MediaEncryption } from "../sdk/encryption.js";
import { codecs } from "./frame.js";
import { maxKeyIndex } from "./keys.js";
import type { Holder } from "./keys.js";
import type { EncryptionStats, FromWorker, Side, ToWorker, TransformOptions } from "./messages.js";
import { Works } from "./worker.js";
import type { Transformer } from "./worker.js";

export type { EncryptionError, EncryptionStats, MediaEncryption };

export interface KeyOptions {
  /** 0 to 255; frames say with which one they were encrypted. Default 0. */
  readonly index?: number;
  /** Opens this peer's frames only; without it the key is everybody's. */
  readonly peer?: string;
  /** This client's own key: it is sent with, and opens nothing. */
  readonly own?: boolean;
}

const workerName = "amphi-e2ee";
const minKeyBytes = 16;
const maxKeyBytes = 1024;
const passphraseRounds = 600_000;
const statsPatienceMs = 10_000;

/**
 * Encrypts what a room sends and decrypts what it receives, in a worker, with keys that the application gives and may
 * replace at any time. `new Room({ encryption })`, or `room.encryption = …` before the join. One for each room object.
 */
export class Encryption implements MediaEncryption {
  private readonly worker: Worker;
  private readonly ids = new WeakMap<MediaStreamTrack, number>();
  private readonly transceivers = new Map<number, WeakRef<RTCRtpTransceiver>>();
  private readonly awaited = new Map<number, (stats: EncryptionStats) => void>();
  private readonly own = new Set<string>();
  private using: number | undefined;
  private nextId = 1;
  private listener: (error: EncryptionError) => void = () => undefined;

  /** Throws where the browser lacks what it takes: see `Encryption.supported`. */
  constructor() {
    if (!Encryption.supported) throw new Error("this browser cannot encrypt media end-to-end");
    this.worker = openWorker();
    this.worker.onmessage = ({ data }: MessageEvent<FromWorker>) => this.heard(data);
    this.worker.onerror = () =>
      this.listener({ code: "worker_failed", side: "send", peerId: "", keyIndex: -1, count: 1 });
  }

  /** Whether this browser has script transforms, or the older encoded streams. */
  static get supported(): boolean {
    return hasScriptTransform() || "createEncodedStreams" in globalThis.RTCRtpSender.prototype;
  }

  /**
   * Sets a key: 16 to 1,024 secret bytes, or a CryptoKey for HKDF with the usage deriveBits. A key under an index that
   * is taken replaces the older one. The first key that can be sent with is used at once, later ones with `use`.
   */
  async setKey(key: BufferSource | CryptoKey, options: KeyOptions = {}): Promise<void> {
    const { index = 0 } = options;
    checkIndex(index);
    const material = key instanceof CryptoKey ? key : await importKey(key);
    if (material.algorithm.name !== "HKDF" || !material.usages.includes("deriveBits")) {
      throw new TypeError("a CryptoKey has to be for HKDF, with the usage deriveBits");
    }
    const holder = holderOf(options);
    this.tell({ type: "key", holder, index, material });
    if (typeof holder === "object") return;
    this.own.add(`${holder} ${index}`);
    this.using ??= index;
  }

  /** Sends with the key of this index from the next frame on. Others need it before. */
  use(index: number): void {
    checkIndex(index);
    this.using = index;
    this.tell({ type: "use", index });
  }

  /** Forgets a key; what is encrypted with it is dropped from now on. */
  removeKey(options: KeyOptions = {}): void {
    const { index = 0 } = options;
    const holder = holderOf(options);
    if (typeof holder === "string") this.own.delete(`${holder} ${index}`);
    this.tell({ type: "remove", holder, index });
  }

  /** Frames encrypted, decrypted and dropped since the start. */
  async stats(): Promise<EncryptionStats> {
    const request = this.nextId++;
    this.tell({ type: "stats", request });
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error("the encryption worker does not answer")), statsPatienceMs);
      this.awaited.set(request, (stats) => {
        clearTimeout(timer);
        resolve(stats);
      });
    });
  }

  get canSend(): boolean {
    return this.own.has(`own ${this.using}`) || this.own.has(`everybody ${this.using}`);
  }

  get connection(): RTCConfiguration {
    return hasScriptTransform() ? {} : ({ encodedInsertableStreams: true } as RTCConfiguration);
  }

  allowed<C extends { mimeType: string }>(all: readonly C[]): C[] {
    // Redundancy and forward error correction put frames together that are encrypted one by one.
    return all.filter(({ mimeType }) => [...codecs, "rtx"].includes(mimeType.split("/")[1]!.toLowerCase()));
  }

  take(transceiver: RTCRtpTransceiver, side: Side): void {
    const kind = transceiver.receiver.track.kind as "audio" | "video";
    const options: TransformOptions = { id: this.nextId++, side, kind };
    const end = side === "send" ? transceiver.sender : transceiver.receiver;
    this.transceivers.set(options.id, new WeakRef(transceiver));
    if (side === "receive") this.ids.set(transceiver.receiver.track, options.id);
    if (hasScriptTransform()) {
      end.transform = new RTCRtpScriptTransform(this.worker, options);
    } else {
      const { readable, writable } = (end as unknown as EncodedEnd).createEncodedStreams();
      this.tell({ type: "streams", options, readable, writable }, [readable, writable]);
    }
    // Of a video sender the role decides, among those that are allowed.
    if (side === "send" && kind === "video") return;
    const capable = (side === "send" ? RTCRtpSender : RTCRtpReceiver).getCapabilities?.(kind)?.codecs;
    if (capable) transceiver.setCodecPreferences?.(this.allowed(capable));
  }

  from(media: MediaStreamTrack, peerId: string): void {
    const id = this.ids.get(media);
    if (id !== undefined) this.tell({ type: "from", id, peer: peerId });
  }

  report(listener: (error: EncryptionError) => void): void {
    this.listener = listener;
  }

  close(): void {
    this.worker.terminate();
    this.own.clear();
  }

  private heard(message: FromWorker): void {
    switch (message.type) {
      case "refused": {
        const { code, side, peer, keyIndex, count } = message;
        return this.listener({ code, side, peerId: peer, keyIndex, count });
      }
      case "ask-codecs":
        return this.tellCodecs(message.id);
      case "stats":
        this.awaited.get(message.request)?.(message.stats);
        return void this.awaited.delete(message.request);
    }
  }

  private tellCodecs(id: number): void {
    const transceiver = this.transceivers.get(id)?.deref();
    if (!transceiver) return void this.transceivers.delete(id);
    const known: Record<number, string> = {};
    for (const end of [transceiver.sender, transceiver.receiver]) {
      for (const codec of end.getParameters().codecs) {
        known[codec.payloadType] = codec.mimeType.split("/")[1]!.toLowerCase();
      }
    }
    this.tell({ type: "codecs", id, codecs: known });
  }

  private tell(message: ToWorker, transfer: Transferable[] = []): void {
    this.worker.postMessage(message, transfer);
  }
}

/**
 * A key from words that people can tell each other, by PBKDF2. It is as strong as the words are: four random ones or
 * more. @param salt not secret, the same for all who are to have the key, such as the room's name
 */
export async function keyFromPassphrase(passphrase: string, salt: string): Promise<CryptoKey> {
  const text = new TextEncoder();
  const words = await crypto.subtle.importKey("raw", text.encode(passphrase.normalize("NFKC")), "PBKDF2", false, [
    "deriveBits",
  ]);
  const params = { name: "PBKDF2", hash: "SHA-256", salt: text.encode("amphi " + salt), iterations: passphraseRounds };
  return importKey(await crypto.subtle.deriveBits(params, words, 256));
}

/** 32 random bytes as text for a link's fragment, which browsers send to no server. */
export function newLinkKey(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(32));
  return btoa(String.fromCharCode(...bytes)).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
}

/** The key of such a text; throws for any other. */
export async function keyFromLink(text: string): Promise<CryptoKey> {
  const binary = atob(text.replace(/-/g, "+").replace(/_/g, "/"));
  return importKey(Uint8Array.from(binary, (character) => character.charCodeAt(0)));
}

async function importKey(bytes: BufferSource): Promise<CryptoKey> {
  if (bytes.byteLength < minKeyBytes || bytes.byteLength > maxKeyBytes) {
    throw new RangeError(`a key has ${minKeyBytes} to ${maxKeyBytes} bytes`);
  }
  return crypto.subtle.importKey("raw", bytes, "HKDF", false, ["deriveBits"]);
}

function holderOf({ peer, own }: KeyOptions): Holder {
  if (own) return "own";
  return peer ? { peer } : "everybody";
}

function checkIndex(index: number): void {
  if (!Number.isInteger(index) || index < 0 || index > maxKeyIndex) {
    throw new RangeError(`a key index is 0 to ${maxKeyIndex}`);
  }
}

interface EncodedEnd {
  createEncodedStreams(): { readable: ReadableStream; writable: WritableStream };
}

function hasScriptTransform(): boolean {
  return "RTCRtpScriptTransform" in globalThis;
}

// Pages of other origins may import this file, but not start a worker from it: a small one of their own imports it.
function openWorker(): Worker {
  const options: WorkerOptions = { type: "module", name: workerName };
  const address = import.meta.url;
  if (new URL(address).origin === location.origin) return new Worker(address, options);
  const source = new Blob([`import ${JSON.stringify(address)}`], { type: "text/javascript" });
  const url = URL.createObjectURL(source);
  const worker = new Worker(url, options);
  // Not before the worker has read it.
  worker.addEventListener("message", () => URL.revokeObjectURL(url), { once: true });
  return worker;
}

interface WorkerScope {
  readonly name: string;
  onmessage: ((event: MessageEvent<ToWorker>) => void) | null;
  onrtctransform: ((event: { transformer: Transformer & { options: TransformOptions } }) => void) | null;
  postMessage(message: FromWorker): void;
}

function beWorker(scope: WorkerScope): void {
  const works = new Works({ postMessage: (message) => scope.postMessage(message), now: () => performance.now() });
  scope.onmessage = ({ data }) => works.take(data);
  scope.onrtctransform = ({ transformer }) => works.transform(transformer.options, transformer);
}

if (typeof document === "undefined" && (globalThis as { name?: string }).name === workerName) {
  beWorker(globalThis as unknown as WorkerScope);
}

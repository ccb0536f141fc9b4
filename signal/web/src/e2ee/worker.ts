// The worker: one for a client, with all of its keys and tracks.
import { dress, Opener, Sealer } from "./cipher.js";
import type { Outcome, Refusal } from "./cipher.js";
import { KeyRing } from "./keys.js";
import type { FromWorker, ToWorker, TransformOptions } from "./messages.js";

/** What this needs of an encoded audio or video frame. */
export interface EncodedFrame {
  data: ArrayBuffer;
  readonly type?: string;
  getMetadata(): { mimeType?: string; payloadType?: number };
}

/** The browser's end of a transform. */
export interface Transformer {
  readonly readable: ReadableStream<EncodedFrame>;
  readonly writable: WritableStream<EncodedFrame>;
  sendKeyFrameRequest?(): Promise<unknown>;
}

/** What the worker needs of its global scope. */
export interface Scope {
  postMessage(message: FromWorker): void;
  now(): number;
}

// Refusals of one track and code are told at most this often, and keyframes asked for.
const refusalPauseMs = 2_000;
const keyframePauseMs = 500;
const askPauseMs = 200;

/** Owns the keys and the tracks; everything happens on the worker's one thread. */
export class Works {
  private readonly ring = new KeyRing();
  private readonly tracks = new Map<number, Track>();
  private readonly peers = new Map<number, string>(); // told before the track was there
  private readonly codecs = new Map<number, Readonly<Record<number, string>>>();
  private readonly counts = { encrypted: 0, decrypted: 0, refused: {} as Partial<Record<Refusal, number>> };

  constructor(private readonly scope: Scope) {}

  take(message: ToWorker): void {
    switch (message.type) {
      case "key":
        this.ring.set(message.holder, message.index, message.material);
        for (const track of this.tracks.values()) track.keysChanged();
        return;
      case "remove":
        return this.ring.remove(message.holder, message.index);
      case "use":
        return this.ring.use(message.index);
      case "from":
        this.peers.set(message.id, message.peer);
        return this.tracks.get(message.id)?.from(message.peer);
      case "codecs":
        return void this.codecs.set(message.id, message.codecs);
      case "streams":
        return this.transform(message.options, message);
      case "stats":
        return this.scope.postMessage({ type: "stats", request: message.request, stats: structuredClone(this.counts) });
    }
  }

  /** Puts the frames of a track through encryption or decryption until its transport ends. */
  transform(options: TransformOptions, transformer: Transformer): void {
    const { id, side } = options;
    const track = new Track(options, this.ring, transformer, this.scope, this.counts, (payloadType) =>
      this.codecOf(id, payloadType),
    );
    track.from(this.peers.get(id) ?? "");
    this.tracks.set(id, track);
    const over = (): void => {
      this.tracks.delete(id);
      this.peers.delete(id);
      this.codecs.delete(id);
    };
    const pass = new TransformStream<EncodedFrame, EncodedFrame>({
      transform: async (frame, controller) => {
        if (await (side === "send" ? track.seal(frame) : track.open(frame))) controller.enqueue(frame);
      },
    });
    transformer.readable.pipeThrough(pass).pipeTo(transformer.writable).then(over, over);
  }

  private codecOf(id: number, payloadType: number): string | undefined {
    return this.codecs.get(id)?.[payloadType];
  }
}

/** The frames of one sender or receiver. */
class Track {
  private readonly sealer: Sealer;
  private readonly opener: Opener;
  private readonly told = new Map<Refusal, { at: number; count: number }>();
  private peer = "";
  private needsKeyframe = false;
  private keyframeAskedAt = -Infinity;
  private codecsAskedAt = -Infinity;

  constructor(
    private readonly options: TransformOptions,
    ring: KeyRing,
    private readonly transformer: Transformer,
    private readonly scope: Scope,
    private readonly counts: { encrypted: number; decrypted: number; refused: Partial<Record<Refusal, number>> },
    private readonly codecOfPayload: (payloadType: number) => string | undefined,
  ) {
    this.sealer = new Sealer(ring);
    this.opener = new Opener(ring, () => scope.now());
  }

  from(peer: string): void {
    this.peer = peer;
    this.opener.from(peer);
  }

  /** What could not be decrypted before may be now: a keyframe is needed to begin with. */
  keysChanged(): void {
    if (this.needsKeyframe) this.askKeyframe();
  }

  /** Encrypts the frame in place; false drops it. Nothing is ever sent as it was. */
  async seal(frame: EncodedFrame): Promise<boolean> {
    if (frame.data.byteLength === 0) return true; // nothing in it
    const codec = this.codecOf(frame);
    if (codec === undefined) return false;
    const outcome = await this.sealer.seal(codec, new Uint8Array(frame.data));
    if (outcome.refusal) return this.refused(outcome);
    frame.data = dress(codec, outcome.data, frame.type === "key").buffer;
    this.counts.encrypted++;
    return true;
  }

  /** Decrypts the frame in place; false drops it. Nothing is shown or heard that is not authentic. */
  async open(frame: EncodedFrame): Promise<boolean> {
    if (frame.data.byteLength === 0) return true;
    const codec = this.codecOf(frame);
    if (codec === undefined) return false;
    const outcome = await this.opener.open(codec, new Uint8Array(frame.data));
    if (outcome.refusal) {
      // A repeated frame is missed by nobody.
      this.needsKeyframe ||= this.options.kind === "video" && outcome.refusal !== "replayed";
      return this.refused(outcome);
    }
    if (frame.type === "key") this.needsKeyframe = false;
    else if (this.needsKeyframe) this.askKeyframe();
    frame.data = outcome.data.buffer;
    this.counts.decrypted++;
    return true;
  }

  private codecOf(frame: EncodedFrame): string | undefined {
    if (this.options.kind === "audio") return "opus"; // no other is offered
    const { mimeType, payloadType = -1 } = frame.getMetadata();
    if (mimeType) return mimeType.slice(mimeType.indexOf("/") + 1).toLowerCase();
    const codec = this.codecOfPayload(payloadType);
    if (codec === undefined && this.scope.now() - this.codecsAskedAt > askPauseMs) {
      this.codecsAskedAt = this.scope.now();
      this.scope.postMessage({ type: "ask-codecs", id: this.options.id });
    }
    this.needsKeyframe ||= codec === undefined;
    return codec;
  }

  private askKeyframe(): void {
    if (this.scope.now() - this.keyframeAskedAt < keyframePauseMs) return;
    this.keyframeAskedAt = this.scope.now();
    void this.transformer.sendKeyFrameRequest?.().catch(() => undefined); // the browser asks by itself, later
  }

  private refused(outcome: Outcome & { refusal: Refusal }): false {
    const { refusal: code, index: keyIndex } = outcome;
    this.counts.refused[code] = (this.counts.refused[code] ?? 0) + 1;
    let told = this.told.get(code);
    if (!told) this.told.set(code, (told = { at: -Infinity, count: 0 }));
    told.count++;
    if (this.scope.now() - told.at < refusalPauseMs) return false;
    const { id, side } = this.options;
    this.scope.postMessage({ type: "refused", id, side, code, keyIndex, peer: this.peer, count: told.count });
    told.at = this.scope.now();
    told.count = 0;
    return false;
  }
}

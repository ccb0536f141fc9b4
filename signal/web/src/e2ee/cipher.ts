// Encrypts and decrypts the frames of one track. Takes any input: what is wrong with it is an answer, never a throw.
import {
  clearBytes,
  codecs,
  join,
  maxFrameBytes,
  nonceOf,
  readHeader,
  ReplayWindow,
  tagBytes,
  unwrapObu,
  wrapObu,
  writeHeader,
} from "./frame.js";
import { indexOf, newKid } from "./keys.js";
import type { BaseKey, DerivedKey, KeyRing } from "./keys.js";

/** Why a frame was dropped. */
export type Refusal =
  /** There is no key with the index that the frame names, or none to send with. */
  | "missing_key"
  /** No key fits: another key under this index, or the frame was changed on its way. */
  | "decryption_failed"
  /** Not an encrypted frame. */
  | "not_encrypted"
  /** Its number came before, or is too old. */
  | "replayed"
  /** It was encrypted by another peer than the one whose track it is shown as. */
  | "wrong_sender"
  /** Frames of this codec, or of this size, cannot be encrypted. */
  | "unsupported_codec";

export type Outcome =
  | { readonly data: Uint8Array<ArrayBuffer>; readonly refusal?: undefined }
  | { readonly refusal: Refusal; readonly index: number; readonly data?: undefined };

// How many frames are encrypted with one derived key; far below what AES-GCM bears.
const maxFrames = 2 ** 32;
// How long a slot may carry the frames of another peer than the one that was announced: media may be ahead of the news.
const mismatchMs = 2_000;
// Senders whose counters one receiver remembers.
const maxWindows = 64;

const refuse = (refusal: Refusal, index = -1): Outcome => ({ refusal, index });

/** Encrypts what one track sends. */
export class Sealer {
  private using: BaseKey | undefined;
  private kid = 0n;
  private ctr = 0;

  constructor(
    private readonly ring: KeyRing,
    private readonly limit = maxFrames,
  ) {}

  /** Calls may overlap: each takes its number at once. */
  async seal(codec: string, data: Uint8Array<ArrayBuffer>): Promise<Outcome> {
    const clearCount = clearBytes(codec, data);
    if (!codecs.includes(codec) || data.length > maxFrameBytes || clearCount === undefined) {
      return refuse("unsupported_codec");
    }
    const base = this.ring.sending();
    if (!base) return refuse("missing_key");
    if (base !== this.using || this.ctr >= this.limit) {
      this.using = base;
      this.kid = newKid(base.index);
      this.ctr = 0;
    }
    const ctr = this.ctr++;
    const clear = data.subarray(0, clearCount);
    const header = writeHeader(this.kid, ctr);
    const { key, salt } = await this.ring.derive(base, this.kid);
    const sealed = await crypto.subtle.encrypt(
      { name: "AES-GCM", iv: nonceOf(salt, ctr), additionalData: join(header, clear), tagLength: 8 * tagBytes },
      key,
      data.subarray(clear.length),
    );
    const whole = join(clear, header, new Uint8Array(sealed));
    return { data: whole };
  }
}

/** An AV1 frame as one unit, so that it survives packetizers; other codecs' as they are. */
export function dress(codec: string, sealed: Uint8Array<ArrayBuffer>, keyframe: boolean): Uint8Array<ArrayBuffer> {
  return codec === "av1" ? wrapObu(sealed, keyframe) : sealed;
}

/** Decrypts what one receiving section receives, whoever's it is at the time. */
export class Opener {
  private peer = "";
  private mismatchSince: number | undefined;
  private readonly windows = new Map<bigint, ReplayWindow>();
  private readonly owners = new Map<bigint, BaseKey>();

  constructor(
    private readonly ring: KeyRing,
    private readonly now: () => number = () => performance.now(),
  ) {}

  /** Whose track the section carries now; empty while that is not known. */
  from(peer: string): void {
    if (peer === this.peer) return;
    this.peer = peer;
    this.mismatchSince = undefined;
  }

  async open(codec: string, received: Uint8Array<ArrayBuffer>): Promise<Outcome> {
    if (!codecs.includes(codec)) return refuse("unsupported_codec");
    const data = codec === "av1" ? unwrapObu(received) : received;
    const clearCount = data && clearBytes(codec, data);
    if (!data || clearCount === undefined || data.length > maxFrameBytes) return refuse("not_encrypted");
    const clear = data.subarray(0, clearCount);
    const header = readHeader(data.subarray(clear.length));
    const body = header && data.subarray(clear.length + header.length);
    if (!header || body!.length < tagBytes) return refuse("not_encrypted");
    const { kid, ctr } = header;
    const index = indexOf(kid);
    if (!(this.windows.get(kid)?.fresh(ctr) ?? true)) return refuse("replayed", index);
    const candidates = this.candidates(kid);
    if (candidates.length === 0) return refuse("missing_key", index);
    const authentic = join(data.subarray(clear.length, clear.length + header.length), clear);
    for (const base of candidates) {
      const plain = await decrypt(await this.ring.derive(base, kid), ctr, authentic, body!);
      if (!plain) continue;
      // Again, because another frame may have been opened meanwhile.
      if (!this.window(kid).fresh(ctr)) return refuse("replayed", index);
      this.window(kid).mark(ctr);
      this.owners.set(kid, base);
      if (!this.plausible(base)) return refuse("wrong_sender", index);
      return { data: join(clear, plain) };
    }
    return refuse("decryption_failed", index);
  }

  /** The key that opened this KID before alone, if it is still there; else all that may. */
  private candidates(kid: bigint): BaseKey[] {
    const all = this.ring.opening(indexOf(kid), this.peer);
    const owner = this.owners.get(kid);
    return owner && all.includes(owner) ? [owner] : all;
  }

  private window(kid: bigint): ReplayWindow {
    const window = this.windows.get(kid) ?? new ReplayWindow();
    // The one that was used longest ago is the first to go.
    this.windows.delete(kid);
    this.windows.set(kid, window);
    if (this.windows.size > maxWindows) {
      const oldest = this.windows.keys().next().value!;
      this.windows.delete(oldest);
      this.owners.delete(oldest);
    }
    return window;
  }

  private plausible({ peer }: BaseKey): boolean {
    if (!peer || !this.peer || peer === this.peer) {
      this.mismatchSince = undefined;
      return true;
    }
    this.mismatchSince ??= this.now();
    return this.now() - this.mismatchSince < mismatchMs;
  }
}

async function decrypt(
  { key, salt }: DerivedKey,
  ctr: number,
  additionalData: Uint8Array<ArrayBuffer>,
  body: Uint8Array<ArrayBuffer>,
): Promise<Uint8Array | undefined> {
  try {
    const params = { name: "AES-GCM", iv: nonceOf(salt, ctr), additionalData, tagLength: 8 * tagBytes };
    return new Uint8Array(await crypto.subtle.decrypt(params, key, body));
  } catch {
    return undefined;
  }
}

// The bytes of an encrypted frame: pure. SFrame (RFC 9605) behind what packetizers and forwarders have to read.

/** What an SFrame header says (RFC 9605 section 4.3). */
export interface Header {
  readonly kid: bigint;
  readonly ctr: number;
  /** Its own bytes. */
  readonly length: number;
}

/** Codecs whose frames survive packetizers when they are encrypted, as mime subtypes in lower case. */
export const codecs: readonly string[] = ["opus", "vp8", "vp9", "av1"];

/** Bytes of the authentication tag. */
export const tagBytes = 16;
/** Larger frames are dropped. */
export const maxFrameBytes = 16 << 20;

const vp8KeyframeBytes = 10;
// Types of open bitstream units (AV1 specification section 5.3.2).
const obuSequenceHeader = 1;
const obuFrame = 6;

/** The header, with the shortest encodings. @param ctr 0 to Number.MAX_SAFE_INTEGER */
export function writeHeader(kid: bigint, ctr: number): Uint8Array<ArrayBuffer> {
  const [kidField, kidRest] = field(kid);
  const [ctrField, ctrRest] = field(BigInt(ctr));
  return new Uint8Array([(kidField << 4) | ctrField, ...kidRest, ...ctrRest]);
}

/** Undefined for what is no header, or not its shortest form. */
export function readHeader(bytes: Uint8Array): Header | undefined {
  const config = bytes[0];
  if (config === undefined) return undefined;
  const kid = readField(config >> 4, bytes, 1);
  const ctr = kid && readField(config & 15, bytes, kid.end);
  if (!ctr || ctr.value > BigInt(Number.MAX_SAFE_INTEGER)) return undefined;
  return { kid: kid.value, ctr: Number(ctr.value), length: ctr.end };
}

/** Four bits: values to 7 as they are, longer ones as 8 + the number of bytes that follow - 1. */
function field(value: bigint): [bits: number, rest: number[]] {
  if (value < 8n) return [Number(value), []];
  const rest: number[] = [];
  for (let left = value; left > 0n; left >>= 8n) rest.unshift(Number(left & 255n));
  return [7 + rest.length, rest];
}

function readField(bits: number, bytes: Uint8Array, at: number): { value: bigint; end: number } | undefined {
  if (bits < 8) return { value: BigInt(bits), end: at };
  const end = at + bits - 7;
  if (end > bytes.length || bytes[at] === 0) return undefined;
  let value = 0n;
  for (let i = at; i < end; i++) value = (value << 8n) | BigInt(bytes[i]!);
  return value < 8n ? undefined : { value, end };
}

/** The nonce of a counter (RFC 9605 section 4.4.3). */
export function nonceOf(salt: Uint8Array, ctr: number): Uint8Array<ArrayBuffer> {
  const nonce = new Uint8Array(salt);
  for (let i = nonce.length - 1, left = ctr; left > 0; i--, left = Math.floor(left / 256)) nonce[i]! ^= left % 256;
  return nonce;
}

/**
 * How many bytes at the start of a frame stay readable. Packetizers and the server read a VP8 frame's first byte, and
 * of keyframes the size; of other codecs they need nothing. Undefined for what is shorter, and so no frame.
 */
export function clearBytes(codec: string, data: Uint8Array): number | undefined {
  if (codec !== "vp8") return 0;
  const keyframe = data.length > 0 && (data[0]! & 1) === 0;
  const count = keyframe ? vp8KeyframeBytes : 1;
  return count <= data.length ? count : undefined;
}

/**
 * Packetizers take AV1 apart into open bitstream units and parse their headers: the whole frame becomes one of them.
 * That of a keyframe looks like a sequence header, which is what makes packetizers mark the packet.
 */
export function wrapObu(frame: Uint8Array, keyframe: boolean): Uint8Array<ArrayBuffer> {
  const head = [((keyframe ? obuSequenceHeader : obuFrame) << 3) | 2];
  let left = frame.length;
  do {
    head.push((left & 127) | (left > 127 ? 128 : 0));
    left >>>= 7;
  } while (left > 0);
  return join(new Uint8Array(head), frame);
}

/** What wrapObu was given; undefined when it is not exactly one unit. */
export function unwrapObu(data: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> | undefined {
  const head = data[0];
  // No forbidden bit, no extension.
  if (head === undefined || (head & 0x84) !== 0) return undefined;
  if ((head & 2) === 0) return data.subarray(1);
  let size = 0;
  for (let i = 0; i < 4; i++) {
    const byte = data[1 + i];
    if (byte === undefined) return undefined;
    size |= (byte & 127) << (7 * i);
    if (byte < 128) return data.length === 2 + i + size ? data.subarray(2 + i) : undefined;
  }
  return undefined;
}

export function join(...parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** Which counters of one key were seen, back to `size` before the newest. Frames may overtake each other. */
export class ReplayWindow {
  private newest = -1;
  private readonly seen: Uint8Array;

  constructor(private readonly size = 2048) {
    this.seen = new Uint8Array(size);
  }

  /** Whether a counter is new. Too old counts as seen. */
  fresh(ctr: number): boolean {
    if (ctr > this.newest) return true;
    return ctr > this.newest - this.size && this.seen[ctr % this.size] === 0;
  }

  /** Notes a counter whose frame was authentic. */
  mark(ctr: number): void {
    if (ctr - this.newest >= this.size) this.seen.fill(0);
    else for (let passed = this.newest + 1; passed < ctr; passed++) this.seen[passed % this.size] = 0;
    this.seen[ctr % this.size] = 1;
    this.newest = Math.max(this.newest, ctr);
  }
}

// Keys: those that the application gave, and what is derived from them for each sender (RFC 9605 section 4.4.2).
import { join } from "./frame.js";

/** Whose frames a key is for: everybody's, this client's own, or those of one peer. */
export type Holder = "everybody" | "own" | { readonly peer: string };

/** A key that the application gave. */
export interface BaseKey {
  readonly index: number;
  /** The peer whose frames it opens; empty for everybody's. */
  readonly peer: string;
  readonly material: CryptoKey;
  /** Of the keys given here, for what is derived from it. */
  readonly serial: number;
}

/** The key and salt of one KID. */
export interface DerivedKey {
  readonly key: CryptoKey;
  readonly salt: Uint8Array<ArrayBuffer>;
}

export const maxKeyIndex = 255;
const cipherSuite = 4; // AES_128_GCM_SHA256_128
// The most peers that may have keys of their own, and derived keys that are kept.
const maxHolders = 1_000;
const maxDerived = 1_000;

/** The application's keys. A new key under an old index takes its place. */
export class KeyRing {
  private readonly holders = new Map<string, Map<number, BaseKey>>();
  private readonly derived = new Map<string, Promise<DerivedKey>>();
  private current: number | undefined;
  private serial = 0;

  /** The first key that this client may send with is used at once. */
  set(holder: Holder, index: number, material: CryptoKey): void {
    const name = nameOf(holder);
    let keys = this.holders.get(name);
    if (!keys) {
      if (this.holders.size >= maxHolders) this.holders.delete([...this.holders.keys()].find((n) => n.startsWith(":"))!);
      this.holders.set(name, (keys = new Map()));
    }
    const peer = typeof holder === "object" ? holder.peer : "";
    keys.set(index, { index, peer, material, serial: ++this.serial });
    if (!peer) this.current ??= index;
  }

  remove(holder: Holder, index: number): void {
    this.holders.get(nameOf(holder))?.delete(index);
    if (this.current === index && !this.sending()) this.current = undefined;
  }

  /** Chooses the key to send with. */
  use(index: number): void {
    this.current = index;
  }

  /** The key to send with: one's own before everybody's. */
  sending(): BaseKey | undefined {
    if (this.current === undefined) return undefined;
    return this.holders.get("own")?.get(this.current) ?? this.holders.get("everybody")?.get(this.current);
  }

  /** The keys that a frame with this index may have been encrypted with, the likeliest first. */
  opening(index: number, peer: string): BaseKey[] {
    const found: BaseKey[] = [];
    const add = (keys: Map<number, BaseKey> | undefined): void => {
      const key = keys?.get(index);
      if (key && !found.includes(key)) found.push(key);
    };
    add(this.holders.get(":" + peer));
    add(this.holders.get("everybody"));
    for (const [name, keys] of this.holders) if (name.startsWith(":")) add(keys);
    return found;
  }

  derive(base: BaseKey, kid: bigint): Promise<DerivedKey> {
    const name = `${base.serial} ${kid}`;
    const known = this.derived.get(name);
    if (known) {
      // The oldest that was used is the first to go.
      this.derived.delete(name);
      this.derived.set(name, known);
      return known;
    }
    const made = deriveKey(base.material, kid);
    this.derived.set(name, made);
    if (this.derived.size > maxDerived) this.derived.delete(this.derived.keys().next().value!);
    return made;
  }
}

function nameOf(holder: Holder): string {
  return typeof holder === "object" ? ":" + holder.peer : holder;
}

/** The last byte of a KID is the key's index, what is before it makes the sender's use of the key its own. */
export const indexOf = (kid: bigint): number => Number(kid & 255n);

/**
 * A new KID. The 56 random bits make the derived key, and with it every nonce, one that no other track, sender or page
 * load has; counters may start at 0 with each.
 */
export function newKid(index: number): bigint {
  const [high, low] = crypto.getRandomValues(new Uint32Array(2));
  return (BigInt(high!) << 32n) | (BigInt(low! >>> 8) << 8n) | BigInt(index);
}

/** @param material imported for HKDF with the usage deriveBits */
export async function deriveKey(material: CryptoKey, kid: bigint): Promise<DerivedKey> {
  const tail = new Uint8Array(10);
  const view = new DataView(tail.buffer);
  view.setBigUint64(0, kid);
  view.setUint16(8, cipherSuite);
  const bits = (label: string, count: number): Promise<ArrayBuffer> => {
    const info = join(new TextEncoder().encode(`SFrame 1.0 Secret ${label} `), tail);
    return crypto.subtle.deriveBits({ name: "HKDF", hash: "SHA-256", salt: new Uint8Array(0), info }, material, count);
  };
  const [key, salt] = await Promise.all([bits("key", 128), bits("salt", 96)]);
  const usable = await crypto.subtle.importKey("raw", key, "AES-GCM", false, ["encrypt", "decrypt"]);
  return { key: usable, salt: new Uint8Array(salt) };
}

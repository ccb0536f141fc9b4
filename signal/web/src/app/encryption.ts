// The key of an end-to-end encrypted room: from the link's fragment, which no server sees, or from a passphrase.
import type { Room } from "@amphi/sdk";

interface Secret {
  readonly passphrase: string;
  readonly room: string;
}

const shelf = "amphi.secret.";
const linkKey = (): string => new URLSearchParams(location.hash.slice(1)).get("key") ?? "";

/** Encrypts with the link's key, or with what was typed in before a reload; false where there is neither. */
export async function unlockWithKnown(room: Room, code: string): Promise<boolean> {
  const key = linkKey();
  const secret = key ? undefined : recall(code);
  if (!key && !secret) return false;
  const { keyFromLink, keyFromPassphrase } = await import("@amphi/sdk/e2ee");
  await unlock(room, key ? await keyFromLink(key) : await keyFromPassphrase(secret!.passphrase, secret!.room));
  return true;
}

/** Encrypts with a passphrase that everybody in the room knows. */
export async function unlockWithPassphrase(room: Room, code: string, passphrase: string): Promise<void> {
  const { keyFromPassphrase } = await import("@amphi/sdk/e2ee");
  await unlock(room, await keyFromPassphrase(passphrase, room.state.room));
  remember(code, { passphrase, room: room.state.room });
}

async function unlock(room: Room, key: CryptoKey): Promise<void> {
  const { Encryption } = await import("@amphi/sdk/e2ee");
  const encryption = new Encryption();
  await encryption.setKey(key);
  room.encryption?.close();
  room.encryption = encryption;
}

function recall(code: string): Secret | undefined {
  try {
    return JSON.parse(sessionStorage.getItem(shelf + code) ?? "null") ?? undefined;
  } catch {
    return undefined; // storage is refused
  }
}

function remember(code: string, secret: Secret): void {
  try {
    sessionStorage.setItem(shelf + code, JSON.stringify(secret));
  } catch {
    // asked again after a reload
  }
}

// What the page and the worker tell each other.
import type { Refusal } from "./cipher.js";
import type { Holder } from "./keys.js";

export type Side = "send" | "receive";

/** What a transform is made with. */
export interface TransformOptions {
  readonly id: number;
  readonly side: Side;
  readonly kind: "audio" | "video";
}

export type ToWorker =
  | { readonly type: "key"; readonly holder: Holder; readonly index: number; readonly material: CryptoKey }
  | { readonly type: "remove"; readonly holder: Holder; readonly index: number }
  | { readonly type: "use"; readonly index: number }
  /** Whose frames a receiving section carries now. */
  | { readonly type: "from"; readonly id: number; readonly peer: string }
  /** Mime subtypes by payload type, as asked for. */
  | { readonly type: "codecs"; readonly id: number; readonly codecs: Readonly<Record<number, string>> }
  /** Where there is no script transform: the frames of createEncodedStreams. */
  | {
      readonly type: "streams";
      readonly options: TransformOptions;
      readonly readable: ReadableStream;
      readonly writable: WritableStream;
    }
  | { readonly type: "stats"; readonly request: number };

export type FromWorker =
  | {
      readonly type: "refused";
      readonly id: number;
      readonly side: Side;
      readonly code: Refusal;
      readonly keyIndex: number;
      readonly peer: string;
      readonly count: number;
    }
  | { readonly type: "ask-codecs"; readonly id: number }
  | { readonly type: "stats"; readonly request: number; readonly stats: EncryptionStats };

/** Frames since the start. */
export interface EncryptionStats {
  readonly encrypted: number;
  readonly decrypted: number;
  /** Dropped ones, by code. */
  readonly refused: Readonly<Partial<Record<Refusal, number>>>;
}

/** Media that was dropped instead of sent or played. Told at most every 2 s for each track and code. */
export interface EncryptionError {
  /**
   * `missing_key` · `decryption_failed`: another key, or a changed frame · `not_encrypted` · `replayed` ·
   * `wrong_sender`: a peer's key opened what is shown as another's · `unsupported_codec` · `worker_failed`.
   */
  readonly code: string;
  readonly side: "send" | "receive";
  /** Whose media it is, where that is known. */
  readonly peerId: string;
  /** The key that the frame asks for; -1 where there is none. */
  readonly keyIndex: number;
  /** Frames since the last such event. */
  readonly count: number;
}

/** End-to-end encryption, as `amphi-e2ee.js` offers it: what the SDK asks of it. */
export interface MediaEncryption {
  /** Whether there is a key to send with. */
  readonly canSend: boolean;
  /** What an RTCPeerConnection has to be made with. */
  readonly connection: RTCConfiguration;
  /** The codecs that can be encrypted. */
  allowed<C extends { mimeType: string }>(codecs: readonly C[]): C[];
  /** Puts a sending or receiving section's frames through it, from before its first offer on. */
  take(transceiver: RTCRtpTransceiver, side: "send" | "receive"): void;
  /** Says whose media a received track carries now. */
  from(media: MediaStreamTrack, peerId: string): void;
  /** Sets who hears of errors. */
  report(listener: (error: EncryptionError) => void): void;
  /** Lets go of everything; the room calls it at its end. */
  close(): void;
}

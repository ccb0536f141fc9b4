/**
 * A refusal or failure. `code` is one of the server's codes (PROTOCOL.md section 7) or one of the SDK's own:
 * `connection_lost`, `server_unreachable`, `left`, `insecure_context`, `device_denied`, `device_denied_by_system`,
 * `device_not_found`, `device_in_use`, `device_failed`, `capture_cancelled`, `media_failed`, `unsupported`,
 * `encryption_required`.
 */
export class AmphiError extends Error {
  constructor(
    readonly code: string,
    message: string,
    /** The same request may succeed later, unchanged. */
    readonly retryable = false,
    readonly details: Readonly<Record<string, string>> = {},
  ) {
    super(message);
    this.name = "AmphiError";
  }
}

/** Any thrown value as an AmphiError; unknown ones get the code `internal`. */
export function asAmphiError(thrown: unknown): AmphiError {
  if (thrown instanceof AmphiError) return thrown;
  return new AmphiError("internal", thrown instanceof Error ? thrown.message : String(thrown));
}

/** What a WebSocket close code says when no goodbye came before it. */
export function errorOfClose(close: number): AmphiError {
  const found = closeCodes[close];
  if (found) return new AmphiError(found[0], found[1], found[2]);
  return new AmphiError("connection_lost", "the connection to the server was lost", true);
}

const closeCodes: Readonly<Record<number, readonly [code: string, message: string, retryable: boolean]>> = {
  1001: ["shutdown", "the server is going away", true],
  1009: ["message_too_large", "a message was too large", true],
  1013: ["slow_client", "the connection is too slow", true],
  4001: ["unauthenticated", "the token is not valid here", false],
  4002: ["invalid_message", "the server did not understand a message", false],
  4003: ["rate_limited", "too many messages", true],
  4004: ["removed", "removed from the room", false],
  4005: ["room_ended", "the room has ended", false],
  4006: ["replaced", "this peer is connected from somewhere else", false],
  4008: ["client_timeout", "the connection was silent for too long", true],
};

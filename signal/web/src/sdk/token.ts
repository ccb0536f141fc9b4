import { AmphiError } from "./errors.js";
import type { Platform } from "./platform.js";

interface TokenAnswer {
  token?: string;
  error?: { code?: string; message?: string; retryable?: boolean };
}

/** Exchanges a room code for an app token. */
export async function tokenOfCode(platform: Platform, server: string, code: string, userId?: string): Promise<string> {
  let response: Response;
  try {
    response = await platform.fetch(new URL("/v1/token", server).href, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(userId ? { code, user_id: userId } : { code }),
    });
  } catch {
    throw new AmphiError("server_unreachable", "the server cannot be reached", true);
  }
  const answer = (await response.json().catch(() => ({}))) as TokenAnswer;
  if (response.ok && answer.token) return answer.token;
  const { code: refusal, message, retryable } = answer.error ?? {};
  throw new AmphiError(
    refusal ?? (response.status >= 500 ? "unavailable" : "internal"),
    message ?? `the server answered ${response.status}`,
    retryable ?? response.status >= 500,
  );
}

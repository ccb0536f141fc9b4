// The management API, as far as this page needs it: Connect with JSON.
import type { NodeStatusJson } from "../gen/amphi/v1/api_pb.js";

const tokenKey = "amphi.ops.token";

/** The token from the link's fragment, which is then taken out of the address, or the one used before in this tab. */
export function startToken(): string {
  const fromLink = new URLSearchParams(location.hash.slice(1)).get("token");
  if (fromLink) {
    history.replaceState(null, "", location.pathname + location.search);
    keepToken(fromLink);
    return fromLink;
  }
  return sessionStorage.getItem(tokenKey) ?? "";
}

export function keepToken(token: string): void {
  if (token) sessionStorage.setItem(tokenKey, token);
  else sessionStorage.removeItem(tokenKey);
}

export class RefusedError extends Error {}

export async function nodeStatus(token: string, signal: AbortSignal): Promise<NodeStatusJson> {
  const response = await fetch("/amphi.v1.NodeService/GetNode", {
    method: "POST",
    headers: { "content-type": "application/json", authorization: "Bearer " + token },
    body: "{}",
    signal,
  });
  if (response.ok) return (await response.json()) as NodeStatusJson;
  const { message } = (await response.json().catch(() => ({}))) as { message?: string };
  const text = message ?? `the node answered ${response.status}`;
  throw response.status === 401 || response.status === 403 ? new RefusedError(text) : new Error(text);
}

// The management API, as far as this page needs it: Connect with JSON.
import type { ListNodesResponseJson, NodeInfoJson, NodeStatusJson } from "../gen/amphi/v1/api_pb.js";

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

/** What a node says of itself; an empty id is the node that serves this page. */
export const nodeStatus = (token: string, id: string, signal: AbortSignal): Promise<NodeStatusJson> =>
  call<NodeStatusJson>(token, "GetNode", { id }, signal);

export async function listNodes(token: string, signal: AbortSignal): Promise<readonly NodeInfoJson[]> {
  return (await call<ListNodesResponseJson>(token, "ListNodes", {}, signal)).nodes ?? [];
}

export const drainNode = (token: string, id: string): Promise<NodeInfoJson> => call(token, "DrainNode", { id });

export const undrainNode = (token: string, id: string): Promise<NodeInfoJson> => call(token, "UndrainNode", { id });

async function call<T>(token: string, method: string, request: object, signal?: AbortSignal): Promise<T> {
  const response = await fetch("/amphi.v1.NodeService/" + method, {
    method: "POST",
    headers: { "content-type": "application/json", authorization: "Bearer " + token },
    body: JSON.stringify(request),
    ...(signal ? { signal } : {}),
  });
  if (response.ok) return (await response.json()) as T;
  const { message } = (await response.json().catch(() => ({}))) as { message?: string };
  const text = message ?? `the node answered ${response.status}`;
  throw response.status === 401 || response.status === 403 ? new RefusedError(text) : new Error(text);
}

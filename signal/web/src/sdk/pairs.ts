// What has arrived on the candidate pairs of an RTCPeerConnection, and what that tells.

/** What one pair has received so far. */
interface Received {
  /** Media and DTLS. */
  readonly bytes: number;
  /** Answers to this browser's checks. */
  readonly answers: number;
  /** Those, and the other side's checks. */
  readonly checks: number;
}

export interface Pairs {
  /** The pair that this browser sends by; empty when it has none or does not say. */
  readonly selected: string;
  readonly received: ReadonlyMap<string, Received>;
}

const nothing: Received = { bytes: 0, answers: 0, checks: 0 };

export async function pairsOf(pc: RTCPeerConnection): Promise<Pairs> {
  const received = new Map<string, Received>();
  let [selected, marked] = ["", ""];
  for (const stat of (await pc.getStats()).values()) {
    if (stat.type === "transport") selected = stat.selectedCandidatePairId ?? "";
    if (stat.type !== "candidate-pair") continue;
    const { bytesReceived = 0, responsesReceived = 0, requestsReceived = 0 } = stat;
    received.set(stat.id, { bytes: bytesReceived, answers: responsesReceived, checks: responsesReceived + requestsReceived });
    if (stat.selected) marked = stat.id; // Firefox
  }
  return { selected: received.has(selected) ? selected : marked, received };
}

/** Whether anything came in between: media by any pair, or a sign of life by the one in use. */
export function heard(before: Pairs, now: Pairs): boolean {
  for (const [id, { bytes, checks }] of now.received) {
    const then = before.received.get(id) ?? nothing;
    if (bytes > then.bytes || (id === now.selected && checks > then.checks)) return true;
  }
  return false;
}

/**
 * Whether the browser keeps to a dead pair: nothing has come by it since `before`, while another pair was answered.
 * Undefined while neither has come.
 */
export function stuck(before: Pairs, now: Pairs): boolean | undefined {
  const { selected } = now;
  const then = before.received.get(selected) ?? nothing;
  const since = now.received.get(selected);
  if (!since || selected !== before.selected || since.bytes > then.bytes || since.checks > then.checks) return false;
  const answered = [...now.received].some(([id, { answers }]) => answers > (before.received.get(id) ?? nothing).answers);
  return answered ? true : undefined;
}

// Waiting for conditions, always with a deadline.

export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/**
 * Calls `probe` until it answers something truthy, and answers that. On a deadline it fails with `what` and the last
 * thing that was seen: `seen(value)` may shorten it.
 */
export async function until(what, probe, { timeout = 20_000, every = 100, seen = (value) => value } = {}) {
  const end = Date.now() + timeout;
  let last;
  for (;;) {
    try {
      last = await probe();
      if (last) return last;
    } catch (thrown) {
      last = thrown;
    }
    if (Date.now() > end) {
      const shown = last instanceof Error ? last.message : JSON.stringify(seen(last));
      throw new Error(`after ${timeout} ms still not: ${what}; last: ${shown}`);
    }
    await pause(every);
  }
}

/**
 * Calls `probe` until it answers `{ ok, ...what was seen }` with ok true; on a deadline the message shows what was seen.
 */
export async function eventually(what, probe, options = {}) {
  let last;
  try {
    return await until(what, async () => ((last = await probe()).ok ? last : false), options);
  } catch (thrown) {
    throw new Error(`${thrown.message.split("; last:")[0]}; last: ${JSON.stringify(last ?? thrown.message)}`);
  }
}

/** Watches that `probe` stays true for `ms`; fails with `what` as soon as it doesn't. */
export async function always(what, probe, ms, every = 100) {
  const end = Date.now() + ms;
  while (Date.now() < end) {
    if (!(await probe())) throw new Error(`no longer: ${what}`);
    await pause(every);
  }
}

export function quantile(values, q) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.max(0, Math.ceil(q * sorted.length) - 1))] ?? NaN;
}

const key = "amphi-visitor";

/** A random id that stays with this browser: it lets a ban hold for guests who came by a link and have no other. */
export function visitorId(): string {
  try {
    const known = localStorage.getItem(key);
    if (known) return known;
    const made = random();
    localStorage.setItem(key, made);
    return made;
  } catch {
    // Storage is refused, as in some frames: the id is that of this page then.
    return random();
  }
}

function random(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return "guest-" + Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** What the SDK takes from the browser. Tests put fakes in its place. */
export interface Platform {
  webSocket(url: string, protocols: string[]): WebSocket;
  fetch(url: string, init?: RequestInit): Promise<Response>;
  peerConnection(config: RTCConfiguration): RTCPeerConnection;
  mediaDevices(): MediaDevices | undefined;
  /** Survives a reload of this tab and nothing else. */
  storage(): Storage | undefined;
  /** Calls back every `ms` milliseconds, in hidden tabs too; returns what ends it. */
  every(ms: number, callback: () => void): () => void;
  /** Calls back when the network may have changed, or was gone and is `back`; returns what ends it. */
  onNetworkChange(callback: (back: boolean) => void): () => void;
  /** Takes a named lock while this page lives; false when another live page has it. */
  claim(name: string): Promise<boolean>;
  now(): number;
}

export function browserPlatform(): Platform {
  return {
    webSocket: (url, protocols) => new WebSocket(url, protocols),
    fetch: (url, init) => fetch(url, init),
    peerConnection: (config) => new RTCPeerConnection(config),
    mediaDevices: () => navigator.mediaDevices as MediaDevices | undefined,
    storage: () => {
      try {
        return window.sessionStorage;
      } catch {
        return undefined; // refused by the browser's privacy settings
      }
    },
    every: unthrottledEvery,
    onNetworkChange,
    claim,
    now: () => Date.now(),
  };
}

// Timers of hidden tabs are slowed to one a minute; those of a worker are not.
function unthrottledEvery(ms: number, callback: () => void): () => void {
  let end: (() => void) | undefined;
  const count = (): void => {
    const timer = setInterval(callback, ms);
    end = () => clearInterval(timer);
  };
  try {
    const source = "onmessage=e=>setInterval(()=>postMessage(0),e.data)";
    const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
    const worker = new Worker(url);
    URL.revokeObjectURL(url);
    worker.onmessage = callback;
    // The page's policy may forbid it: some browsers throw, others say so only now.
    worker.onerror = () => {
      worker.onerror = null;
      count();
    };
    worker.postMessage(ms);
    end = () => {
      worker.onerror = null;
      worker.terminate();
    };
  } catch {
    count();
  }
  return () => end?.();
}

function onNetworkChange(callback: (back: boolean) => void): () => void {
  const back = (): void => callback(true);
  const perhaps = (): void => callback(false);
  const visible = (): void => {
    if (document.visibilityState === "visible") callback(false);
  };
  const connection = (navigator as { connection?: EventTarget }).connection;
  window.addEventListener("online", back);
  window.addEventListener("pageshow", perhaps);
  document.addEventListener("visibilitychange", visible);
  connection?.addEventListener("change", perhaps);
  return () => {
    window.removeEventListener("online", back);
    window.removeEventListener("pageshow", perhaps);
    document.removeEventListener("visibilitychange", visible);
    connection?.removeEventListener("change", perhaps);
  };
}

// A page that is being replaced by its own reload may still hold the lock for a moment.
const claimPatienceMs = 400;

async function claim(name: string): Promise<boolean> {
  const locks = navigator.locks as LockManager | undefined;
  if (!locks) return true;
  const patience = new AbortController();
  const timer = setTimeout(() => patience.abort(), claimPatienceMs);
  return new Promise<boolean>((resolve) => {
    locks
      .request(name, { signal: patience.signal }, () => {
        clearTimeout(timer);
        resolve(true);
        return new Promise<never>(() => undefined);
      })
      .catch(() => resolve(false));
  });
}

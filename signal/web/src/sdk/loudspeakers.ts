/** Plays received audio: one element per receiving section, for the life of a transport. */
export class Loudspeakers {
  private readonly elements = new Map<MediaStreamTrack, HTMLAudioElement>();
  private readonly volumes = new Map<string, number>();
  private playing = new Map<MediaStreamTrack, string>();
  private sinkId = "";

  /** @param blocked is told whether the browser refuses to play sound before a click */
  constructor(private readonly blocked: (blocked: boolean) => void) {}

  /** What is heard now: received media and the track that each carries. */
  play(heard: Map<MediaStreamTrack, string>): void {
    this.playing = heard;
    for (const [media, element] of this.elements) {
      if (heard.has(media)) continue;
      element.srcObject = null;
      this.elements.delete(media);
    }
    if (typeof Audio === "undefined") return;
    for (const [media, trackId] of heard) {
      let element = this.elements.get(media);
      if (!element) {
        element = new Audio();
        element.srcObject = new MediaStream([media]);
        this.elements.set(media, element);
        if (this.sinkId) void setSink(element, this.sinkId);
        this.start(element);
      }
      element.volume = this.volumes.get(trackId) ?? 1;
    }
  }

  /** 0 to 1, of one track. */
  setVolume(trackId: string, volume: number): void {
    this.volumes.set(trackId, volume);
    this.play(this.playing);
  }

  async setSink(deviceId: string): Promise<void> {
    this.sinkId = deviceId;
    await Promise.all([...this.elements.values()].map((element) => setSink(element, deviceId)));
  }

  /** Call from a click when the browser has blocked sound. */
  async unblock(): Promise<void> {
    await Promise.all([...this.elements.values()].map((element) => element.play()));
    this.blocked(false);
  }

  private start(element: HTMLAudioElement): void {
    element.play().catch((thrown: unknown) => {
      if (thrown instanceof Error && thrown.name === "NotAllowedError") this.blocked(true);
    });
  }
}

async function setSink(element: HTMLAudioElement, deviceId: string): Promise<void> {
  if ("setSinkId" in element) await element.setSinkId(deviceId);
}

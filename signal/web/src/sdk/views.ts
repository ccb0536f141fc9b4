import type { ShownSize } from "./subscriptions.js";

/** Where a view's picture comes from and who must hear of its size. */
export interface ViewSource {
  /** What a track's media is now; undefined while it is in no slot. */
  media(trackId: string): MediaStreamTrack | undefined;
  /** Sizes changed, or views came or went. */
  sizesChanged(): void;
  /** The first frame of a track was decoded in an attached element. */
  frameSeen(trackId: string): void;
}

interface View {
  readonly trackId: string;
  readonly element: HTMLVideoElement;
  width: number;
  height: number;
  onScreen: boolean;
  shown: MediaStreamTrack | undefined;
}

// A hidden tab keeps its pictures for a moment: people come back.
const hiddenGraceMs = 10_000;
const maxPixelRatio = 2;

/** The video elements that tracks are attached to: keeps their pictures current and knows how large they are. */
export class Views {
  private readonly views = new Set<View>();
  private pageHidden = false;
  private hideTimer: ReturnType<typeof setTimeout> | undefined;

  constructor(private readonly source: ViewSource) {
    if (typeof document !== "undefined") {
      document.addEventListener("visibilitychange", () => this.visibilityChanged());
    }
  }

  /** Shows a track in an element until the returned function is called. */
  attach(element: HTMLVideoElement, trackId: string): () => void {
    const box = element.getBoundingClientRect();
    const view: View = { trackId, element, width: box.width, height: box.height, onScreen: true, shown: undefined };
    this.views.add(view);
    element.playsInline = true;
    element.muted = true; // sound has its own elements

    const sizes = new ResizeObserver(([entry]) => {
      view.width = entry!.contentRect.width;
      view.height = entry!.contentRect.height;
      this.source.sizesChanged();
    });
    const visibility = new IntersectionObserver(([entry]) => {
      view.onScreen = entry!.isIntersecting;
      this.source.sizesChanged();
    });
    sizes.observe(element);
    visibility.observe(element);
    this.refreshView(view);
    this.source.sizesChanged();
    return () => {
      sizes.disconnect();
      visibility.disconnect();
      this.views.delete(view);
      if (element.srcObject instanceof MediaStream && element.srcObject.getTracks()[0] === view.shown) {
        element.srcObject = null;
      }
      this.source.sizesChanged();
    };
  }

  /** Slots changed: gives every element the media that its track has now. */
  refresh(): void {
    for (const view of this.views) this.refreshView(view);
  }

  /** The largest size at which each attached track is shown, in device pixels. */
  sizes(): Map<string, ShownSize> {
    const ratio = Math.min(maxPixelRatio, globalThis.devicePixelRatio || 1);
    const sizes = new Map<string, ShownSize>();
    for (const view of this.views) {
      const visible = view.onScreen && !this.pageHidden;
      const width = visible ? view.width * ratio : 0;
      const height = visible ? view.height * ratio : 0;
      const other = sizes.get(view.trackId);
      if (!other || other.width * other.height < width * height) sizes.set(view.trackId, { width, height });
    }
    return sizes;
  }

  private refreshView(view: View): void {
    const media = this.source.media(view.trackId);
    if (!media || media === view.shown) return;
    if (media.muted && view.shown) {
      // Nothing has arrived on the new slot yet: keep the old picture until it has.
      media.addEventListener("unmute", () => this.refreshView(view), { once: true });
      return;
    }
    view.shown = media;
    view.element.srcObject = new MediaStream([media]);
    void view.element.play().catch(() => undefined);
    this.watchFirstFrame(view, media);
  }

  private watchFirstFrame(view: View, media: MediaStreamTrack): void {
    const seen = (): void => {
      if (view.shown === media && this.views.has(view)) this.source.frameSeen(view.trackId);
    };
    if ("requestVideoFrameCallback" in view.element) view.element.requestVideoFrameCallback(seen);
    else (view.element as HTMLVideoElement).addEventListener("timeupdate", seen, { once: true });
  }

  private visibilityChanged(): void {
    clearTimeout(this.hideTimer);
    const hidden = document.visibilityState === "hidden" && !document.pictureInPictureElement;
    if (!hidden) return this.setPageHidden(false);
    this.hideTimer = setTimeout(() => this.setPageHidden(true), hiddenGraceMs);
  }

  private setPageHidden(hidden: boolean): void {
    if (this.pageHidden === hidden) return;
    this.pageHidden = hidden;
    this.source.sizesChanged();
  }
}

import { AmphiError } from "./errors.js";
import type { Platform } from "./platform.js";

export type DeviceKind = "audioinput" | "videoinput" | "audiooutput";

export interface Device {
  readonly id: string;
  readonly kind: DeviceKind;
  readonly label: string;
}

/** Cameras, microphones and loudspeakers, and the words for what goes wrong with them. */
export class Devices {
  constructor(private readonly platform: Platform) {}

  /** The devices there are. Their labels are known once one of their kind was used. */
  async list(): Promise<Device[]> {
    const found = (await this.platform.mediaDevices()?.enumerateDevices()) ?? [];
    return found
      .filter((device) => device.deviceId !== "communications")
      .map((device) => ({
        id: device.deviceId,
        kind: device.kind,
        label: device.label || fallbackLabels[device.kind],
      }));
  }

  onChange(listener: () => void): () => void {
    const media = this.platform.mediaDevices();
    media?.addEventListener("devicechange", listener);
    return () => media?.removeEventListener("devicechange", listener);
  }

  /** Captures one camera or microphone; a device that is gone is replaced by the default one. */
  async capture(kind: "audio" | "video", constraints: MediaTrackConstraints): Promise<MediaStreamTrack> {
    const media = this.require();
    const ask = (c: MediaTrackConstraints): Promise<MediaStream> => media.getUserMedia({ [kind]: c });
    let stream: MediaStream;
    try {
      stream = await ask(constraints);
    } catch (thrown) {
      if (!isNamed(thrown, "OverconstrainedError")) throw captureError(thrown, kind);
      const { deviceId: _gone, ...rest } = constraints;
      try {
        stream = await ask(rest);
      } catch (again) {
        throw captureError(again, kind);
      }
    }
    return stream.getTracks()[0]!;
  }

  /** Captures a screen, window or tab, with its sound where the browser offers it. */
  async captureScreen(options: DisplayMediaStreamOptions): Promise<MediaStreamTrack[]> {
    const media = this.require();
    if (!media.getDisplayMedia) throw new AmphiError("unsupported", "this browser cannot share the screen");
    try {
      return (await media.getDisplayMedia(options)).getTracks();
    } catch (thrown) {
      if (isNamed(thrown, "NotAllowedError") && !/system/i.test((thrown as Error).message)) {
        throw new AmphiError("capture_cancelled", "no screen was chosen", true);
      }
      throw captureError(thrown, "video");
    }
  }

  private require(): MediaDevices {
    const media = this.platform.mediaDevices();
    if (media) return media;
    throw new AmphiError("insecure_context", "browsers give camera and microphone to secure pages (https) only");
  }
}

const fallbackLabels: Readonly<Record<DeviceKind, string>> = {
  audioinput: "Microphone",
  videoinput: "Camera",
  audiooutput: "Loudspeaker",
};

function isNamed(thrown: unknown, name: string): boolean {
  return thrown instanceof Error && thrown.name === name;
}

/** What getUserMedia threw, with a code. */
export function captureError(thrown: unknown, kind: "audio" | "video"): AmphiError {
  if (thrown instanceof AmphiError) return thrown;
  const device = kind === "audio" ? "microphone" : "camera";
  const name = thrown instanceof Error ? thrown.name : "";
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  switch (name) {
    case "NotAllowedError":
    case "SecurityError":
      return /system/i.test(message)
        ? new AmphiError("device_denied_by_system", `the operating system refuses the ${device}`, true)
        : new AmphiError("device_denied", `permission to use the ${device} was refused`, true);
    case "NotFoundError":
    case "OverconstrainedError":
      return new AmphiError("device_not_found", `no ${device} was found`, true);
    case "NotReadableError":
    case "AbortError":
      return new AmphiError("device_in_use", `the ${device} cannot be started; another program may be using it`, true);
    default:
      return new AmphiError("device_failed", `the ${device} failed: ${message}`, true);
  }
}

/**
 * Reports the loudness of a captured track, 0 to 1, about ten times a second, until the returned function is called.
 */
export function meterLevel(track: MediaStreamTrack, report: (level: number) => void): () => void {
  const context = new AudioContext();
  const analyser = context.createAnalyser();
  analyser.fftSize = 1024;
  context.createMediaStreamSource(new MediaStream([track])).connect(analyser);
  const samples = new Float32Array(analyser.fftSize);
  const timer = setInterval(() => {
    if (context.state === "suspended") void context.resume().catch(() => undefined);
    analyser.getFloatTimeDomainData(samples);
    const power = samples.reduce((sum, s) => sum + s * s, 0) / samples.length;
    const decibels = 10 * Math.log10(power + 1e-9);
    report(Math.min(1, Math.max(0, (decibels + 60) / 50)));
  }, 100);
  return () => {
    clearInterval(timer);
    void context.close();
  };
}

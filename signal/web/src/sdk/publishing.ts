// What a role's parameters mean for capture and for RTCRtpSender: pure.
import type { Kind, Role, SimulcastLayer, Source, VideoParams } from "./model.js";

// A layer below this height is not worth its packets. Nor does Chromium send as many as are asked for of a small
// picture (two below 960 × 540, one below 480 × 270), and what it leaves out is the best one.
const minLayerHeight = 130;

export function kindOf(source: Source, media?: MediaStreamTrack): Kind {
  if (media) return media.kind === "audio" ? "audio" : "video";
  return source === "mic" || source === "screen-audio" ? "audio" : "video";
}

export function mayPublish(role: Role | undefined, source: Source, kind: Kind): boolean {
  if (!role) return false;
  if (source === "screen" || source === "screen-audio") return role.publish.screen;
  return kind === "audio" ? role.publish.audio : role.publish.video;
}

/** Whether a role needs an RTCPeerConnection at all. */
export function needsTransport(role: Role | undefined): boolean {
  if (!role) return false;
  const { audio, video, screen } = role.publish;
  return audio || video || screen || role.subscribe.delivery === "webrtc";
}

export function videoParamsFor(role: Role | undefined, source: Source): VideoParams | undefined {
  return source === "screen" ? role?.publish.screenParams : role?.publish.videoParams;
}

/** The height of a 16:9 picture with as many pixels; 0 when the size is not known. */
export function fullHeight(media: MediaStreamTrack | null): number {
  const { width = 0, height = 0 } = media?.getSettings() ?? {};
  return Math.sqrt((width * height * 9) / 16);
}

/** The role's simulcast layers that a picture of this height has a use for, lowest first. */
export function layersFor(params: VideoParams | undefined, height: number): SimulcastLayer[] {
  const layers = [...(params?.layers ?? [])].sort((a, b) => b.scaleDownBy - a.scaleDownBy);
  const kept = layers.filter((layer) => !height || height / (layer.scaleDownBy || 1) >= minLayerHeight);
  return kept.length > 0 ? kept : layers.slice(-1);
}

type Encoding = RTCRtpEncodingParameters & { scalabilityMode?: string };

interface Negotiable {
  getHeaderExtensionsToNegotiate?(): { uri: string; direction: string }[];
  setHeaderExtensionsToNegotiate?(extensions: { uri: string; direction: string }[]): void;
}

/** Offers to say in the clear which layers frames belong to, where the browser does not by itself. */
export function withLayers(transceiver: RTCRtpTransceiver): RTCRtpTransceiver {
  const t = transceiver as Negotiable;
  const offered = t.getHeaderExtensionsToNegotiate?.() ?? [];
  const descriptor = offered.find(({ uri }) => uri.includes("#dependency-descriptor"));
  if (descriptor) {
    descriptor.direction = "sendrecv";
    t.setHeaderExtensionsToNegotiate?.(offered);
  }
  return transceiver;
}

// Without a mode Chromium takes several encodings of these codecs for spatial layers of one stream.
const modeOfSeveral = (codec: string | undefined): string | undefined => (/^(vp9|av1)$/i.test(codec ?? "") ? "L1T3" : undefined);

/** Whether a scalability mode has several spatial layers in one encoding. */
export const manyInOne = (mode: string | undefined): boolean => /^[LS][2-9]/.test(mode ?? "");

/**
 * The encodings of a video sender, in the order that the browser wants: Chromium and Safari number them from the
 * lowest, Firefox from the highest. The RIDs say which is which either way.
 */
export function videoEncodings(
  params: VideoParams | undefined,
  height: number,
  highestFirst: boolean,
  { scalabilityMode, codec }: { scalabilityMode?: string; codec?: string } = {},
): Encoding[] {
  const layers = layersFor(params, height);
  if (layers.length < 2 || manyInOne(scalabilityMode)) {
    const only = layers.at(-1);
    const bitrate = only?.maxBitrateKbps || params?.bitrateKbps || 0;
    return [encoding(bitrate, only?.maxFramerate || params?.framerate || 0, scalabilityMode)];
  }
  const mode = scalabilityMode ?? modeOfSeveral(codec ?? params?.codecs[0]);
  const encodings = layers.map((layer) => ({
    ...encoding(layer.maxBitrateKbps, layer.maxFramerate, mode),
    rid: layer.rid,
    scaleResolutionDownBy: layer.scaleDownBy || 1,
  }));
  return highestFirst ? encodings.reverse() : encodings;
}

function encoding(kbps: number, framerate: number, scalabilityMode?: string): Encoding {
  return {
    active: true,
    ...(scalabilityMode ? { scalabilityMode } : {}),
    ...(kbps > 0 ? { maxBitrate: kbps * 1000 } : {}),
    ...(framerate > 0 ? { maxFramerate: framerate } : {}),
  };
}

/**
 * Which encodings should be sent when layers up to `maxSpatial` are wanted (0 lowest, -1 none). The encodings may be
 * in either order.
 */
export function activeEncodings(encodings: readonly RTCRtpEncodingParameters[], maxSpatial: number): boolean[] {
  const scales = encodings.map((e) => e.scaleResolutionDownBy ?? 1);
  return scales.map((scale) => scales.filter((other) => other > scale).length <= maxSpatial);
}

/** The codec chosen and those that a role wants, best first, then what belongs to them (retransmission, redundancy). */
export function preferCodecs<C extends { mimeType: string }>(
  codecs: readonly C[],
  wanted: readonly string[],
  chosen = "",
): C[] {
  const order = [chosen, ...(wanted.length > 0 ? wanted : ["vp8", "h264"])];
  const rank = (codec: C): number => order.indexOf(codec.mimeType.split("/")[1]!.toLowerCase());
  const media = codecs.filter((codec) => rank(codec) >= 0).sort((a, b) => rank(a) - rank(b));
  const auxiliary = codecs.filter((codec) => /\/(rtx|red|ulpfec|flexfec-03)$/i.test(codec.mimeType));
  return media.length > 0 ? [...media, ...auxiliary] : [...codecs];
}

/** Constraints for a camera. */
export function cameraConstraints(params: VideoParams | undefined, deviceId: string | undefined): MediaTrackConstraints {
  return {
    ...(deviceId ? { deviceId: { exact: deviceId } } : {}),
    width: { ideal: params?.width || 1280 },
    height: { ideal: params?.height || 720 },
    frameRate: { ideal: params?.framerate || 30 },
  };
}

export function micConstraints(deviceId: string | undefined): MediaTrackConstraints {
  return {
    ...(deviceId ? { deviceId: { exact: deviceId } } : {}),
    echoCancellation: true,
    noiseSuppression: true,
    autoGainControl: true,
  };
}

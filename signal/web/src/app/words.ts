import { AmphiError } from "@amphi/sdk";
import type { LayoutKind, Role, Source, TrackQuality } from "@amphi/sdk";

export interface Words {
  readonly title: string;
  readonly text: string;
}

// What to tell people, by code. What is missing here falls back to the server's own message.
const byCode: Readonly<Record<string, Words>> = {
  code_unknown: { title: "This link does not work", text: "No room has this code. Ask whoever sent you the link for a new one." },
  code_disabled: { title: "This link was switched off", text: "The organisers have disabled it. Ask them for a new one." },
  unauthenticated: { title: "This link is not valid", text: "The server does not accept it. Ask for a new one." },
  token_expired: { title: "This link has expired", text: "Ask for a new one, or open the original link again." },
  not_found: { title: "There is no such room", text: "It may have been deleted." },
  room_disabled: { title: "The room is closed", text: "The organisers have disabled it for now." },
  room_locked: { title: "The room is locked", text: "Nobody else can come in at the moment." },
  room_full: { title: "The room is full", text: "It has as many people as it can take. Try again in a little while." },
  role_full: { title: "All places are taken", text: "As many people as possible have this role already. Try again in a little while." },
  room_ended: { title: "The room has ended", text: "Thank you for being here." },
  removed: { title: "You were removed from the room", text: "Somebody who runs the room has removed you." },
  banned: { title: "You cannot join this room", text: "Somebody who runs the room has removed you from this session." },
  replaced: { title: "You are in this room in another tab", text: "The connection moved there. Only one of them can stay." },
  left: { title: "You left the room", text: "You can come back with the same link." },
  connection_lost: { title: "The connection was lost", text: "The server could not be reached for a minute. Check your network and try again." },
  server_unreachable: { title: "The server cannot be reached", text: "Check your network. The server may also be restarting." },
  client_timeout: { title: "The connection was lost", text: "Nothing was heard from this browser for too long." },
  slow_client: { title: "Your connection is too slow", text: "The room's messages could not be delivered fast enough." },
  rate_limited: { title: "Too many requests", text: "Wait a moment and try again." },
  shutdown: { title: "The server is restarting", text: "Try again in a moment." },
  unavailable: { title: "The server is busy", text: "Try again in a moment." },
  timeout: { title: "The server did not answer", text: "Try again in a moment." },
  permission_denied: { title: "Your role does not allow this", text: "Ask whoever runs the room." },
  chat_paused: { title: "Chat is paused", text: "It was paused for everybody." },
  chat_blocked: { title: "You cannot chat", text: "Somebody who runs the room has blocked your messages." },
  message_too_large: { title: "That is too long", text: "Shorten it and try again." },
  stream_failed: { title: "The live stream failed", text: "It is being started again." },
  output_failed: { title: "A recording or a push failed", text: "" },
  encrypted_room: { title: "Not in an encrypted room", text: "This room is end-to-end encrypted: the server cannot see or hear it, so it cannot stream it." },
  encryption_required: { title: "This room is encrypted", text: "Join again with the passphrase, or with the whole link." },
  missing_key: { title: "Somebody uses another key", text: "You cannot see or hear them. Check that everybody has the same passphrase or link." },
  decryption_failed: { title: "Somebody uses another key", text: "You cannot see or hear them. Check that everybody has the same passphrase or link." },
  not_encrypted: { title: "Somebody does not encrypt", text: "You cannot see or hear them, because what they send could be seen by the server." },
  wrong_sender: { title: "Media was held back", text: "It was encrypted by somebody else than it claims to be from." },
  limit_exceeded: { title: "A limit of the room is reached", text: "" },
  insecure_context: { title: "Camera and microphone need a secure page", text: "Browsers offer them on https pages (and on localhost) only. You can join without them." },
  device_denied_by_system: { title: "Your computer blocks it", text: "Allow this browser to use camera and microphone in the system's privacy settings." },
  capture_cancelled: { title: "Nothing is shared", text: "No screen was chosen." },
  unsupported: { title: "Not possible in this browser", text: "Try a current desktop browser." },
  media_failed: { title: "Audio and video failed", text: "Your network may block them." },
};

const devices: Readonly<Record<string, (device: string) => Words>> = {
  device_denied: (device) => ({
    title: `No permission for the ${device}`,
    text: "Allow it with the camera sign in the address bar, then try again.",
  }),
  device_not_found: (device) => ({ title: `No ${device} found`, text: "Plug one in, or go on without." }),
  device_in_use: (device) => ({
    title: `The ${device} is in use`,
    text: "Another program has it. Close that and try again.",
  }),
  device_failed: (device) => ({ title: `The ${device} does not work`, text: "Unplug it and plug it in again." }),
};

/** An error in words that help, for the source that it is about. */
export function wordsFor(error: AmphiError, source: Source = ""): Words {
  const device = devices[error.code];
  if (device) return device(source === "mic" ? "microphone" : source === "camera" ? "camera" : "screen");
  return byCode[error.code] ?? { title: "That did not work", text: sentence(error.message) };
}

export function sentence(text: string): string {
  if (!text) return "";
  const first = text[0]!.toUpperCase() + text.slice(1);
  return /[.!?]$/.test(first) ? first : first + ".";
}

export const sourceNames: Readonly<Record<string, string>> = {
  mic: "microphone",
  camera: "camera",
  screen: "screen",
  "screen-audio": "screen sound",
};

export const layoutNames: Readonly<Record<LayoutKind, string>> = {
  auto: "Automatic",
  grid: "Grid",
  "active-speaker": "Active speaker",
  screen: "Shared screen",
  single: "One person",
  "picture-in-picture": "Picture in picture",
};

/** What a role lets its peers do, in a line. */
export function roleInWords(role: Role): string {
  const { audio, video, screen } = role.publish;
  if (audio || video) return `You can use your ${[audio && "microphone", video && "camera"].filter(Boolean).join(" and ")}.`;
  if (screen) return "You can share your screen.";
  if (role.subscribe.delivery === "hls") return "You watch the live stream.";
  if (role.subscribe.delivery === "webrtc") return "You watch in real time.";
  return "You wait here until somebody lets you in.";
}

/** Why a received picture is as good as it is, for every `TrackQuality.reason`; `shown` is whether people should see it. */
const qualityWords: Readonly<Record<string, { text: string; shown?: boolean }>> = {
  "": { text: "Best quality" },
  size: { text: "As good as its size needs" },
  preference: { text: "As good as you asked for" },
  hidden: { text: "Paused while it is not shown" },
  muted: { text: "Muted" },
  not_loudest: { text: "Not heard while others speak" },
  starting: { text: "Starting" },
  bandwidth: { text: "Lower quality: your connection", shown: true },
  publisher: { text: "Lower quality: the sender’s connection", shown: true },
  codec: { text: "This browser cannot decode the picture", shown: true },
  codec_layers: { text: "Lower quality: this browser cannot take more of this codec", shown: true },
};

/** What to tell people about a picture's quality; undefined when it is as it should be. */
export function qualityInWords(quality: TrackQuality | undefined): string | undefined {
  const words = qualityWords[quality?.reason ?? ""];
  if (!words?.shown) return undefined;
  const nothing = (quality?.current ?? -1) < 0;
  if (nothing && quality?.reason === "bandwidth") return "Paused: your connection is too slow";
  if (nothing && quality?.reason === "publisher") return "Nothing comes from the sender";
  return words.text;
}

/** The same for those who point at it, whatever the reason. */
export const reasonInWords = (reason: string): string => qualityWords[reason]?.text ?? reason;

export const clock = (ms: number): string => new Date(ms).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });

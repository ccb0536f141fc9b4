// Own drawings on a 24 × 24 grid, stroked with the colour of the text.
const paths = {
  mic: "M12 3.5a3 3 0 0 1 3 3v5a3 3 0 0 1-6 0v-5a3 3 0 0 1 3-3ZM5.5 11.5a6.5 6.5 0 0 0 13 0M12 18v3",
  micOff:
    "M4 4l16 16M9 9v2.5a3 3 0 0 0 4.6 2.5M15 12V6.5a3 3 0 0 0-5.7-1.3M5.5 11.5A6.5 6.5 0 0 0 16.2 16.5M18.5 11.5c0 .8-.1 1.5-.4 2.2M12 18v3",
  camera: "M3.5 7.5h11v9h-11zM14.5 11l6-3.5v9l-6-3.5",
  cameraOff: "M4 4l16 16M10 7.5h4.5V12M14.5 14v2.5h-11v-9H6M14.5 11l6-3.5v9l-3-1.7",
  screen: "M3.5 5h17v11h-17zM9 20h6M12 16v4M12 13V8.5M9.5 10.5 12 8l2.5 2.5",
  screenOff: "M3.5 5h17v11h-17zM9 20h6M12 16v4M9.5 8.2l5 5M14.5 8.2l-5 5",
  hand: "M8 12.5V6a1.4 1.4 0 0 1 2.8 0v4.5V4.4a1.4 1.4 0 0 1 2.8 0v6.1V5.6a1.4 1.4 0 0 1 2.8 0v8.1c0 3.9-2.4 6.8-6 6.8-2.7 0-4.2-1.2-5.5-3.5L3.3 14c-.9-1.6 1.2-2.9 2.4-1.5L8 15",
  smile: "M12 3.5a8.5 8.5 0 1 1 0 17 8.5 8.5 0 0 1 0-17ZM8.5 14a4.2 4.2 0 0 0 7 0M9 9.5v.6M15 9.5v.6",
  chat: "M4 5.5h16v11h-8.5L7 20v-3.5H4z",
  people:
    "M9 5a3.2 3.2 0 1 1 0 6.4A3.2 3.2 0 0 1 9 5ZM3 19.5c.3-3.5 2.7-5.5 6-5.5s5.7 2 6 5.5M15.5 5.3a3.1 3.1 0 0 1 0 5.9M17.3 14.5c2.2.7 3.5 2.5 3.7 5",
  live: "M12 10.5a1.5 1.5 0 1 1 0 3 1.5 1.5 0 0 1 0-3ZM8.5 15.5a5 5 0 0 1 0-7M15.5 15.5a5 5 0 0 0 0-7M5.7 18.3a9 9 0 0 1 0-12.6M18.3 18.3a9 9 0 0 0 0-12.6",
  record: "M12 3.5a8.5 8.5 0 1 1 0 17 8.5 8.5 0 0 1 0-17ZM12 9a3 3 0 1 1 0 6 3 3 0 0 1 0-6Z",
  stop: "M12 3.5a8.5 8.5 0 1 1 0 17 8.5 8.5 0 0 1 0-17ZM9 9h6v6H9z",
  leave: "M10 4.5H5v15h5M9.5 12H20M16.5 8l4 4-4 4",
  more: "M5.5 12h.01M12 12h.01M18.5 12h.01",
  settings:
    "M12 9a3 3 0 1 1 0 6 3 3 0 0 1 0-6ZM12 3.5v2.4M12 18.1v2.4M4.6 7.7l2.1 1.2M17.3 15.1l2.1 1.2M4.6 16.3l2.1-1.2M17.3 8.9l2.1-1.2",
  close: "M6 6l12 12M18 6 6 18",
  send: "M4.5 12h15M13 5.5l6.5 6.5-6.5 6.5",
  pin: "M9 4h6l-.7 6 3.2 3.5h-11L9.7 10zM12 13.5V20",
  check: "M5 12.5l4.5 4.5L19 7.5",
  left: "M14.5 6 8.5 12l6 6",
  right: "M9.5 6l6 6-6 6",
  play: "M8 5.5v13l10.5-6.5z",
  pause: "M8.5 5.5v13M15.5 5.5v13",
  captions: "M3.5 5.5h17v13h-17zM10.5 10.4a2.2 2.2 0 1 0 0 3.2M17 10.4a2.2 2.2 0 1 0 0 3.2",
  down: "M6 9.5l6 6 6-6",
  expand: "M4.5 9V4.5H9M15 4.5h4.5V9M19.5 15v4.5H15M9 19.5H4.5V15",
  shrink: "M9 4.5V9H4.5M19.5 9H15V4.5M15 19.5V15h4.5M4.5 15H9v4.5",
  sound: "M4.5 9.5h3.5l4.5-4v13l-4.5-4H4.5zM16 9a4.2 4.2 0 0 1 0 6M18.5 6.5a7.8 7.8 0 0 1 0 11",
  soundOff: "M4.5 9.5h3.5l4.5-4v13l-4.5-4H4.5zM16 9.5l5 5M21 9.5l-5 5",
  sun: "M12 8a4 4 0 1 1 0 8 4 4 0 0 1 0-8ZM12 2.5v2M12 19.5v2M2.5 12h2M19.5 12h2M5.3 5.3l1.4 1.4M17.3 17.3l1.4 1.4M5.3 18.7l1.4-1.4M17.3 6.7l1.4-1.4",
  moon: "M19.5 14.2A8 8 0 0 1 9.8 4.5a8 8 0 1 0 9.7 9.7Z",
  lock: "M6 10.5h12v9H6zM8.5 10.5V8a3.5 3.5 0 0 1 7 0v2.5",
  warning: "M12 4.5 21 19.5H3zM12 10.5v4M12 17v.01",
  info: "M12 3.5a8.5 8.5 0 1 1 0 17 8.5 8.5 0 0 1 0-17ZM12 11v5M12 8v.01",
  search: "M10.5 4.5a6 6 0 1 1 0 12 6 6 0 0 1 0-12ZM15 15l5 5",
  stageUp: "M4 19.5h16M12 15.5V5M7.5 9.5 12 5l4.5 4.5",
  stageDown: "M4 19.5h16M12 4.5V15M7.5 10.5 12 15l4.5-4.5",
  signal: "M5 19v-4M12 19v-9M19 19V5",
  keyboard: "M3.5 6.5h17v11h-17zM7 10h.01M10.5 10h.01M14 10h.01M17.5 10h.01M8 14h8",
} as const;

export type IconName = keyof typeof paths;

export function Icon({ name, size = 20 }: { name: IconName; size?: number }) {
  return (
    <svg
      class="icon"
      width={size}
      height={size}
      viewBox="0 0 24 24"
      fill="none"
      stroke="currentColor"
      stroke-width={name === "more" ? 2.6 : 1.7}
      stroke-linecap="round"
      stroke-linejoin="round"
      aria-hidden="true"
    >
      <path d={paths[name]} />
    </svg>
  );
}

/** Amphi's sign: the three circles seen from the top row. */
export function Logo({ size = 24 }: { size?: number }) {
  return (
    <svg width={size} height={size} viewBox="0 0 32 32" aria-hidden="true" class="logo">
      <rect width="32" height="32" rx="8" fill="var(--accent)" />
      <g fill="none" stroke="var(--on-accent)" stroke-linecap="round" stroke-width="2.4">
        <path d="M5.5 12a10.5 10.5 0 0 0 21 0" />
        <path d="M10 12a6 6 0 0 0 12 0" opacity=".8" />
      </g>
      <circle cx="16" cy="12" r="2.2" fill="var(--on-accent)" />
    </svg>
  );
}

import { render } from "preact";
import { Room } from "@amphi/sdk";
import type { PathOptions } from "@amphi/sdk";
import { App } from "./app.js";
import { announceToParent } from "./embed.js";
import type { AppSession } from "./session.js";
import { startTheme } from "./theme.js";
import { visitorId } from "./visitor.js";
import "./app.css";

declare global {
  interface Window {
    /** For the console and for tests. */
    amphi?: { room: Room };
  }
}

const [, kind = "m", code = ""] = location.pathname.split("/");
const embedded = kind === "embed";

function open(): AppSession {
  // `?region=` asks for the nodes of a region.
  const region = new URLSearchParams(location.search).get("region") ?? "";
  const room = new Room({ code, userId: visitorId(), ...pathOptions(), region });
  window.amphi = { room };
  if (embedded) announceToParent(room);
  return { room, code, embedded };
}

/** `?path=relay` and `?path=tcp` try what a network that lets nothing else through would do. */
function pathOptions(): PathOptions {
  const path = new URLSearchParams(location.search).get("path");
  return { iceTransportPolicy: path === "relay" ? "relay" : "all", tcpOnly: path === "tcp" };
}

startTheme();
render(<App open={open} />, document.getElementById("app")!);

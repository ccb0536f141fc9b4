/** How media may travel. By default whatever works, the fastest first. */
export interface PathOptions {
  /** `relay`: over the node's TURN server only. */
  readonly iceTransportPolicy?: RTCIceTransportPolicy;
  /** Over TCP only, as on networks that do not pass UDP: for trying that. */
  readonly tcpOnly?: boolean;
}

/**
 * What RTCPeerConnections are told about ways to the node. Its own address, over UDP or TCP, serves nearly everybody:
 * relays, which cost the node and the browser something even when unused, come in once they are needed.
 */
export class Path {
  private relays: boolean;

  constructor(
    private readonly options: PathOptions,
    private readonly servers: () => readonly RTCIceServer[],
  ) {
    this.relays = options.iceTransportPolicy === "relay";
  }

  configuration(): RTCConfiguration {
    const { iceTransportPolicy = "all", tcpOnly } = this.options;
    const iceServers = this.relays ? this.servers().map((server) => (tcpOnly ? overTcp(server) : { ...server })) : [];
    return { iceServers, iceTransportPolicy, bundlePolicy: "max-bundle" };
  }

  /** Lets `pc` use relays, with the newest credentials, from its next ICE restart on, and all later ones at once. False when there is nothing new. */
  addRelays(pc: RTCPeerConnection): boolean {
    const before = this.relays;
    this.relays = this.servers().length > 0;
    const now = this.configuration();
    const has = pc.getConfiguration().iceServers?.[0]?.username;
    if (!this.relays || has === now.iceServers?.[0]?.username) return this.relays !== before;
    pc.setConfiguration(now);
    return true;
  }

  /** The server's answer, without the ways that are not to be tried. */
  answer(sdp: string): string {
    if (!this.options.tcpOnly) return sdp;
    return sdp
      .split("\r\n")
      .filter((line) => !/^a=candidate:\S+ \d+ udp /i.test(line))
      .join("\r\n");
  }
}

function overTcp(server: RTCIceServer): RTCIceServer {
  const urls = typeof server.urls === "string" ? [server.urls] : server.urls;
  return { ...server, urls: urls.filter((url) => url.endsWith("transport=tcp")) };
}

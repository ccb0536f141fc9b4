// A client of our own on the JSON subprotocol: for what the app would never try.
import WebSocket from "ws";

export class RawClient {
  /** Connects with a room code, says hello and joins. */
  static async join(url, link, name) {
    const code = link.split("/").at(-1);
    const answer = await fetch(url + "/v1/token", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ code }),
    });
    const { token } = await answer.json();
    const client = new RawClient();
    client.answers = new Map();
    client.events = [];
    client.next = 1;
    client.socket = new WebSocket(url.replace("http", "ws") + "/v1/signal", ["amphi.v1.json"]);
    await new Promise((resolve, reject) => client.socket.once("open", resolve).once("error", reject));
    client.socket.on("message", (data) => client.take(JSON.parse(String(data))));
    client.socket.on("close", (code) => {
      for (const { reject } of client.answers.values()) reject(new Error("closed with " + code));
    });
    await client.request({ hello: { token } });
    const { joined } = await client.request({ command: { join: { name } } });
    client.peerId = joined.peerId;
    return client;
  }

  take(message) {
    const [body] = Object.values(message);
    const waiting = this.answers.get(body?.requestId);
    if (!waiting) return void this.events.push(message);
    this.answers.delete(body.requestId);
    waiting.resolve(message);
  }

  request(body) {
    const id = this.next++;
    return new Promise((resolve, reject) => {
      this.answers.set(id, { resolve, reject });
      this.socket.send(JSON.stringify({ id, ...body }));
    });
  }

  /** Sends a command; answers the error's code, "" if it was done. */
  async refusal(command) {
    const { answer } = await this.request({ command });
    return answer?.error?.code ?? answer?.result?.error?.code ?? "";
  }

  async leave() {
    await this.request({ command: { leave: {} } });
    this.socket.close();
  }
}

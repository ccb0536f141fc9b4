import { useEffect, useRef, useState } from "preact/hooks";
import { ownRole, roleNamed, selfOf } from "@amphi/sdk";
import type { Message, RoomState, SendOptions } from "@amphi/sdk";
import { Icon } from "./icons.js";
import { attempt, warn } from "./notices.js";
import { useRoom, useRoomState } from "./session.js";
import { Avatar, IconButton, Menu } from "./ui.js";
import type { MenuItem } from "./ui.js";
import { clock } from "./words.js";

const maxBytes = 4_096;
// Messages of one sender within this time share a heading.
const togetherMs = 120_000;
const nearEndPx = 80;

export function ChatPanel({ close }: { close: () => void }) {
  const messages = useRoomState((state) => state.messages);
  const pinned = messages.filter((message) => message.pinned);
  const paused = useRoomState((state) => state.chatPaused);
  const room = useRoom();
  const moderates = useRoomState((state) => ownRole(state)?.permissions.moderateChat ?? false);
  return (
    <aside class="panel" aria-label="Chat" data-testid="chat-panel">
      <header class="panel-head">
        <h2>Chat</h2>
        {moderates && (
          <Menu
            label="Chat settings"
            icon="more"
            items={[
              {
                label: paused ? "Let everybody chat again" : "Pause the chat",
                icon: "chat",
                testid: "chat-pause",
                act: () => attempt(room.chat.pause(!paused)),
              },
            ]}
          />
        )}
        <IconButton icon="close" label="Close the chat" onClick={close} />
      </header>
      {pinned.length > 0 && (
        <ul class="pinned" aria-label="Pinned messages">
          {pinned.slice(-3).map((message) => (
            <li key={message.id} data-testid="chat-pinned">
              <Icon name="pin" size={16} />
              <span>
                <strong>{message.senderName}</strong> {message.text}
              </span>
              {moderates && (
                <IconButton icon="close" label="Unpin" onClick={() => attempt(room.chat.unpin(message.id))} />
              )}
            </li>
          ))}
        </ul>
      )}
      <Messages messages={messages} />
      <Composer />
    </aside>
  );
}

function Messages({ messages }: { messages: readonly Message[] }) {
  const list = useRef<HTMLOListElement>(null);
  const atEnd = useRef(true);
  const [below, setBelow] = useState(false);
  const toEnd = (): void => list.current?.scrollTo({ top: list.current.scrollHeight });
  useEffect(() => {
    if (atEnd.current) toEnd();
    else setBelow(true);
  }, [messages]);
  return (
    <div class="messages-box">
      <ol
        class="messages"
        ref={list}
        tabIndex={0}
        role="log"
        aria-label="Messages"
        onScroll={(event) => {
          const { scrollHeight, scrollTop, clientHeight } = event.currentTarget;
          atEnd.current = scrollHeight - scrollTop - clientHeight < nearEndPx;
          if (atEnd.current) setBelow(false);
        }}
      >
        {messages.length === 0 && (
          <li class="empty">
            <Icon name="chat" size={28} />
            <p>Nothing was said yet.</p>
          </li>
        )}
        {messages.map((message, i) => (
          <ChatMessage key={message.id} message={message} before={messages[i - 1]} />
        ))}
      </ol>
      {below && (
        <button type="button" class="new-messages" onClick={toEnd}>
          <Icon name="down" size={16} /> New messages
        </button>
      )}
    </div>
  );
}

function ChatMessage({ message, before }: { message: Message; before: Message | undefined }) {
  const self = useRoomState((state) => state.selfId === message.sender);
  const to = useRoomState((state) => addressed(state, message));
  const follows =
    before?.sender === message.sender && message.timeMs - before.timeMs < togetherMs && !to && isPublic(before);
  return (
    <li
      class={`message ${follows ? "follows" : ""} ${self ? "own" : ""} ${to ? "private" : ""}`}
      data-testid="chat-message"
      data-id={message.id}
      data-sender={message.sender}
    >
      {!follows && (
        <div class="message-head">
          <Avatar name={message.senderName || "?"} id={message.sender} size={24} />
          <strong>{self ? "You" : message.senderName}</strong>
          {to && <span class="message-to">{to}</span>}
          <time>{clock(message.timeMs)}</time>
        </div>
      )}
      <div class="message-body">
        <p data-testid="chat-text">{withLinks(message.text)}</p>
        <MessageMenu message={message} />
      </div>
    </li>
  );
}

function MessageMenu({ message }: { message: Message }) {
  const room = useRoom();
  const moderates = useRoomState((state) => ownRole(state)?.permissions.moderateChat ?? false);
  const sender = useRoomState((state) => state.peers.get(message.sender));
  const self = useRoomState((state) => state.selfId === message.sender);
  const items: MenuItem[] = [
    { label: "Copy", act: () => void navigator.clipboard?.writeText(message.text) },
  ];
  if (moderates) {
    items.push(
      message.pinned
        ? { label: "Unpin", icon: "pin", act: () => attempt(room.chat.unpin(message.id)) }
        : { label: "Pin", icon: "pin", testid: "chat-pin", act: () => attempt(room.chat.pin(message.id)) },
      { label: "Hide for everybody", icon: "close", testid: "chat-hide", act: () => attempt(room.chat.hide(message.id)) },
    );
    if (sender && !self) {
      const blocked = sender.chatBlocked;
      items.push({
        label: blocked ? `Let ${sender.name} chat again` : `Block ${sender.name}’s messages`,
        danger: !blocked,
        testid: "chat-block",
        act: () => attempt(room.chat.block(sender.id, !blocked)),
      });
    }
  }
  return <Menu label="Message actions" icon="more" items={items} buttonClass="icon-button small message-menu" />;
}

function Composer() {
  const room = useRoom();
  const [text, setText] = useState("");
  const [to, setTo] = useState("");
  const [sending, setSending] = useState(false);
  const input = useRef<HTMLTextAreaElement>(null);
  const role = useRoomState(ownRole);
  const refusal = useRoomState(whyNotChat);
  const may = role?.permissions;
  const bytes = new TextEncoder().encode(text).length;

  const send = async (): Promise<void> => {
    const said = text.trim();
    if (!said || sending || bytes > maxBytes) return;
    setSending(true);
    try {
      await room.chat.send(said, recipients(to));
      setText("");
    } catch (thrown) {
      warn(thrown); // the text stays, to be sent again
    } finally {
      setSending(false);
      input.current?.focus();
    }
  };

  if (!may?.sendBroadcast && !may?.sendToRoles && !may?.sendDirect) return null;
  if (refusal) return <p class="composer-refusal" data-testid="chat-refusal">{refusal}</p>;
  return (
    <form
      class="composer"
      onSubmit={(event) => {
        event.preventDefault();
        void send();
      }}
    >
      {(may.sendToRoles || may.sendDirect) && <RecipientSelect value={to} choose={setTo} />}
      <div class="composer-row">
        <textarea
          ref={input}
          rows={1}
          value={text}
          placeholder="Send a message"
          aria-label="Message"
          enterkeyhint="send"
          data-testid="chat-input"
          onInput={(event) => setText(event.currentTarget.value)}
          onKeyDown={(event) => {
            if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
            event.preventDefault();
            void send();
          }}
        />
        <button type="submit" class="icon-button send" aria-label="Send" title="Send" disabled={!text.trim() || sending || bytes > maxBytes} data-testid="chat-send">
          <Icon name="send" />
        </button>
      </div>
      {bytes > maxBytes * 0.9 && <small class={bytes > maxBytes ? "too-long" : ""}>{maxBytes - bytes} bytes left</small>}
    </form>
  );
}

function RecipientSelect({ value, choose }: { value: string; choose: (value: string) => void }) {
  const may = useRoomState((state) => ownRole(state)?.permissions);
  const roles = useRoomState((state) => state.template?.roles ?? []);
  const peers = useRoomState((state) => [...state.peers.values()].filter((peer) => peer.id !== state.selfId));
  const gone = value.startsWith("peer:") && !peers.some((peer) => "peer:" + peer.id === value);
  useEffect(() => {
    if (gone) choose("");
  }, [gone]);
  return (
    <label class="recipients">
      <span>To</span>
      <select value={value} data-testid="chat-to" onChange={(event) => choose(event.currentTarget.value)}>
        {may?.sendBroadcast && <option value="">Everybody</option>}
        {may?.sendToRoles && (
          <optgroup label="Roles">
            {roles.map((role) => (
              <option key={role.name} value={"role:" + role.name}>
                {role.title}
              </option>
            ))}
          </optgroup>
        )}
        {may?.sendDirect && peers.length > 0 && (
          <optgroup label="Only to">
            {peers.map((peer) => (
              <option key={peer.id} value={"peer:" + peer.id}>
                {peer.name}
              </option>
            ))}
          </optgroup>
        )}
      </select>
    </label>
  );
}

function recipients(to: string): SendOptions {
  if (to.startsWith("role:")) return { roles: [to.slice(5)] };
  if (to.startsWith("peer:")) return { peers: [to.slice(5)] };
  return {};
}

function whyNotChat(state: RoomState): string {
  if (selfOf(state)?.chatBlocked) return "Your messages are blocked.";
  if (state.chatPaused && !ownRole(state)?.permissions.moderateChat) return "The chat is paused.";
  return "";
}

const isPublic = (message: Message): boolean => message.to.roles.length + message.to.peers.length === 0;

function addressed(state: RoomState, message: Message): string {
  if (isPublic(message)) return "";
  const roles = message.to.roles.map((name) => roleNamed(state, name)?.title ?? name);
  const peers = message.to.peers.map((id) => (id === state.selfId ? "you" : (state.peers.get(id)?.name ?? "somebody")));
  return "to " + [...roles, ...peers].join(", ");
}

function withLinks(text: string) {
  return text.split(/(https?:\/\/[^\s<>"]+)/g).map((part, i) =>
    i % 2 === 1 ? (
      <a key={i} href={part} target="_blank" rel="noopener noreferrer nofollow">
        {part}
      </a>
    ) : (
      part
    ),
  );
}

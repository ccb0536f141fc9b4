import { createContext } from "preact";
import type { ComponentChildren } from "preact";
import { useContext, useEffect, useRef, useState } from "preact/hooks";
import type { Room, RoomEvents, RoomState } from "@amphi/sdk";

/** What every part of the app shares: the room and how the app was opened. */
export interface AppSession {
  readonly room: Room;
  readonly code: string;
  /** Inside somebody else's page: no chrome. */
  readonly embedded: boolean;
}

const Context = createContext<AppSession | undefined>(undefined);

export function SessionProvider({ value, children }: { value: AppSession; children: ComponentChildren }) {
  return <Context.Provider value={value}>{children}</Context.Provider>;
}

export function useSession(): AppSession {
  const session = useContext(Context);
  if (!session) throw new Error("no session around this component");
  return session;
}

export const useRoom = (): Room => useSession().room;

/** A part of the room's state; draws again only when it changed. */
export function useRoomState<T>(select: (state: RoomState) => T): T {
  const { room } = useSession();
  const selector = useRef(select);
  selector.current = select;
  const [, draw] = useState(0);
  const value = select(room.state);
  const drawn = useRef(value);
  drawn.current = value;
  useEffect(() => {
    const check = (state: RoomState): void => {
      if (!same(drawn.current, selector.current(state))) draw((n) => n + 1);
    };
    check(room.state);
    return room.subscribe(check);
  }, [room]);
  return value;
}

/** Calls back at a room event for as long as the component is there. */
export function useRoomEvent<K extends keyof RoomEvents>(name: K, listener: (payload: RoomEvents[K]) => void): void {
  const { room } = useSession();
  const newest = useRef(listener);
  newest.current = listener;
  useEffect(() => room.on(name, (payload) => newest.current(payload)), [room, name]);
}

// Lists made anew by a selector are the same when their items are.
function same(a: unknown, b: unknown): boolean {
  if (Object.is(a, b)) return true;
  if (!Array.isArray(a) || !Array.isArray(b) || a.length !== b.length) return false;
  return a.every((item, i) => Object.is(item, b[i]));
}

import type { ComponentChildren, JSX } from "preact";
import { useEffect, useId, useLayoutEffect, useRef, useState } from "preact/hooks";
import { Icon } from "./icons.js";
import type { IconName } from "./icons.js";

type ButtonProps = JSX.HTMLAttributes<HTMLButtonElement> & {
  kind?: "primary" | "plain" | "danger" | "quiet";
  icon?: IconName;
  disabled?: boolean;
  testid?: string;
  type?: "button" | "submit";
};

export function Button({ kind = "plain", icon, testid, children, type = "button", ...rest }: ButtonProps) {
  return (
    <button {...rest} type={type} class={`button ${kind} ${rest.class ?? ""}`} data-testid={testid}>
      {icon && <Icon name={icon} size={18} />}
      {children && <span>{children}</span>}
    </button>
  );
}

/** A button that is only an icon; the label is spoken and shown as a tooltip. */
export function IconButton({
  icon,
  label,
  testid,
  pressed,
  badge,
  ...rest
}: Omit<ButtonProps, "icon" | "label"> & {
  icon: IconName;
  label: string;
  pressed?: boolean;
  badge?: number | undefined;
}) {
  return (
    <button
      {...rest}
      type="button"
      class={`icon-button ${rest.class ?? ""}`}
      aria-label={label}
      title={label}
      aria-pressed={pressed}
      data-testid={testid}
    >
      <Icon name={icon} />
      {badge ? <span class="badge">{badge > 99 ? "99+" : badge}</span> : null}
    </button>
  );
}

/** A modal dialog: the browser keeps the focus inside and closes it with Escape. */
export function Dialog({
  title,
  onClose,
  children,
  testid,
  required,
}: {
  title: string;
  onClose: () => void;
  children: ComponentChildren;
  testid?: string;
  /** Must be answered: neither Escape nor a click outside closes it. */
  required?: boolean;
}) {
  const dialog = useRef<HTMLDialogElement>(null);
  const id = useId();
  useEffect(() => {
    const before = document.activeElement;
    dialog.current?.showModal();
    return () => {
      if (before instanceof HTMLElement) before.focus();
    };
  }, []);
  return (
    <dialog
      ref={dialog}
      class="dialog"
      aria-labelledby={id}
      data-testid={testid}
      onCancel={(event) => {
        event.preventDefault();
        if (!required) onClose();
      }}
      onClick={(event) => {
        if (event.target === dialog.current && !required) onClose();
      }}
    >
      <div class="dialog-body">
        <header>
          <h2 id={id}>{title}</h2>
          {!required && <IconButton icon="close" label="Close" onClick={onClose} />}
        </header>
        {children}
      </div>
    </dialog>
  );
}

export interface MenuItem {
  readonly label: string;
  readonly icon?: IconName;
  readonly danger?: boolean;
  readonly checked?: boolean;
  readonly testid?: string;
  act(): void;
}

/** A button that opens a list of actions. Arrow keys move, Escape and a click elsewhere close. */
export function Menu({
  label,
  icon,
  items,
  children,
  align = "end",
  testid,
  buttonClass = "icon-button",
  heading,
}: {
  label: string;
  icon?: IconName;
  items: readonly MenuItem[];
  children?: ComponentChildren;
  align?: "start" | "end" | "center";
  testid?: string;
  buttonClass?: string;
  heading?: string;
}) {
  const [open, setOpen] = useState(false);
  const root = useRef<HTMLDivElement>(null);
  useDismiss(root, open, () => setOpen(false));
  usePlacement(root, open, align);
  useEffect(() => {
    if (open) root.current?.querySelector<HTMLElement>("[role^=menuitem]")?.focus();
  }, [open]);
  const move = (event: KeyboardEvent): void => {
    const step = event.key === "ArrowDown" ? 1 : event.key === "ArrowUp" ? -1 : 0;
    if (!step || !open) return;
    event.preventDefault();
    const all = [...(root.current?.querySelectorAll<HTMLElement>("[role^=menuitem]") ?? [])];
    const at = all.indexOf(document.activeElement as HTMLElement);
    all[(at + step + all.length) % all.length]?.focus();
  };
  return (
    <div class="menu" ref={root} onKeyDown={move}>
      <button
        type="button"
        class={buttonClass}
        aria-label={label}
        title={label}
        aria-haspopup="menu"
        aria-expanded={open}
        data-testid={testid}
        onClick={() => setOpen(!open)}
      >
        {icon && <Icon name={icon} />}
        {children}
      </button>
      {open && (
        <div class="popover list" role="menu" aria-label={label}>
          {heading && <h3>{heading}</h3>}
          {items.map((item) => (
            <button
              key={item.label}
              type="button"
              role={item.checked === undefined ? "menuitem" : "menuitemradio"}
              aria-checked={item.checked}
              class={`menu-item ${item.danger ? "danger" : ""}`}
              data-testid={item.testid}
              onClick={() => {
                setOpen(false);
                item.act();
              }}
            >
              {item.checked !== undefined ? (
                <span class="menu-check">{item.checked && <Icon name="check" size={16} />}</span>
              ) : (
                item.icon && <Icon name={item.icon} size={18} />
              )}
              <span>{item.label}</span>
            </button>
          ))}
        </div>
      )}
    </div>
  );
}

const edgePx = 8;

/** Puts the popover beside its button, above or below it, and inside the window; nothing around it can clip it. */
export function usePlacement(
  root: { current: HTMLElement | null },
  open: boolean,
  align: "start" | "end" | "center",
): void {
  useLayoutEffect(() => {
    const popover = root.current?.querySelector<HTMLElement>(".popover");
    const button = root.current?.querySelector("button")?.getBoundingClientRect();
    if (!open || !popover || !button) return;
    const { offsetWidth: width, offsetHeight: height } = popover;
    const below = button.bottom + edgePx;
    const above = button.top - edgePx - height;
    const top = below + height > innerHeight - edgePx && above > edgePx ? above : below;
    const left =
      align === "start" ? button.left : align === "end" ? button.right - width : (button.left + button.right - width) / 2;
    popover.style.top = `${Math.max(edgePx, Math.min(top, innerHeight - edgePx - height))}px`;
    popover.style.left = `${Math.max(edgePx, Math.min(left, innerWidth - edgePx - width))}px`;
  }, [open]);
}

/** Closes on Escape and on a press outside of the element. */
export function useDismiss(root: { current: HTMLElement | null }, open: boolean, close: () => void): void {
  useEffect(() => {
    if (!open) return undefined;
    const press = (event: Event): void => {
      if (!root.current?.contains(event.target as Node)) close();
    };
    const key = (event: KeyboardEvent): void => {
      if (event.key !== "Escape") return;
      event.stopPropagation();
      close();
      root.current?.querySelector<HTMLElement>("button")?.focus();
    };
    document.addEventListener("pointerdown", press, true);
    document.addEventListener("keydown", key, true);
    return () => {
      document.removeEventListener("pointerdown", press, true);
      document.removeEventListener("keydown", key, true);
    };
  }, [open]);
}

export function Field({ label, children }: { label: string; children: ComponentChildren }) {
  return (
    <label class="field">
      <span>{label}</span>
      {children}
    </label>
  );
}

const hues = [222, 262, 305, 345, 18, 42, 152, 188];

/** Initials on a colour that follows from the id. */
export function Avatar({ name, id, size = 32 }: { name: string; id: string; size?: number }) {
  const words = name.trim().split(/\s+/);
  const initials = ((words[0]?.[0] ?? "?") + (words.length > 1 ? words[words.length - 1]![0]! : "")).toUpperCase();
  const hue = hues[[...id].reduce((sum, c) => sum + c.charCodeAt(0), 0) % hues.length]!;
  const style = {
    width: size,
    height: size,
    fontSize: size * 0.4,
    background: `hsl(${hue} 45% 42%)`,
  };
  return (
    <span class="avatar" style={style} aria-hidden="true">
      {initials}
    </span>
  );
}

export function Spinner({ label }: { label: string }) {
  return (
    <div class="spinner" role="status">
      <span class="spinner-ring" aria-hidden="true" />
      <span>{label}</span>
    </div>
  );
}

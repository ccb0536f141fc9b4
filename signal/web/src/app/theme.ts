export type Theme = "system" | "dark" | "light";

const key = "amphi.theme";
const dark = matchMedia("(prefers-color-scheme: dark)");

export function savedTheme(): Theme {
  try {
    const saved = localStorage.getItem(key);
    return saved === "dark" || saved === "light" ? saved : "system";
  } catch {
    return "system";
  }
}

export function setTheme(theme: Theme): void {
  try {
    if (theme === "system") localStorage.removeItem(key);
    else localStorage.setItem(key, theme);
  } catch {
    // not remembered, then
  }
  apply(theme);
}

/** Applies the saved theme, or the one in the link (`?theme=dark`), and follows the system's. */
export function startTheme(): void {
  const asked = new URLSearchParams(location.search).get("theme");
  const chosen = (): Theme => (asked === "dark" || asked === "light" ? asked : savedTheme());
  apply(chosen());
  dark.addEventListener("change", () => apply(chosen()));
}

function apply(theme: Theme): void {
  const isDark = theme === "system" ? dark.matches : theme === "dark";
  document.documentElement.dataset["theme"] = isDark ? "dark" : "light";
}

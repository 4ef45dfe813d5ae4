/**
 * Numbers, times and agents' text, made fit to show. Pure: no DOM, no clock.
 *
 * Whatever an agent prints is text and stays text: terminal escapes are taken out here, and everything reaches the page as
 * `textContent` (dom.js), so there is nothing to escape anywhere else.
 */

// ECMA-48: CSI, OSC (ended by BEL or ST), DCS/SOS/PM/APC, two-character escapes; and CSI as one C1 character.
// Each alternative consumes what it matched in one pass, so hostile text costs linear time.
const ESCAPES =
  // eslint-disable-next-line no-control-regex
  /\u001b(?:\[[0-?]*[ -/]*[@-~]?|\][^\u0007\u001b]*(?:\u0007|\u001b\\)?|[PX^_][^\u001b]*(?:\u001b\\)?|[ -/]*[0-~]?)|\u009b[0-?]*[ -/]*[@-~]?/g;
// eslint-disable-next-line no-control-regex
const CONTROLS = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f]/g;

/** Text without terminal escapes and control characters; every line break is `\n`. */
export function plain(text) {
  const string = String(text ?? "");
  return string.replace(ESCAPES, "").replace(/\r\n?/g, "\n").replace(CONTROLS, "");
}

/** The beginning of a text on one line, at most `limit` characters. */
export function oneLine(text, limit = 240) {
  // Twice the limit is enough to begin with: only the beginning is shown, and texts may be 64 KiB.
  const short = plain(String(text ?? "").slice(0, limit * 2)).replace(/\s+/g, " ").trim();
  return short.length > limit ? `${short.slice(0, limit - 1)}…` : short;
}

/** `850 ms`, `4.2 s`, `3 min 05 s`, `2 h 10 min`. */
export function duration(ms) {
  if (ms == null || !Number.isFinite(ms)) return "–";
  if (ms < 1000) return `${Math.max(0, Math.round(ms))} ms`;
  if (ms < 10_000) return `${(ms / 1000).toFixed(1)} s`;
  return wholeSeconds(ms);
}

/** Like `duration`, in whole seconds: for numbers that tick. */
export function wholeSeconds(ms) {
  if (ms == null || !Number.isFinite(ms)) return "–";
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${String(seconds % 60).padStart(2, "0")} s`;
  return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
}

/** `512 B`, `3.4 KB`, `12 MB`; powers of 1024. */
export function bytes(count) {
  if (count == null) return "";
  if (count < 1024) return `${count} B`;
  let value = count;
  let unit = -1;
  do {
    value /= 1024;
    unit += 1;
  } while (value >= 1024 && unit < 3);
  return `${value < 10 ? value.toFixed(1) : Math.round(value)} ${["KB", "MB", "GB", "TB"][unit]}`;
}

/** `950`, `12.3k`, `4.1M`. */
export function compact(count) {
  if (count == null) return "–";
  if (count < 1000) return String(count);
  if (count < 100_000) return `${(count / 1000).toFixed(1)}k`;
  if (count < 1_000_000) return `${Math.round(count / 1000)}k`;
  return `${(count / 1_000_000).toFixed(1)}M`;
}

/** `1,234`. */
export function grouped(count) {
  return count == null ? "–" : count.toLocaleString("en-US");
}

/** `$0.00`, `$0.0041`, `$1.25`. */
export function money(usd) {
  if (usd == null) return "–";
  return `$${usd > 0 && usd < 0.01 ? usd.toFixed(4) : usd.toFixed(2)}`;
}

/** `14:03:59` in the reader's time zone. */
export function clock(ms) {
  const date = new Date(ms);
  const two = (value) => String(value).padStart(2, "0");
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}

/** `just now`, `5 min ago`, `3 h ago`, or the date. */
export function ago(ms, now) {
  const seconds = (now - ms) / 1000;
  if (seconds < 45) return "just now";
  if (seconds < 3600) return `${Math.max(1, Math.round(seconds / 60))} min ago`;
  if (seconds < 86_400) return `${Math.round(seconds / 3600)} h ago`;
  return new Date(ms).toLocaleDateString(undefined, { year: "numeric", month: "short", day: "numeric" });
}

/** A path as it is below `root`, if it is. */
export function relative(path, root) {
  const text = String(path ?? "");
  if (root && text.startsWith(root.endsWith("/") ? root : `${root}/`)) return text.slice(root.length).replace(/^\/+/, "");
  return text;
}

/**
 * Markdown to DOM nodes: the part of it that agents write. No HTML is ever parsed: a `<script>` in the text is eight characters.
 *
 * Headings, paragraphs, lists (nested, ordered, tasks), quotes, fenced code, tables, rules; emphasis, strong, strikethrough,
 * code, links, bare addresses. Links are http(s) or mailto and open elsewhere without a referrer; images become links, because
 * the page asks no other host for anything. Time is linear in the text: inline markup is found with one sticky pass, and what
 * isn't closed is literal.
 */

import { copyButton, h } from "./dom.js";

// Deeper quotes and lists are shown flat: nobody reads them, and recursion stays bounded whatever the text is.
const MAX_DEPTH = 8;
const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})\s+(.*?)\s*#*\s*$/;
const RULE = /^ {0,3}(?:(?:\*[ \t]*){3,}|(?:-[ \t]*){3,}|(?:_[ \t]*){3,})$/;
const QUOTE = /^ {0,3}> ?(.*)$/;
const ITEM = /^(\s*)([-*+]|\d{1,9}[.)])(?:\s+(.*))?$/;
const TABLE_RULE = /^ {0,3}\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)*\|?\s*$/;

/** A fragment with the rendered text. `text` must already be `plain` (format.js). */
export function render(text) {
  const fragment = document.createDocumentFragment();
  blocks(text.split("\n"), fragment, 0);
  return fragment;
}

function blocks(lines, parent, depth) {
  let index = 0;
  while (index < lines.length) {
    const line = lines[index];
    let match;
    if (!line.trim()) index += 1;
    else if ((match = FENCE.exec(line))) index = fence(lines, index, match, parent);
    else if ((match = HEADING.exec(line))) {
      // The page's own headings are h1 and h2.
      parent.append(inline(h(`h${Math.min(6, match[1].length + 2)}`), match[2]));
      index += 1;
    } else if (RULE.test(line)) {
      parent.append(h("hr"));
      index += 1;
    } else if (QUOTE.test(line) && depth < MAX_DEPTH) index = quote(lines, index, parent, depth);
    else if (ITEM.test(line) && depth < MAX_DEPTH) index = list(lines, index, parent, depth);
    else if (line.includes("|") && index + 1 < lines.length && isTableRule(line, lines[index + 1])) {
      index = table(lines, index, parent);
    } else index = paragraph(lines, index, parent);
  }
}

function fence(lines, start, match, parent) {
  const [, mark, info] = match;
  let end = start + 1;
  while (end < lines.length && !(lines[end].trim().startsWith(mark) && !lines[end].trim().replaceAll(mark[0], ""))) end += 1;
  const code = lines.slice(start + 1, end).join("\n");
  const language = info.trim().split(/\s/, 1)[0];
  parent.append(
    h(
      "figure",
      { class: "code" },
      h("figcaption", {}, h("span", {}, language || "text"), copyButton("Copy", () => code)),
      h("pre", { tabindex: "0" }, h("code", {}, code)),
    ),
  );
  return end + 1;
}

function quote(lines, start, parent, depth) {
  const inner = [];
  let index = start;
  for (; index < lines.length; index += 1) {
    const match = QUOTE.exec(lines[index]);
    if (!match) break;
    inner.push(match[1]);
  }
  const element = h("blockquote");
  blocks(inner, element, depth + 1);
  parent.append(element);
  return index;
}

function list(lines, start, parent, depth) {
  const [, lead, marker] = ITEM.exec(lines[start]);
  const ordered = /\d/.test(marker);
  const indent = lead.length;
  const element = ordered ? h("ol", { start: parseInt(marker, 10) }) : h("ul");
  let index = start;
  while (index < lines.length) {
    const match = ITEM.exec(lines[index]);
    if (!match || match[1].length !== indent || /\d/.test(match[2]) !== ordered || RULE.test(lines[index])) break;
    const inner = [match[3] ?? ""];
    index += 1;
    // What belongs to the item: deeper lines, and blank lines between such.
    while (index < lines.length) {
      const line = lines[index];
      const next = lines[index + 1] ?? "";
      if (line.trim() ? indentOf(line) > indent : indentOf(next) > indent && next.trim()) {
        inner.push(line.slice(Math.min(indentOf(line), indent + marker.length + 1)));
        index += 1;
      } else if (line.trim() && !ITEM.test(line) && !starts(line) && inner.at(-1).trim()) {
        inner.push(line);
        index += 1;
      } else break;
    }
    element.append(item(inner, depth));
    while (index < lines.length && !lines[index].trim() && ITEM.test(lines[index + 1] ?? "")) index += 1;
  }
  parent.append(element);
  return index;
}

function item(lines, depth) {
  const element = h("li");
  const task = /^\[([ xX])\]\s+(.*)$/.exec(lines[0]);
  if (task) {
    element.className = "task";
    element.append(h("span", { class: "box", role: "img", "aria-label": task[1] === " " ? "to do" : "done" }, task[1] === " " ? "☐" : "☑"), " ");
    lines = [task[2], ...lines.slice(1)];
  }
  const nested = lines.findIndex((line, number) => number > 0 && (!line.trim() || starts(line) || ITEM.test(line)));
  const head = nested < 0 ? lines : lines.slice(0, nested);
  inline(element, head.map((line) => line.trim()).join("\n"));
  if (nested > 0) blocks(lines.slice(nested), element, depth + 1);
  return element;
}

function isTableRule(header, rule) {
  return TABLE_RULE.test(rule) && rule.includes("-") && cells(header).length === cells(rule).length;
}

function table(lines, start, parent) {
  const align = cells(lines[start + 1]).map((cell) => {
    if (cell.endsWith(":")) return cell.startsWith(":") ? "center" : "right";
    return null;
  });
  const row = (line, tag) =>
    h("tr", {}, cells(line).slice(0, align.length).map((cell, column) => {
      const scope = tag === "th" ? "col" : null;
      return inline(h(tag, { scope, class: align[column] && `align-${align[column]}` }), cell);
    }));
  const body = h("tbody");
  let index = start + 2;
  while (index < lines.length && lines[index].includes("|") && lines[index].trim()) {
    body.append(row(lines[index], "td"));
    index += 1;
  }
  parent.append(h("div", { class: "table", tabindex: "0" }, h("table", {}, h("thead", {}, row(lines[start], "th")), body)));
  return index;
}

function cells(line) {
  const inner = line.trim().replace(/^\|/, "").replace(/(?<!\\)\|$/, "");
  return inner.split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|"));
}

function paragraph(lines, start, parent) {
  let index = start + 1;
  while (index < lines.length && lines[index].trim() && !starts(lines[index]) && !ITEM.test(lines[index])) {
    if (lines[index].includes("|") && isTableRule(lines[index], lines[index + 1] ?? "")) break;
    index += 1;
  }
  parent.append(inline(h("p"), lines.slice(start, index).map((line) => line.trimStart()).join("\n")));
  return index;
}

function starts(line) {
  return FENCE.test(line) || HEADING.test(line) || QUOTE.test(line) || RULE.test(line);
}

function indentOf(line) {
  return line.length - line.trimStart().length;
}

// --- inline ----------------------------------------------------------------------------------------------------------

// In order of precedence. Each is bounded by its closing mark or by 2,000 characters, so a text full of opening marks stays cheap.
const TOKENS = new RegExp(
  [
    "\\\\([!-/:-@[-`{-~])", // 1: escaped punctuation
    "(`+)([^`](?:.{0,2000}?[^`])?)\\2(?!`)", // 2, 3: code
    "!?\\[([^\\[\\]\\n]{0,500})\\]\\(\\s*<?([^\\s()<>]{1,2000}(?:\\([^\\s()<>]{0,200}\\))?[^\\s()<>]{0,200})>?(?:\\s+\"[^\"]{0,200}\")?\\s*\\)", // 4, 5: link
    "\\*\\*(?=\\S)(.{0,2000}?\\S)\\*\\*", // 6: strong
    "(?<![\\w])__(?=\\S)(.{0,2000}?\\S)__(?![\\w])", // 7: strong
    "~~(?=\\S)(.{0,2000}?\\S)~~", // 8: strikethrough
    "\\*(?=[^\\s*])([^*]{0,2000}?[^\\s*])\\*", // 9: emphasis
    "(?<![\\w])_(?=[^\\s_])([^_]{0,2000}?[^\\s_])_(?![\\w])", // 10: emphasis
    "(https?:\\/\\/[^\\s<>\"'`)\\]]{1,2000}[^\\s<>\"'`)\\].,;:!?])", // 11: bare address
  ].join("|"),
  "gs",
);

function inline(element, text, depth = 0) {
  let last = 0;
  for (const match of text.matchAll(TOKENS)) {
    if (match.index > last) element.append(text.slice(last, match.index));
    last = match.index + match[0].length;
    const [, escaped, , code, label, target, strong, strong2, struck, em, em2, address] = match;
    if (escaped !== undefined) element.append(escaped);
    else if (code !== undefined) element.append(h("code", {}, code));
    else if (target !== undefined) element.append(link(label, target, match[0], depth));
    else if (address !== undefined) element.append(link(address, address, address, MAX_DEPTH));
    else {
      const tag = strong ?? strong2 ? "strong" : struck !== undefined ? "del" : "em";
      const inner = strong ?? strong2 ?? struck ?? em ?? em2;
      element.append(depth < MAX_DEPTH ? inline(h(tag), inner, depth + 1) : match[0]);
    }
  }
  if (last < text.length) element.append(text.slice(last));
  return element;
}

function link(label, target, literal, depth) {
  if (!/^(?:https?:\/\/|mailto:)/i.test(target)) return document.createTextNode(literal);
  const element = h("a", { href: target, target: "_blank", rel: "noopener noreferrer nofollow" });
  return depth < MAX_DEPTH ? inline(element, label || target, depth + 1) : (element.append(label || target), element);
}

/**
 * Making nodes. The one rule of this page: text becomes text nodes. There is no way to hand markup to anything here, and nothing
 * on the page uses innerHTML or its kin, so what an agent prints can't become markup.
 */

const SVG = "http://www.w3.org/2000/svg";
const PROPERTIES = new Set(["value", "checked", "disabled", "hidden", "selected", "open", "htmlFor", "tabIndex"]);

/**
 * `h("button", {class: "quiet", onclick: f, "aria-label": "Close"}, "x")`. Children are nodes, strings, numbers or lists of
 * them; null and false are left out.
 */
export function h(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value == null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class") element.className = value;
    else if (name === "dataset") Object.assign(element.dataset, value);
    else if (PROPERTIES.has(name)) element[name] = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  append(element, children);
  return element;
}

/** The same for SVG; all attributes are set as attributes. */
export function svg(tag, attributes, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value != null) element.setAttribute(name, String(value));
  }
  append(element, children);
  return element;
}

function append(element, children) {
  for (const child of children) {
    if (child == null || child === false) continue;
    if (Array.isArray(child)) append(element, child);
    else element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
}

/** Set an element's text, touching the document only when it differs: selections and screen readers stay undisturbed. */
export function setText(element, text) {
  const string = String(text);
  if (element.textContent !== string) element.textContent = string;
}

/** Set or remove an attribute, touching the document only when it differs. */
export function setAttribute(element, name, value) {
  if (value == null || value === false) {
    if (element.hasAttribute(name)) element.removeAttribute(name);
  } else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, String(value));
}

/** A button that copies `text()` and says so. */
export function copyButton(label, text) {
  const button = h("button", { type: "button", class: "quiet small", onclick: copy }, label);
  async function copy() {
    let done = true;
    try {
      await navigator.clipboard.writeText(text());
    } catch {
      // navigator.clipboard exists only on https and loopback; the old way works everywhere.
      const area = h("textarea", { class: "offscreen", value: text() });
      document.body.append(area);
      area.select();
      done = document.execCommand("copy");
      area.remove();
    }
    setText(button, done ? "Copied" : "Can't copy");
    setTimeout(() => setText(button, label), 1500);
  }
  return button;
}

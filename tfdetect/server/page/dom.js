/** Elements and symbols. Text always arrives as text, never as HTML: what a file or a server says cannot become markup. */

const SVG = "http://www.w3.org/2000/svg";

/** Paths of 24 x 24 symbols; each verdict has a shape of its own, so that none is told by colour alone. */
const SYMBOLS = {
  real: "M12 2.5a9.5 9.5 0 1 0 0 19a9.5 9.5 0 0 0 0-19zM7.6 12.4l3 3l5.8-6.4",
  fake: "M8 2.5h8L21.5 8v8L16 21.5H8L2.5 16V8zM12 7.3v5.9M12 16.4v.2",
  inconclusive: "M12 1.8L22.2 12L12 22.2L1.8 12zM9.7 9.8a2.4 2.4 0 1 1 3.6 2.1c-.9.5-1.3 1-1.3 1.9M12 16.4v.2",
  unfamiliar: "M4 4h16v16H4zM8 9.7h8M8 14.3h8M14.6 7L9.4 17",
  scored: "M4 20V11M10 20V4M16 20v-7M21 20H2",
  failed: "M12 2.5a9.5 9.5 0 1 0 0 19a9.5 9.5 0 0 0 0-19zM8.4 8.4l7.2 7.2M15.6 8.4l-7.2 7.2",
  passed: "M4 12.5l5 5L20 6.5",
  careful: "M12 3L22 20.5H2zM12 9.5v5M12 17.4v.2",
};

/** Return an element: attributes as they are, "on..." as listeners, children as nodes or text; null and "" are left out. */
export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same for SVG. */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== ""));
  return node;
}

/** Return a symbol that stands beside its name in words. */
export function symbol(name) {
  return svg("svg", { viewBox: "0 0 24 24", class: `symbol ${name}`, "aria-hidden": "true" }, svg("path", { d: SYMBOLS[name] }));
}

/** Return a list of nodes or texts; null without any. */
export function list(items) {
  return items.length ? el("ul", {}, items.map((item) => el("li", {}, item))) : null;
}

/** Return a part that opens; null without content. */
export function fold(title, ...content) {
  const shown = content.flat().filter(Boolean);
  return shown.length ? el("details", {}, el("summary", {}, title), shown) : null;
}

let ids = 0;
/** Return an id that no other element has. */
export function uniqueId() {
  return `n${++ids}`;
}

// Elements, made from text and never from markup, and the words and numbers that they show.

const HUES = 12;
const INVISIBLE = /[\p{C}\p{Zl}\p{Zp}\ufffd]/gu;

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

const byId = (id) => document.getElementById(id);

const MARKS = { "\t": "⇥", "\ufffd": "▯" };

function numbered(c) {
  return c in MARKS ? MARKS[c] : `⟨U+${c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`;
}

/** A token inside running text: lines break where it says so, what has no shape is numbered. */
function running(token) {
  if (token === "") return "⟨end⟩\n";
  return token.replace(INVISIBLE, (c) => (c === "\n" ? "↵\n" : numbered(c)));
}

/** A token by itself: spaces at its edges are seen too. */
function alone(token) {
  if (token === null) return "–";
  if (token === "") return "⟨end⟩";
  return token.replace(INVISIBLE, (c) => (c === "\n" ? "↵" : numbered(c)))
    .replace(/^ +| +$/g, ({ length }) => (length < 4 ? "␣".repeat(length) : `␣×${length}`));
}

/** A token in a list, apart from the direction of what stands around it. */
function quoted(token) {
  return make("bdi", { class: "word" }, alone(token));
}

const fixed = (value, digits = 2) => (Number.isFinite(value) ? value.toFixed(digits) : "–");

function percent(share) {
  const value = 100 * share;
  return `${value >= 9.95 || value === 0 ? value.toFixed(0) : value.toFixed(1)}\u00a0%`;
}

const hue = (slot) => `var(--series-${slot % HUES})`;
const again = (slot) => slot >= HUES;

/** Colours of the experts of a pane at the depth in use. */
function slotsOf(pane) {
  const layer = runs[state[pane]].layers.get(state.depth);
  if (!layer || pane === "a") return layer && layer.slot;
  const one = runs[state.a].layers.get(state.depth);
  return slotsAfter(one, layer, partners(state.a, state.b, state.depth));
}

/** A button for an expert of a pane; `more` stands behind its number. */
function chip(pane, slot, number, more = "", label = "") {
  const chosen = state.expert?.pane === pane && state.expert.number === number;
  const made = make("button", {
    type: "button", class: `chip${again(slot) ? " again" : ""}`, "aria-pressed": String(chosen),
    "aria-label": label || `Expert ${number}${more ? `, ${more}` : ""}`, "data-expert": number,
  }, make("b", {}, String(number)), more ? make("span", {}, more) : null);
  made.style.setProperty("--c", hue(slot));
  made.addEventListener("click", () => pick({ expert: { pane, number } }));
  return made;
}

/** A bar with an optional mark, both shares of `full`. */
function bar(value, full, mark = null) {
  const made = make("span", { class: "bar", "aria-hidden": "true" }, make("i"));
  made.firstChild.style.width = `${Math.min(100, (100 * value) / full) || 0}%`;
  if (mark !== null) {
    const line = make("u");
    line.style.left = `${Math.min(100, (100 * mark) / full)}%`;
    made.append(line);
  }
  return made;
}

function table(caption, heads, rows) {
  const top = make("tr", {}, ...heads.map((head) => make("th", { scope: "col" }, head)));
  const body = rows.map(([first, ...rest]) => make("tr", {},
    make("th", { scope: "row" }, first), ...rest.map((cell) => make("td", {}, cell))));
  return make("table", {}, make("caption", {}, caption), make("thead", {}, top),
    make("tbody", {}, ...body));
}

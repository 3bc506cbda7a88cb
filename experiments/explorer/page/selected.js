// What is selected: a token's way through the layers, or what an expert was given.

const CONTEXTS = 8;
const AROUND = 6; // tokens on each side
const PER_ID = 2; // contexts of one token

const nameOf = (pane) => `${pane.toUpperCase()}, ${runs[state[pane]].label}`;

/** Chips of a token's choices in one layer of a pane, and its margin. */
function choiceCell(pane, depth, n) {
  const layer = runs[state[pane]].layers.get(depth);
  if (!layer) return make("span", { class: "hint" }, "no experts");
  const one = runs[state.a].layers.get(depth);
  const slot = pane === "a" ? layer.slot
    : slotsAfter(one, layer, partners(state.a, state.b, depth));
  const chips = choices(layer, n).map((made) => {
    const shown = chip(pane, slot[made.expert], made.expert, fixed(made.gate),
      `Layer ${depth}, expert ${made.expert}, gate ${fixed(made.gate)}${made.lost ? ", dropped" : ""}`);
    if (made.lost) shown.classList.add("lost");
    shown.addEventListener("click", () => pick({ depth, expert: { pane, number: made.expert } }));
    return shown;
  });
  const margin = layer.margin[n];
  return make("div", { class: "choices" }, ...chips,
    make("small", {}, Number.isFinite(margin) ? `margin ${fixed(margin)}` : "no margin"));
}

function aboutToken(n) {
  const { start, position, window } = page.passages[passageOf(n)];
  const facts = [
    ["next", quoted(word(text.target[n]))],
    ["desk", page.desks[text.desk[n]] ?? "–"],
    ["class", page.classes[text.class[n]] ?? "–"],
    ["position", `${position + n - start} of window ${window}`],
    ["document", String(text.document[n])],
    ["in the text", `${count[text.id[n]].toLocaleString("en")} times`],
  ];
  const worst = Math.max(...runs.map((run) => run.loss[n]).filter(Number.isFinite), 1e-9);
  const losses = runs.map((run) => [run.label, bar(run.loss[n], worst), fixed(run.loss[n])]);
  const panes = state.a === state.b ? ["a"] : PANES;
  const heads = ["Layer", ...panes.map((pane) => pane.toUpperCase())];
  const layers = page.depths.map((depth) => [
    String(depth), ...panes.map((pane) => choiceCell(pane, depth, n)),
  ]);
  return [
    make("h2", {}, "Token ", quoted(word(text.id[n]))),
    make("dl", { class: "facts" }, ...facts.flatMap(([name, value]) =>
      [make("dt", {}, name), make("dd", {}, value)])),
    table("Experts and gates by layer", heads, layers),
    table("Loss of the next token, nats", ["Run", "", "Loss"], losses),
  ];
}

/** Places where an expert served, the highest gates first, few of each token. */
function contextsOf(layer, e) {
  const found = [];
  for (let n = 0; n < tokens; n += 1) {
    const one = choices(layer, n).find((made) => made.expert === e);
    if (one) found.push({ n, gate: one.gate });
  }
  found.sort((x, y) => y.gate - x.gate || x.n - y.n);
  const seen = new Map();
  return found.filter(({ n }) => {
    const times = seen.get(text.id[n]) ?? 0;
    seen.set(text.id[n], times + 1);
    return times < PER_ID;
  }).slice(0, CONTEXTS);
}

function contextButton({ n, gate }) {
  const passage = passageOf(n);
  const { start, size } = page.passages[passage];
  const part = (from, to) => {
    let said = "";
    for (let i = Math.max(from, start); i < Math.min(to, start + size); i += 1) {
      said += running(word(text.id[i])).replaceAll("\n", "");
    }
    return make("bdi", {}, said);
  };
  const made = make("button", { type: "button", class: "context" },
    part(n - AROUND, n), make("mark", {}, part(n, n + 1)), part(n + 1, n + 1 + AROUND),
    make("small", {}, ` gate ${fixed(gate)}`));
  made.addEventListener("click", () => {
    set({ passage, token: n });
    reveal(n);
  });
  return make("li", {}, made);
}

function partnerLine(pane, number) {
  if (state.a === state.b) return null;
  const other = pane === "a" ? "b" : "a";
  const partner = partners(state[pane], state[other], state.depth);
  if (!partner) return null;
  const found = partner[number];
  if (found === NONE) return make("p", {}, `No partner is left for it in ${nameOf(other)}.`);
  return make("p", {}, `Its partner in ${nameOf(other)}: `,
    chip(other, slotsOf(other)[found], found));
}

function aboutExpert({ pane, number }) {
  const layer = runs[state[pane]].layers.get(state.depth);
  const share = layer.share[number];
  const desks = page.desks.map((desk, y) => [desk, layer.deskShare[y * layer.experts + number]]);
  const full = Math.max(share, ...desks.map(([, own]) => own), 1e-9);
  const load = desks.map(([desk, own]) => [desk, bar(own, full, share), percent(own)]);
  const rows = [];
  for (let i = number * layer.most; i < (number + 1) * layer.most; i += 1) {
    const id = layer.top[i];
    if (word(id) !== null) {
      rows.push([quoted(word(id)), `${layer.had[i]} of ${count[id]}`, rounded(share * served(layer) * count[id])]);
    }
  }
  const contexts = contextsOf(layer, number);
  return [
    make("h2", {}, chip(pane, slotsOf(pane)[number], number), ` Expert ${number}, layer ${state.depth}`),
    make("p", { class: "hint" }, `${nameOf(pane)}; ${layer.router}`),
    make("p", {}, `${percent(share)} of all choices; an even load is ${percent(1 / layer.experts)}.`),
    partnerLine(pane, number),
    load.length ? table("Share of each desk's choices; the line is its share of all",
      ["Desk", "", "Share"], load) : null,
    rows.length ? table("Tokens it has more of than its share", ["Token", "It had", "By share"], rows)
      : make("p", {}, "It has no token more often than its share."),
    make("h3", {}, "Contexts, highest gates first"),
    contexts.length ? make("ol", { class: "contexts" }, ...contexts.map(contextButton))
      : make("p", {}, "None in the passages of this page."),
  ];
}

const rounded = (value) => value.toFixed(value < 10 ? 1 : 0);

/** Choices of a token on average: shares are of choices, counts are of tokens. */
function served(layer) {
  let made = 0;
  for (const e of layer.expert) made += e !== layer.experts;
  return made / tokens;
}

function drawSelected() {
  const box = byId("selected");
  let content = [make("p", { class: "hint" }, "Nothing is selected.")];
  if (state.expert) content = aboutExpert(state.expert);
  else if (state.token !== null) content = aboutToken(state.token);
  box.replaceChildren(...content.filter((part) => part !== null));
}

// The two panes: the same passage under two runs.

const PANES = ["a", "b"];
const WORST = 8; // nats, the strongest tint
let filled = null;

const paneOf = (pane) => byId(`pane-${pane}`);
const tokensOf = (pane) => paneOf(pane).querySelector(".tokens");

/** Makes the tokens of a passage, where it is another one. */
function fill() {
  if (filled === state.passage) return;
  filled = state.passage;
  const { start, size } = page.passages[state.passage];
  for (const pane of PANES) {
    const box = tokensOf(pane);
    const made = Array.from({ length: size }, (_, i) => {
      const token = running(word(text.id[start + i]));
      return make("span", { role: "button", class: "token", "data-n": start + i }, token);
    });
    box.replaceChildren(...made);
    box.scrollTop = 0;
  }
}

/** The bar under a token: a stretch for each expert that it chose, as wide as its gate. */
function stretches(made, slot) {
  const sum = made.reduce((total, one) => total + Math.max(0, one.gate), 0);
  let start = 0;
  return made.map((one) => {
    const wide = sum > 0 ? Math.max(0, one.gate) / sum : 1 / made.length;
    const place = wide < 1 ? start / (1 - wide) : 0;
    start += wide;
    const colour = hue(slot[one.expert]);
    const image = again(slot[one.expert])
      ? `repeating-linear-gradient(90deg, ${colour} 0 4px, transparent 4px 6px)`
      : `linear-gradient(${colour}, ${colour})`;
    return `${image} ${(100 * place).toFixed(1)}% 100% / ${(100 * wide).toFixed(1)}% 3px no-repeat`;
  }).join(", ");
}

/** Strength of the tint, 0 to 1, where colour tells a number; dark is a high loss, a low margin. */
function strength(run, layer, n, high) {
  if (state.colour === "loss") return Math.min(1, run.loss[n] / WORST) || 0;
  const margin = layer ? layer.margin[n] : NaN;
  return Number.isFinite(margin) ? Math.max(0, 1 - margin / high) : 0;
}

/** The margin that nine tenths of a passage's tokens lie below. */
function highMargin(layer) {
  const { start, size } = page.passages[state.passage];
  const known = [...layer.margin.slice(start, start + size)].filter(Number.isFinite);
  known.sort((x, y) => x - y);
  return known[Math.floor(0.9 * known.length)] || 1;
}

/** The experts that stand out in each pane: the selected one, and its partner in the other. */
function spotlights() {
  const lit = { a: null, b: null };
  if (!state.expert) return lit;
  const { pane, number } = state.expert;
  const other = pane === "a" ? "b" : "a";
  const partner = partners(state[pane], state[other], state.depth);
  lit[pane] = number;
  lit[other] = partner ? partner[number] : null;
  return lit;
}

function spoken(n, made, run) {
  const served = made.map((one) => `expert ${one.expert}, gate ${fixed(one.gate)}`).join(", ");
  return `${alone(word(text.id[n]))}: ${served || "no expert"}; loss ${fixed(run.loss[n])}`;
}

/** Colours and states of a pane's tokens. */
function paint(pane, lit, differs) {
  const run = runs[state[pane]];
  const layer = run.layers.get(state.depth);
  const slot = slotsOf(pane);
  const high = layer && state.colour === "margin" ? highMargin(layer) : 1;
  const spans = [...tokensOf(pane).children];
  const inside = spans.some((span) => Number(span.dataset.n) === state.token);
  spans.forEach((span, i) => {
    const n = Number(span.dataset.n);
    const made = layer ? choices(layer, n) : [];
    const served = made.some((one) => !one.lost);
    const away = lit !== null && !made.some((one) => one.expert === lit);
    span.classList.toggle("lost", Boolean(layer) && !served);
    span.classList.toggle("faded", away || (state.disagree && !differs(n)));
    span.setAttribute("aria-pressed", String(n === state.token));
    span.title = spoken(n, made, run);
    span.setAttribute("aria-label", span.title);
    span.tabIndex = (inside ? n === state.token : i === 0) ? 0 : -1;
    const byExpert = state.colour === "expert";
    span.style.setProperty("--tint", byExpert ? (made.length ? 0.2 : 0)
      : 0.45 * strength(run, layer, n, high));
    const told = lit !== null && !away ? lit : made[0]?.expert;
    span.style.setProperty("--c", byExpert && made.length ? hue(slot[told]) : "var(--accent)");
    span.style.setProperty("--bar", made.length ? stretches(made, slot) : "none");
  });
}

/** The experts of a pane's layer, each as large as its share. */
function offer(pane) {
  const layer = runs[state[pane]].layers.get(state.depth);
  const box = paneOf(pane).querySelector(".experts");
  const held = box.contains(document.activeElement) ? document.activeElement.dataset.expert : null;
  if (!layer) {
    box.replaceChildren(make("span", { class: "hint" }, "no experts in this layer"));
    return;
  }
  const slot = slotsOf(pane);
  const most = Math.max(...layer.share);
  const chips = [...layer.share].map((share, e) => {
    const made = chip(pane, slot[e], e, "", `Expert ${e}, ${percent(share)} of choices`);
    made.style.setProperty("--share", share / most);
    made.tabIndex = e === (state.expert?.pane === pane ? state.expert.number : 0) ? 0 : -1;
    return made;
  });
  box.replaceChildren(...chips);
  if (held !== null) chips[held]?.focus();
}

function figuresOf(pane) {
  const run = runs[state[pane]];
  const { start, size } = page.passages[state.passage];
  const known = [...run.loss.slice(start, start + size)].filter(Number.isFinite);
  const here = known.reduce((sum, loss) => sum + loss, 0) / known.length;
  return `loss ${fixed(here)} here, ${fixed(run.mean ?? NaN)} in all`;
}

/** What the colours say, and how far the two runs agree. */
function note(differs) {
  const legend = {
    expert: "",
    loss: `Stronger tint: a higher loss, 0 to ${WORST} nats or more. `,
    margin: "Stronger tint: a smaller margin; none where the router has no margin. ",
  }[state.colour];
  const pair = agreement(state.a, state.b, state.depth);
  if (!pair) return legend;
  const { start, size } = page.passages[state.passage];
  let apart = 0;
  for (let n = start; n < start + size; n += 1) apart += differs(n);
  const here = state.disagree ? ` Marked: the ${apart} of ${size} tokens here on which they differ.` : "";
  return `${legend}In layer ${state.depth}, A and B prefer partners for ${percent(pair.agreement)} of ` +
    `all tokens (shuffled: ${percent(pair.null)}).${here}`;
}

function drawText() {
  fill();
  const [one, other] = PANES.map((pane) => runs[state[pane]].layers.get(state.depth));
  const partner = partners(state.a, state.b, state.depth);
  const differs = (n) => Boolean(partner) && !agrees(one, other, partner, n);
  const lit = spotlights();
  for (const pane of PANES) {
    paint(pane, lit[pane], differs);
    offer(pane);
    paneOf(pane).querySelector(".figures").textContent = figuresOf(pane);
  }
  byId("note").textContent = note(differs);
}

// What is shown, kept in the fragment of the address, so that a link opens the same view.

const COLOURS = ["expert", "loss", "margin"];
const state = {};
const watchers = [];

/** The example that the page was made with. */
function opening() {
  const { a, b, depth, passage, token, expert, mode } = page.start;
  const start = page.passages[passage].start;
  return {
    a, b, depth, passage, colour: "expert", disagree: mode === "disagree",
    token: expert === null ? start + token : null,
    expert: expert === null ? null : { pane: "a", number: expert },
  };
}

/** The state that a fragment names; what it does not name, or wrongly, is that of `base`. */
function parsed(fragment, base) {
  const said = new URLSearchParams(fragment.replace(/^#/, ""));
  const number = (name, end, other) => {
    const value = said.get(name);
    return value !== null && /^\d+$/.test(value) && Number(value) < end ? Number(value) : other;
  };
  const next = { ...base };
  next.a = number("a", runs.length, base.a);
  next.b = number("b", runs.length, base.b);
  next.passage = number("passage", page.passages.length, base.passage);
  const depth = number("layer", Infinity, base.depth);
  next.depth = page.depths.includes(depth) ? depth : base.depth;
  next.colour = COLOURS.includes(said.get("colour")) ? said.get("colour") : base.colour;
  if ([...said].length === 0) return next;
  next.disagree = said.get("disagree") === "1" && runs.length > 1;
  const { start, size } = page.passages[next.passage];
  const token = number("token", size, null);
  next.token = token === null ? null : start + token;
  const expert = /^([ab])(\d+)$/.exec(said.get("expert") || "");
  const layer = expert && runs[next[expert[1]]].layers.get(next.depth);
  next.expert = layer && Number(expert[2]) < layer.experts
    ? { pane: expert[1], number: Number(expert[2]) } : null;
  return next;
}

function fragment() {
  const said = new URLSearchParams({
    a: state.a, b: state.b, layer: state.depth, passage: state.passage, colour: state.colour,
  });
  if (state.disagree) said.set("disagree", "1");
  if (state.token !== null) said.set("token", state.token - page.passages[state.passage].start);
  if (state.expert) said.set("expert", state.expert.pane + state.expert.number);
  return `#${said}`;
}

/** Takes the changes over and draws again. */
function set(changes) {
  Object.assign(state, changes);
  for (const pane of ["a", "b"]) {
    const layer = runs[state[pane]].layers.get(state.depth);
    if (state.expert?.pane === pane && !(state.expert.number < layer?.experts)) state.expert = null;
  }
  history.replaceState(null, "", fragment());
  watchers.forEach((draw) => draw());
}

function goTo(passage) {
  if (passage < 0 || passage >= page.passages.length) return;
  set({ passage, token: null });
}

function goDeeper(by) {
  const place = page.depths.indexOf(state.depth) + by;
  if (place in page.depths) set({ depth: page.depths[place] });
}

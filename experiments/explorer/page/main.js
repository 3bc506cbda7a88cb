// The controls, and the start.

let cameFrom = null; // what had the focus before something was selected

/** Shows a token or an expert; on a narrow screen the sheet comes up. */
function pick(changes) {
  const active = document.activeElement;
  if (!byId("inspector").contains(active)) cameFrom = active;
  const token = changes.token ?? null;
  document.body.classList.add("picked");
  set({ ...changes, expert: changes.expert ?? null, token: token ?? state.token });
  if (token === null) byId("selected").scrollTop = 0;
}

function closeSelected() {
  document.body.classList.remove("picked");
  set({ token: null, expert: null });
  if (cameFrom?.isConnected) cameFrom.focus();
}

function toggleDisagree() {
  if (runs.length > 1) set({ disagree: !state.disagree });
}

function exchange() {
  const expert = state.expert && { ...state.expert, pane: state.expert.pane === "a" ? "b" : "a" };
  set({ a: state.b, b: state.a, expert });
}

/** Brings a token of the passage into view. */
function reveal(n) {
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const pane = state.expert?.pane ?? "a";
  tokensOf(pane).querySelector(`[data-n="${n}"]`)
    ?.scrollIntoView({ block: "nearest", behavior: calm ? "auto" : "smooth" });
}

/** "drama 3: first words", for the list of passages. */
function titleOf(passage) {
  let said = "";
  for (let i = 0; i < Math.min(12, passage.size); i += 1) said += word(text.id[passage.start + i]);
  const words = said.replace(INVISIBLE, (c) => (c === "\ufffd" ? "▯" : " ")).replace(/\s+/g, " ").trim().slice(0, 40);
  const desk = page.desks[passage.desk];
  return `${desk ? `${desk}: ` : ""}${words}…`;
}

function options(select, names) {
  select.replaceChildren(...names.map((name, i) => make("option", { value: i }, name)));
}

function drawControls() {
  byId("passage").value = state.passage;
  byId("before").disabled = state.passage === 0;
  byId("after").disabled = state.passage === page.passages.length - 1;
  byId("layer").value = page.depths.indexOf(state.depth);
  byId("layer").setAttribute("aria-valuetext", `layer ${state.depth}`);
  byId("depth").textContent = state.depth;
  byId("colour").value = state.colour;
  byId("disagree").setAttribute("aria-pressed", String(state.disagree));
  for (const pane of PANES) byId(`run-${pane}`).value = state[pane];
}

function start() {
  options(byId("passage"), page.passages.map((p, i) => `${i + 1}. ${titleOf(p)}`));
  byId("layer").max = page.depths.length - 1;
  for (const pane of PANES) {
    options(byId(`run-${pane}`), runs.map((run) => run.label));
    byId(`run-${pane}`).addEventListener("change", (event) => {
      set({ [pane]: Number(event.target.value) });
    });
    tokensOf(pane).addEventListener("click", (event) => {
      const token = event.target.closest(".token");
      if (!token) return;
      token.focus({ preventScroll: true });
      pick({ token: Number(token.dataset.n) });
    });
  }
  document.body.classList.toggle("single", runs.length === 1);
  byId("disagree").hidden = runs.length === 1;
  byId("passage").addEventListener("change", (event) => goTo(Number(event.target.value)));
  byId("before").addEventListener("click", () => goTo(state.passage - 1));
  byId("after").addEventListener("click", () => goTo(state.passage + 1));
  byId("layer").addEventListener("input", (event) => {
    set({ depth: page.depths[Number(event.target.value)] });
  });
  byId("colour").addEventListener("change", (event) => set({ colour: event.target.value }));
  byId("disagree").addEventListener("click", toggleDisagree);
  byId("close").addEventListener("click", closeSelected);
  document.addEventListener("keydown", onKey);
  addEventListener("hashchange", () => set(parsed(location.hash, opening())));
  watchers.push(drawText, drawSelected, drawControls);
  set(parsed(location.hash, opening()));
}

start();

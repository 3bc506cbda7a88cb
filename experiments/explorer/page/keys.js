// The keyboard: one place in each group takes the focus, arrows move it.

const STEPS = { ArrowLeft: -1, ArrowRight: 1 };

/** The neighbour in a group that an arrow leads to; up and down go by lines. */
function neighbour(group, from, key) {
  const all = [...group.children];
  const at = all.indexOf(from);
  if (key in STEPS) return all[at + STEPS[key]];
  if (key === "Home") return all[0];
  if (key === "End") return all[all.length - 1];
  const here = from.getClientRects()[0];
  const down = key === "ArrowDown";
  const others = (down ? all.slice(at + 1) : all.slice(0, at).reverse())
    .map((one) => ({ one, box: one.getClientRects()[0] }))
    .filter(({ box }) => box && (down ? box.top >= here.bottom - 4 : box.bottom <= here.top + 4));
  if (!others.length) return undefined;
  const line = others[0].box.top;
  const near = others.filter(({ box }) => Math.abs(box.top - line) < 6);
  near.sort((x, y) => Math.abs(x.box.left - here.left) - Math.abs(y.box.left - here.left));
  return near[0].one;
}

function moveFocus(event) {
  const arrows = ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End"];
  const group = event.target.closest(".tokens, .experts");
  if (!group || !arrows.includes(event.key)) return false;
  const next = neighbour(group, event.target, event.key);
  if (next) {
    event.target.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  }
  return true;
}

const SHORTCUTS = {
  "[": () => goDeeper(-1),
  "]": () => goDeeper(1),
  p: () => goTo(state.passage - 1),
  n: () => goTo(state.passage + 1),
  d: () => toggleDisagree(),
  x: () => exchange(),
};

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape") {
    closeSelected();
  } else if (event.target.closest("select, input")) {
    return;
  } else if (event.key in SHORTCUTS) {
    SHORTCUTS[event.key]();
  } else if (event.target.matches(".token") && ["Enter", " "].includes(event.key)) {
    pick({ token: Number(event.target.dataset.n), expert: null });
  } else if (!moveFocus(event)) {
    return;
  }
  event.preventDefault();
}

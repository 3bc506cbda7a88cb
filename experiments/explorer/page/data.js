// What the payload says, as typed arrays and questions about them.
"use strict";

const page = JSON.parse(document.getElementById("payload").textContent);
const TYPES = { u8: Uint8Array, u16: Uint16Array, u32: Uint32Array, bits: Uint8Array };
const NONE = 65535; // an expert without a partner

function whole(packed) {
  const raw = Uint8Array.from(atob(packed.data), (c) => c.charCodeAt(0));
  return new TYPES[packed.type](raw.buffer);
}

function real(packed) {
  const missing = packed.type === "u8" ? 255 : 65535;
  return Float32Array.from(whole(packed), (code) =>
    code === missing ? NaN : packed.zero + packed.step * code);
}

const text = Object.fromEntries(
  Object.entries(page.text).map(([name, packed]) => [name, whole(packed)]));
const count = whole(page.count);

let tokens = 0;
for (const passage of page.passages) {
  passage.start = tokens;
  tokens += passage.size;
}

const runs = page.runs.map((run) => ({
  ...run,
  loss: real(run.loss),
  layers: new Map(run.layers.map((layer, n) => [layer.depth, {
    ...layer,
    expert: whole(layer.expert),
    gate: real(layer.gate),
    margin: real(layer.margin),
    lost: layer.lost && whole(layer.lost),
    share: real(layer.share),
    deskShare: real(layer.desk_share),
    top: whole(layer.top),
    had: whole(layer.had),
    slot: whole(run.slots[n]),
  }])),
}));

/** The choices that token n made in a layer, best first: {expert, gate, lost}. */
function choices(layer, n) {
  const made = [];
  for (let k = n * layer.choices; k < (n + 1) * layer.choices; k += 1) {
    if (layer.expert[k] === layer.experts) continue;
    const lost = layer.lost !== null && ((layer.lost[k >> 3] >> (k & 7)) & 1) === 1;
    made.push({ expert: layer.expert[k], gate: layer.gate[k], lost });
  }
  return made;
}

/** The partners of run a's experts among those of run b: numbers, NONE, or null without a layer. */
function partners(a, b, depth) {
  const [one, other] = [runs[a].layers.get(depth), runs[b].layers.get(depth)];
  if (!one || !other) return null;
  if (a === b) return Array.from({ length: one.experts }, (_, e) => e);
  const found = whole(page.pairs[`${Math.min(a, b)},${Math.max(a, b)}`][depth].partner);
  if (a < b) return [...found];
  const turned = new Array(one.experts).fill(NONE);
  found.forEach((e, partner) => { if (e !== NONE) turned[e] = partner; });
  return turned;
}

/** Share of tokens on which two runs agree after matching, and that of shuffled choices. */
function agreement(a, b, depth) {
  if (a === b) return null;
  const pair = page.pairs[`${Math.min(a, b)},${Math.max(a, b)}`];
  return (pair && pair[depth]) || null;
}

/** Whether token n prefers partners in the two layers. */
function agrees(one, other, partner, n) {
  const e = one.expert[n * one.choices];
  return e !== one.experts && partner[e] === other.expert[n * other.choices];
}

/** Colours of b's experts: those of their partners in a, then the ones that a has not used. */
function slotsAfter(one, other, partner) {
  if (!one || !partner) return other.slot;
  const slot = new Array(other.experts).fill(-1);
  partner.forEach((to, e) => { if (to !== NONE) slot[to] = one.slot[e]; });
  let next = 0;
  const taken = new Set([...one.slot, ...slot]);
  return slot.map((own) => {
    if (own >= 0) return own;
    while (taken.has(next)) next += 1;
    taken.add(next);
    return next;
  });
}

function passageOf(n) {
  return page.passages.findIndex((p) => n >= p.start && n < p.start + p.size);
}

function word(id) {
  return id < page.vocabulary.length ? page.vocabulary[id] : null;
}

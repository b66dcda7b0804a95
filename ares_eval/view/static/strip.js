// The heat strip: an overview of the reply's entropy, and its tokens coloured by it, with HWE windows marked.

import { element, number } from "./dom.js";

const STEPS = 9;
const BLOCK = 300;
const FULL = 4; // nats; colours do not grow beyond

/** Step 0 to STEPS of a token's entropy. */
function step(value) {
  return value === null ? 0 : Math.min(STEPS, Math.round(STEPS * Math.sqrt(Math.max(value, 0) / FULL)));
}

/** The view of a trace; `state`: whether HWE is counted yet. */
export function strip(trace, state) {
  const n = trace.tokens.length;
  const inside = new Int8Array(n); // 1 in a window, 2 in a confirmed one
  for (const [first, stop, confirmed] of trace.windows) inside.fill(confirmed ? 2 : 1, first, stop);
  const starts = new Set(trace.windows.map(([first]) => first));
  const triggers = new Set(trace.triggers);
  const readout = element("output", { class: "readout", "aria-live": "polite" }, "Point at a token, or use ← and → after a click.");
  const spans = new Array(n);
  let chosen = -1;

  const choose = (i) => {
    if (i < 0 || i >= n || i === chosen) return;
    spans[chosen]?.classList.remove("chosen");
    chosen = i;
    spans[i].classList.add("chosen");
    readout.replaceChildren(...numbers(trace, i, inside[i]));
    readout.dataset.token = i;
    overview.mark(i);
  };

  const area = element("div", { class: "tokens said", tabindex: "0", role: "group", "aria-label": "Tokens of the reply",
    onpointerover: (event) => { const i = place(event.target); if (i !== null) choose(i); },
    onclick: (event) => { const i = place(event.target); if (i !== null) choose(i); },
    onkeydown: (event) => {
      const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!move) return;
      event.preventDefault();
      choose(Math.max(0, chosen + move));
      spans[chosen].scrollIntoView({ block: "nearest" });
    } });
  let block = element("div", { class: "block" });
  trace.tokens.forEach((token, i) => {
    const classes = ["t", `h${step(trace.entropy[i])}`];
    if (inside[i]) classes.push(inside[i] === 2 ? "confirmed" : "window");
    if (starts.has(i)) classes.push("begin");
    if (triggers.has(i)) classes.push("trigger");
    if (trace.answer && i >= trace.answer[0] && i < trace.answer[1]) classes.push("answer");
    const made = document.createElement("span");
    made.className = classes.join(" ");
    made.dataset.i = i;
    made.textContent = token;
    spans[i] = made;
    if (i === trace.boundary) block.append(element("span", { class: "boundary" }, "answer part"));
    block.append(made);
    // A block ends where the text breaks the line itself, so that it may be laid out apart.
    if (block.childElementCount > BLOCK && token.endsWith("\n")) {
      area.append(block);
      block = element("div", { class: "block" });
    }
  });
  area.append(block);
  const overview = canvas(trace, inside, (i) => { choose(i); spans[i].scrollIntoView({ block: "center" }); });
  return element("div", { class: "heat" }, facts(trace, state), overview.node, readout, legend(), area,
    trace.more ? element("p", { class: "quiet" }, `${number(trace.more)} more tokens are not shown.`) : null);
}

function place(target) {
  const i = target?.dataset?.i;
  return i === undefined ? null : Number(i);
}

function numbers(trace, i, inside) {
  const high = trace.high[i] === null ? "unknown" : number(trace.high[i], 4);
  const pair = (name, value) => element("span", { "data-name": name }, `${name} `, element("b", {}, value));
  return [
    pair("token", `${i}`), element("code", {}, JSON.stringify(trace.tokens[i])),
    pair("entropy", number(trace.entropy[i], 4)), pair("bounds", `${number(trace.low[i], 4)} to ${high}`),
    pair("log-prob", number(trace.logprob[i], 4)), pair("window mean", number(trace.mean[i], 4)),
    inside ? element("span", { class: "in" }, inside === 2 ? "in a confirmed HWE window" : "in an HWE window") : null,
  ].filter(Boolean);
}

function facts(trace, state) {
  const hwe = trace.tau === null
    ? (state === "counting" ? "HWE threshold is being counted; reload to see windows" : "no HWE threshold")
    : `${number(trace.positions)} HWE tokens in ${trace.windows.length} windows (w = ${trace.window}, tau = ${number(trace.tau, 4)} nats)`;
  const source = trace.estimate === "exact" ? "exact entropies" : `${trace.estimate} estimate from the top ${trace.top}`;
  return element("p", { class: "quiet facts" }, `${number(trace.tokens.length)} tokens · ${hwe} · ${source}, nats`);
}

function legend() {
  const steps = Array.from({ length: STEPS + 1 }, (_, i) => element("span", { class: `t h${i}` }, "\u2007\u2007"));
  return element("p", { class: "legend quiet" }, "0 ", ...steps, ` ${FULL} nats `, element("span", { class: "t window" }, "HWE window"), " ",
    element("span", { class: "t confirmed" }, "confirmed by a trigger word"), " ", element("span", { class: "t answer" }, "extracted answer"));
}

/** A bar a token (or the highest of several), windows below; a click goes to the token. */
function canvas(trace, inside, onchoose) {
  const node = element("canvas", { class: "overview", height: 56, role: "img", "aria-label": "Entropy along the reply" });
  const n = trace.tokens.length;
  let chosen = -1;
  const draw = () => {
    const wide = node.clientWidth, high = 56, scale = window.devicePixelRatio || 1;
    if (!wide) return;
    node.width = wide * scale;
    node.height = high * scale;
    const style = getComputedStyle(node), context = node.getContext("2d");
    const colour = (name) => style.getPropertyValue(`--${name}`).trim();
    context.scale(scale, scale);
    const bars = Math.min(n, wide), each = wide / bars, floor = high - 9;
    for (let bar = 0; bar < bars; bar++) {
      const from = Math.floor((bar * n) / bars), to = Math.max(from + 1, Math.floor(((bar + 1) * n) / bars));
      let top = 0, kind = 0;
      for (let i = from; i < to; i++) {
        top = Math.max(top, trace.entropy[i] ?? 0);
        kind = Math.max(kind, inside[i]);
      }
      const height = floor * Math.min(1, top / FULL);
      context.fillStyle = colour("heat");
      context.fillRect(bar * each, floor - height, Math.max(each - (each > 3 ? 1 : 0), 0.5), height);
      if (kind) {
        context.fillStyle = colour(kind === 2 ? "wrong" : "open");
        context.fillRect(bar * each, high - 6, Math.max(each, 1), 5);
      }
    }
    context.fillStyle = colour("muted");
    context.fillRect(0, floor, wide, 1);
    if (trace.tau !== null) {
      for (let x = 0; x < wide; x += 6) context.fillRect(x, floor - floor * Math.min(1, trace.tau / FULL), 3, 1);
    }
    if (chosen >= 0) {
      context.fillStyle = colour("ink");
      context.fillRect(((chosen + 0.5) / n) * wide - 0.5, 0, 1, high);
    }
  };
  new ResizeObserver(draw).observe(node);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  node.addEventListener("click", (event) => onchoose(Math.min(n - 1, Math.floor((event.offsetX / node.clientWidth) * n))));
  return { node, mark: (i) => { chosen = i; draw(); } };
}

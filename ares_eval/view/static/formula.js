// Text to DOM nodes: formulas by KaTeX, everything else as text nodes. Nothing of the text is ever read as HTML.

const CLOSERS = { "$$": "$$", "\\[": "\\]", "\\(": "\\)", "$": "$" };
const LONGEST = 2000;
const MOST = 400;

/** Nodes for `text`; `short`: an answer or reference, which is a formula as a whole where it holds a command. */
export function formulas(text, short = false) {
  const nodes = [];
  let plain = 0, at = 0, tried = 0;
  if (short && text.length <= LONGEST && /\\[a-zA-Z]/.test(text) && !/[$]|\\[([]/.test(text)) return [formula(text, false, text)];
  while (tried < MOST) {
    const next = opener(text, at);
    if (next === null) break;
    const [start, open] = next;
    tried += 1;
    const from = start + open.length;
    const end = open === "\\boxed{" ? brace(text, from) : closer(text, from, CLOSERS[open], open === "$");
    if (end < 0 || !text.slice(from, end).trim()) { at = from; continue; }
    const stop = end + (open === "\\boxed{" ? 1 : open.length);
    const source = text.slice(start, stop);
    if (start > plain) nodes.push(text.slice(plain, start));
    nodes.push(formula(open === "\\boxed{" ? source : text.slice(from, end), open === "$$" || open === "\\[", source));
    plain = at = stop;
  }
  if (plain < text.length) nodes.push(text.slice(plain));
  return nodes;
}

/** [place, opener] of the next one, or null. */
function opener(text, at) {
  for (let i = at; i < text.length; i++) {
    const c = text.charCodeAt(i);
    if (c === 36) return [i, text[i + 1] === "$" ? "$$" : "$"];
    if (c === 92) {
      if (text[i + 1] === "[" || text[i + 1] === "(") return [i, text.slice(i, i + 2)];
      if (text.startsWith("\\boxed{", i)) return [i, "\\boxed{"];
      if (text[i + 1] === "$") i++;
    }
  }
  return null;
}

function closer(text, from, close, inline) {
  const end = text.slice(from, from + LONGEST).indexOf(close);
  if (end <= 0) return -1;
  if (!inline) return from + end;
  // Prices are no formulas: "$5 and $7" has a space before its second dollar sign, or a digit after it.
  const body = text.slice(from, from + end);
  const bad = /^\s|\s$|\n/.test(body) || /\d/.test(text[from + end + 1] ?? "");
  return bad ? -1 : from + end;
}

/** The place of the brace that closes, or -1. */
function brace(text, from) {
  let depth = 1;
  for (let i = from; i < Math.min(text.length, from + LONGEST); i++) {
    if (text[i] === "\\") i++;
    else if (text[i] === "{") depth++;
    else if (text[i] === "}" && --depth === 0) return i;
  }
  return -1;
}

function formula(source, display, original) {
  const made = document.createElement("span");
  made.className = "formula";
  made.title = original;
  try {
    katex.render(source, made, { displayMode: display, throwOnError: true, trust: false, strict: "ignore", maxSize: 20, maxExpand: 200 });
  } catch {
    made.textContent = original;
  }
  return made;
}

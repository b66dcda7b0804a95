// One sample: question with pictures, reply as tokens or as text with formulas, verdict and its stages; one or two runs.

import { ask, element, link, number, verdict } from "./dom.js";
import { formulas } from "./formula.js";
import { strip } from "./strip.js";

const LONG = 400_000;

/** The view of a sample; `turns` are addresses of the ones before and after it, and of the list. */
export async function showSample(query, turns) {
  const key = { task: query.task, sample: query.sample, draw: query.draw ?? 0 };
  const runs = [query.run, ...(query.with ? [query.with] : [])];
  const found = await Promise.all(runs.map((run) =>
    ask("record", { run, ...key }).catch((error) => (run === query.run ? Promise.reject(error) : { missing: error.message }))));
  const turn = (name, text) => turns[name]
    ? element("a", { href: turns[name], "data-turn": name, title: name === "after" ? "key j" : "key k" }, text) : element("span", { class: "quiet" }, text);
  const draws = found[0].draws.length > 1
    ? element("nav", { class: "draws", "aria-label": "Draws" }, "Draws ", found[0].draws.map((draw) =>
      element("a", { href: link("sample", { ...query, draw: draw.draw }), "aria-current": draw.draw === Number(key.draw) ? "true" : null,
        class: `verdict ${draw.verdict.replace(" ", "-")}`, title: draw.verdict }, String(draw.draw))))
    : null;
  return [
    element("p", { class: "turns" }, turn("before", "← Before"), element("a", { href: turns.list }, "List"), turn("after", "After →")),
    element("h1", {}, `${key.task} / ${key.sample}`, Number(key.draw) ? ` #${key.draw}` : ""),
    element("p", { class: "quiet" }, [found[0].tier, found[0].level === null ? null : `level ${found[0].level}`,
      ...Object.entries(found[0].fields).map(([name, value]) => `${name}: ${value}`)].filter(Boolean).join(" · ")),
    draws,
    question(query.run, key, found[0]),
    element("div", { class: runs.length > 1 ? "sides" : "side" }, runs.map((run, i) => reply(run, key, found[i]))),
  ];
}

function question(run, key, record) {
  const parts = (record.messages ?? []).flatMap((message) => {
    const shown = message.parts.map((part) => (typeof part === "string" ? text(part) : picture(run, key, part.picture)));
    if (record.messages.length === 1) return shown;
    return message.role === "system" ? [element("details", {}, element("summary", {}, "system prompt"), shown)]
      : [element("h3", { class: "role" }, message.role), ...shown];
  });
  const options = record.answer.choices.length && !(record.messages ?? []).length
    ? element("ol", { type: "A" }, record.answer.choices.map((choice) => element("li", {}, choice))) : null;
  const references = Array.isArray(record.reference) ? record.reference : [record.reference];
  return element("section", { class: "question", "aria-label": "Question" },
    element("h2", {}, "Question"),
    parts.length ? parts : element("p", { class: "quiet" }, "The messages of this question are not recorded."), options,
    element("p", { class: "reference" }, element("b", {}, "Reference "), references.flatMap((one, i) => [i ? " or " : "", element("span", {}, formulas(one, true))]),
      element("small", {}, record.answer.type)));
}

function picture(run, key, digest) {
  const source = `/api/picture?${new URLSearchParams({ run, ...key, digest })}`;
  const image = element("img", { src: source, alt: "picture of the question", loading: "lazy" });
  image.addEventListener("error", async () => {
    const why = await fetch(source).then((answer) => answer.json()).then((value) => value.error).catch(() => "it cannot be shown");
    image.replaceWith(element("p", { class: "quiet missing" }, `Picture ${digest.slice(0, 12)}: ${why}`));
  }, { once: true });
  return image;
}

/** Text with its formulas; very long ones as they are. */
function text(content) {
  return element("div", { class: "said" }, content.length > LONG ? [content] : formulas(content));
}

function reply(run, key, record) {
  if (record.missing) return element("section", { class: "reply" }, element("h2", {}, run), element("p", {}, record.missing));
  const usage = record.usage;
  const facts = [usage.completion !== null ? `${number(usage.completion)} tokens${usage.estimated ? " (estimated)" : ""}` : null,
    usage.reasoning ? `${number(usage.reasoning)} of them reasoning` : null, record.truncated ? "cut at the token limit" : record.finish_reason,
    record.latency ? `${number(record.latency, 1)} s` : null, record.cached ? "from the cache" : null];
  const head = [element("h2", {}, record.model ?? run, element("small", {}, run)), element("p", { class: "quiet" }, facts.filter(Boolean).join(" · "))];
  if (record.cause) {
    return element("section", { class: "reply" }, head, element("p", {}, verdict("not measured"), ` ${record.cause.replaceAll("_", " ")}`),
      element("pre", {}, record.message ?? ""));
  }
  const plain = element("div", { class: "plain", hidden: record.trace !== null },
    record.reasoning ? [element("h3", { class: "role" }, "reasoning"), text(record.reasoning), element("h3", { class: "role" }, "answer")] : null,
    marked(record.text, record.marked), record.cut ? element("p", { class: "quiet" }, "Cut: the rest is in samples.jsonl.") : null);
  const heat = record.trace ? strip(record.trace, record.hwe) : null;
  const tab = (title, on, off) => element("button", { type: "button", "aria-pressed": on === heat, onclick: (event) => {
    on.hidden = false; off.hidden = true;
    for (const button of event.target.parentNode.children) button.setAttribute("aria-pressed", button === event.target);
  } }, title);
  return element("section", { class: "reply", "data-run": run }, head, judged(run, key, record),
    heat ? element("p", { class: "tabs" }, tab("Tokens and entropy", heat, plain), tab("Text and formulas", plain, heat))
      : element("p", { class: "quiet" }, "No token trace is recorded for this reply."),
    heat, plain);
}

/** The reply's text with the extracted answer marked. */
function marked(content, span) {
  if (!span || content.length > LONG) return text(content);
  const inside = content.slice(span[0], span[1]);
  // A formula that the mark would cut in two is better left whole: the mark goes around pieces of plain text only.
  return element("div", { class: "said" }, formulas(content.slice(0, span[0])), element("mark", { class: "answer" }, inside), formulas(content.slice(span[1])));
}

function judged(run, key, record) {
  const found = record.verdict;
  if (!found) return element("p", {}, verdict("unverifiable"), " not judged");
  const pairs = [["method", found.method], ["answer", found.extracted], ["compared", found.normalised ? found.normalised.join("  with  ") : null],
    ["reason", found.reason?.replaceAll("_", " ")], ["type", found.type + (found.guessed ? " (guessed)" : "")],
    ["characters", found.span ? `${found.span[0]} to ${found.span[1]}` : null], ["verifier", found.version]];
  const body = element("div", { class: "stages" });
  const details = element("details", { ontoggle: async () => {
    if (!details.open || body.childElementCount) return;
    try { body.replaceChildren(...stages(await ask("stages", { run, ...key }))); } catch (error) { body.textContent = error.message; }
  } }, element("summary", {}, "How it was judged"), definitions(pairs), body);
  return element("div", { class: "judged" }, element("p", {}, verdict(found.value), " ",
    found.extracted === null ? "" : element("span", { class: "extracted" }, formulas(found.extracted, true))), details);
}

function stages(found) {
  const area = found.answer_part;
  return [element("h3", { class: "role" }, "stages, judged again now"),
    definitions([["answer part", area ? `characters ${area[0]} to ${area[1]} of ${found.length}` : "none: thinking never ended"],
      ...found.candidates.map((one) => [`candidate: ${one.rule}`, `${one.span[0]} to ${one.span[1]}: ${one.text}`]),
      found.more ? ["", `${found.more} more candidates`] : null,
      ["method", found.verdict.method], ["verdict", `${found.verdict.value}${found.verdict.reason ? ` (${found.verdict.reason})` : ""}`],
      found.same ? null : ["note", "the recorded verdict differs: `ares-eval rescore` judges the run anew"]].filter(Boolean))];
}

function definitions(pairs) {
  return element("dl", {}, pairs.filter(([, value]) => value !== null && value !== undefined && value !== "")
    .flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]));
}

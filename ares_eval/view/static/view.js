// The page: which view the address asks for, the list of runs, and a run's records with their filters.

import { ask, element, link, number, verdict } from "./dom.js";
import { showSample } from "./sample.js";

const SIZE = 50;
const FACETS = { task: "Task", verdict: "Verdict", tier: "Tier", level: "Level", reason: "Reason" };
export const FILTERS = [...Object.keys(FACETS), "search", "truncated", "flip", "with", "sort", "order"];

const wide = matchMedia("(min-width: 52rem)");
const main = document.getElementById("main");
let shown = 0;

/** Show what the address asks for; a later call wins over an earlier one that is still being answered. */
async function route() {
  const turn = ++shown;
  const { page, query } = address();
  const problem = document.getElementById("problem");
  main.setAttribute("aria-busy", "true");
  try {
    const view = page === "run" ? await runView(query) : page === "sample" ? await sampleView(query) : await runsView();
    if (turn !== shown) return;
    problem.hidden = true;
    trail(page, query);
    main.replaceChildren(...view.filter(Boolean));
    main.removeAttribute("aria-busy");
    main.dataset.shown = location.hash;
    if (page !== "run") window.scrollTo(0, 0);
  } catch (error) {
    if (turn !== shown) return;
    main.removeAttribute("aria-busy");
    problem.textContent = error.message;
    problem.hidden = false;
  }
}

function address() {
  const [page, search = ""] = location.hash.replace(/^#\//, "").split("?");
  return { page, query: Object.fromEntries(new URLSearchParams(search)) };
}

function trail(page, query) {
  const parts = [];
  if (query.run) parts.push(element("a", { href: link("run", keep(query)) }, query.run));
  if (page === "sample") parts.push(element("span", {}, `${query.task} / ${query.sample}`));
  document.getElementById("trail").replaceChildren(...parts);
  document.title = [query.sample ?? query.run ?? "Runs", "ARES"].join(" · ");
}

/** What stays of an address when another page of the same run is opened. */
export function keep(query) {
  return Object.fromEntries(["run", ...FILTERS].filter((name) => query[name]).map((name) => [name, query[name]]));
}

// ---------------------------------------------------------------- runs

async function runsView() {
  const { folder, runs } = await ask("runs");
  if (!runs.length) return [element("h1", {}, "Runs"), element("p", {}, `There is no run below ${folder}.`)];
  const rows = runs.flatMap((run) => {
    const tasks = Object.entries(run.tasks);
    return (tasks.length ? tasks : [["", null]]).map(([task, found], i) =>
      element("tr", { class: i ? null : "first" },
        element("td", {}, i ? null : element("a", { href: link("run", { run: run.name }) }, run.model ?? run.name),
          i ? null : element("small", {}, run.name)),
        element("td", {}, i ? null : [run.created?.slice(0, 16).replace("T", " ") ?? "", " ",
          run.status === "complete" ? null : element("small", {}, run.status ?? "")]),
        element("td", {}, element("a", { href: link("run", { run: run.name, task }) }, task)),
        element("td", { class: "number" }, number(found?.n)),
        element("td", { class: "number" }, found?.accuracy == null ? "–" : number(100 * found.accuracy, 1),
          found?.ci95 ? element("small", {}, `${number(100 * found.ci95[0], 1)} to ${number(100 * found.ci95[1], 1)}`) : null),
        element("td", { class: "number" }, number(found?.tokens)),
        element("td", { class: "number" }, found?.not_measured ? number(found.not_measured) : "")));
  });
  const head = ["Run", "When", "Task", "n", "Accuracy %", "Tokens", "Not measured"];
  return [element("h1", {}, "Runs"), element("p", { class: "quiet" }, `below ${folder}`), table(head, rows, 3)];
}

function table(head, rows, numbersFrom) {
  return element("div", { class: "scroll" }, element("table", {},
    element("thead", {}, element("tr", {}, head.map((text, i) =>
      element("th", { scope: "col", class: i >= numbersFrom ? "number" : null }, text)))),
    element("tbody", {}, rows)));
}

// ---------------------------------------------------------------- records of a run

async function runView(query) {
  const first = Number(query.first ?? 0);
  const filters = keep(query);
  const [page, facets, all] = await Promise.all([
    ask("records", { ...filters, first, size: SIZE }), ask("facets", filters), ask("runs")]);
  // The address, not this list, says what holds now: a second click may come before the first one is answered.
  const go = (change) => { location.hash = link("run", { ...keep(address().query), ...change }); };
  const last = Math.min(first + page.rows.length, page.total);
  const turn = (to, text, disabled) =>
    element("button", { type: "button", disabled, onclick: () => go({ first: to || null }) }, text);
  const status = page.hwe === "ready" ? null
    : element("p", { class: "quiet" }, page.hwe === "counting" ? "HWE tokens are being counted; reload to see them." : `No HWE: ${page.hwe}.`);
  return [
    element("div", { class: "run" },
      element("aside", { "aria-label": "Filters" }, element("details", { class: "filters", open: wide.matches },
        element("summary", {}, "Filters"), controls(query, facets, all.runs, go))),
      element("section", { "aria-label": "Records" },
        element("p", { class: "count" }, element("output", { id: "total" }, number(page.total)), " records",
          page.total ? `, ${number(first + 1)} to ${number(last)} ` : " ",
          turn(Math.max(first - SIZE, 0), "Previous", first === 0), turn(first + SIZE, "Next", last >= page.total)),
        status, records(page, query, first, go))),
  ];
}

function controls(query, facets, runs, go) {
  const others = runs.filter((run) => run.name !== query.run);
  const search = element("input", { type: "search", name: "search", value: query.search ?? "", placeholder: "id, answer or reference" });
  const made = [
    element("form", { onsubmit: (event) => { event.preventDefault(); go({ search: search.value }); } },
      element("label", {}, "Search ", search)),
    element("label", { class: "tick" }, element("input", { type: "checkbox", name: "truncated", checked: query.truncated === "1",
      onchange: (event) => go({ truncated: event.target.checked ? "1" : null }) }), " truncated only"),
  ];
  if (others.length) {
    made.push(element("label", {}, "Beside ", select("with", [["", "no other run"], ...others.map((run) => [run.name, run.name])],
      query.with ?? "", (value) => go({ with: value, flip: value ? query.flip : null }))));
  }
  if (query.with) {
    made.push(element("label", {}, "Flips ", select("flip", [["", "all records"], ["any", "any flip"], ["lost", "right only here"],
      ["gained", "right only there"]], query.flip ?? "", (value) => go({ flip: value }))));
  }
  for (const [name, title] of Object.entries(FACETS)) {
    if (!facets[name].length) continue;
    made.push(element("fieldset", { "data-facet": name }, element("legend", {}, title), element("ul", {}, facets[name].map(({ value, n }) =>
      element("li", {}, element("button", { type: "button", "aria-pressed": query[name] === value, "data-value": value,
        onclick: () => go({ [name]: query[name] === value ? null : value }) },
      element("span", {}, value), element("small", {}, number(n))))))));
  }
  return made;
}

function select(name, options, chosen, onchange) {
  return element("select", { name, onchange: (event) => onchange(event.target.value) },
    options.map(([value, text]) => element("option", { value, selected: value === chosen }, text)));
}

function records(page, query, first, go) {
  const columns = [["sample", "Sample"], [null, "Tier"], [null, "Verdict"], ...(query.with ? [[null, "There"]] : []),
    [null, "Answer"], [null, "Reference"], ["tokens", "Tokens"], ...(page.hwe === "ready" ? [["hwe", "HWE"], ["mean", "Entropy"]] : [])];
  const head = columns.map(([key, text]) => {
    const sorted = key && query.sort === key;
    const next = !sorted ? "desc" : query.order === "desc" ? "asc" : null;
    return element("th", { scope: "col", class: ["Tokens", "HWE", "Entropy"].includes(text) ? "number" : null,
      "aria-sort": sorted ? (query.order === "desc" ? "descending" : "ascending") : null },
    key ? element("button", { type: "button", class: "sort", onclick: () => go({ sort: next && key, order: next }) },
      text, sorted ? (query.order === "desc" ? " ↓" : " ↑") : "") : text);
  });
  const rows = page.rows.map((row, i) => element("tr", {},
    element("td", {}, element("a", { href: link("sample", { ...keep(query), task: row.task, sample: row.sample, draw: row.draw,
      ftask: query.task, at: first + i }) }, row.sample, row.draw ? ` #${row.draw}` : ""), query.task ? null : element("small", {}, row.task)),
    element("td", {}, row.tier ?? "", row.level !== null && row.level !== row.tier ? element("small", {}, `level ${row.level}`) : null),
    element("td", {}, verdict(row.verdict), row.reason ? element("small", {}, row.reason.replaceAll("_", " ")) : null),
    query.with ? element("td", {}, verdict(row.other)) : null,
    element("td", { class: "said" }, row.answer ?? ""),
    element("td", { class: "said" }, row.reference ?? ""),
    element("td", { class: "number" }, number(row.tokens), row.truncated ? element("small", {}, "cut") : null),
    page.hwe === "ready" ? [element("td", { class: "number" }, number(row.hwe)), element("td", { class: "number" }, number(row.mean, 2))] : null));
  return element("div", { class: "scroll" }, element("table", { id: "records" },
    element("thead", {}, element("tr", {}, head)), element("tbody", {}, rows)));
}

// ---------------------------------------------------------------- one sample

/** The sample's own task hides the filter of the same name, which travels as ftask. */
async function sampleView(query) {
  const filters = { ...keep(query), task: query.ftask };
  const at = query.at === undefined ? null : Number(query.at);
  const beside = at === null ? [] : (await ask("records", { ...filters, first: Math.max(at - 1, 0), size: at ? 3 : 2 })).rows;
  const to = (row, place) => row && link("sample", { ...keep(query), task: row.task, sample: row.sample, draw: row.draw, ftask: query.ftask, at: place });
  const before = at ? to(beside[0], at - 1) : null;
  const after = at === null ? null : to(beside[at ? 2 : 1], at + 1);
  return showSample(query, { before, after, list: link("run", { ...filters, first: at ? Math.floor(at / SIZE) * SIZE || null : null }) });
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea")) return;
  const name = { j: "after", k: "before" }[event.key];
  const target = name && document.querySelector(`a[data-turn="${name}"]`);
  if (target) location.hash = target.getAttribute("href");
});

window.addEventListener("hashchange", route);
route();

// Building blocks: elements whose texts are always text nodes, requests, numbers for people.

/** element("td", {class: "number"}, child, "text", ...): attributes by name, on* as listeners; null children left out. */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || (value === false && !key.startsWith("aria-"))) continue;
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value === true && !key.startsWith("aria-") ? "" : String(value));
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

/** JSON of an address below /api; throws the server's own words. */
export async function ask(path, query = {}) {
  const known = Object.entries(query).filter(([, value]) => value !== undefined && value !== null && value !== "");
  const answer = await fetch(`/api/${path}?${new URLSearchParams(known)}`);
  const value = await answer.json().catch(() => ({ error: `${answer.status} ${answer.statusText}` }));
  if (!answer.ok) throw new Error(value.error ?? `${answer.status}`);
  return value;
}

/** "#/name?a=b" of a page and its query; empty values are left out. */
export function link(page, query = {}) {
  const known = Object.entries(query).filter(([, value]) => value !== undefined && value !== null && value !== "");
  return `#/${page}?${new URLSearchParams(known)}`;
}

/** A number with so many digits after the point, or a dash. */
export function number(value, digits = 0) {
  if (value === null || value === undefined) return "–";
  return value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

/** A verdict with its colour. */
export function verdict(value) {
  return element("span", { class: `verdict ${String(value).replace(" ", "-")}` }, value ?? "none");
}

"use strict";
// Filters, pages and diffs of the error browser. The data's layout is described in browser.py, browser_data.
(() => {
  const PAGE = 50;
  const LONGEST_ID = 120;
  const data = JSON.parse(document.getElementById("data").textContent);
  const field = Object.fromEntries(
    ["language", "run", "kind", "other", "sort", "text", "heard"].map((id) => [id, document.getElementById(id)]));
  const runs = new Map(data.runs.map((run) => [run.name, run]));
  const KINDS = {
    any: ["every error", (entry) => entry],
    all: ["every utterance", () => true],
    severe: [`WER above ${data.severe}`, (entry, place) => entry && werOf(entry, place) > data.severe],
    s: ["substitutions", (entry) => entry && entry[1].includes("s")],
    d: ["deletions", (entry) => entry && entry[1].includes("d")],
    i: ["insertions", (entry) => entry && entry[1].includes("i")],
    won: ["wrong here, right in the other run", (entry, place, other) => entry && other && other.transcripts[place] === 0],
    lost: ["right here, wrong in the other run", (entry, place, other) => entry === 0 && other && other.transcripts[place]],
  };
  for (const kind of data.kinds) KINDS[`kind:${kind}`] = [`kind: ${kind}`, (entry) => entry && entry[2] === kind];

  let found = [];
  let page = 0;

  function make(tag, content, className) {
    const element = document.createElement(tag);
    if (className) element.className = className;
    element.append(...[content ?? []].flat());
    return element;
  }

  function options(select, entries) {
    const before = select.value;
    select.replaceChildren(...entries.map(([value, title]) => new Option(title, value)));
    if (entries.some(([value]) => value === before)) select.value = before;
  }

  function words(text) {
    return text ? text.split(" ") : [];
  }

  // [operation, number of words] pairs of an alignment such as "e3s1i2"; a right transcript is all equal.
  function operations(entry, reference) {
    if (entry === 0) return [["e", words(reference).length]];
    return Array.from(entry[1].matchAll(/([esdi])(\d+)/g), (match) => [match[1], Number(match[2])]);
  }

  function errorsOf(entry) {
    if (!entry) return 0;
    return operations(entry).reduce((sum, [kind, size]) => sum + (kind === "e" ? 0 : size), 0);
  }

  function werOf(entry, place) {
    return errorsOf(entry) / Math.max(words(data.utterances[place][2]).length, 1);
  }

  // Control characters and those that turn the direction of what follows, as they are written in JSON: an id
  // may hold any of them.
  function visible(text) {
    return text.replace(/[\u0000-\u001f\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069]/g,
      (sign) => `\\u${sign.charCodeAt(0).toString(16).padStart(4, "0")}`);
  }

  // An id in its own direction; a very long one ends in dots, and the page's tooltip has it all.
  function shownId(id) {
    const signs = [...visible(id)];
    const element = make("bdi", signs.length > LONGEST_ID ? `${signs.slice(0, LONGEST_ID).join("")}…` : signs.join(""));
    element.title = id;
    return element;
  }

  function percent(rate) {
    return `${(100 * rate).toFixed(1)} %`;
  }

  function offerRuns() {
    const offered = data.runs.filter((run) => run.language === field.language.value);
    options(field.run, offered.map((run) => [run.name, `${run.title} (WER ${percent(run.wer)})`]));
    options(field.other, [["", "all runs"], ...offered.map((run) => [run.name, run.title])]);
  }

  function filter() {
    const run = runs.get(field.run.value);
    const other = runs.get(field.other.value);
    const [, holds] = KINDS[field.kind.value];
    const wanted = field.text.value.trim().toLowerCase();
    found = [];
    data.utterances.forEach((utterance, place) => {
      const entry = run.transcripts[place];
      if (entry === null || (field.heard.checked && !utterance[5]) || !holds(entry, place, other)) return;
      if (wanted && !`${utterance[0]} ${utterance[2]} ${entry ? entry[0] : ""}`.toLowerCase().includes(wanted)) return;
      found.push(place);
    });
    if (field.sort.value === "worst") {
      const errors = new Map(found.map((place) => [place, errorsOf(run.transcripts[place])]));
      found.sort((one, two) => errors.get(two) - errors.get(one) || one - two);
    } else if (field.sort.value === "longest") {
      found.sort((one, two) => data.utterances[two][3] - data.utterances[one][3] || one - two);
    }
    page = 0;
    show();
    history.replaceState(null, "", `#${new URLSearchParams(state())}`);
  }

  function state() {
    const values = { run: field.run.value, kind: field.kind.value };
    if (field.other.value) values.other = field.other.value;
    if (field.sort.value !== "worst") values.sort = field.sort.value;
    if (field.text.value) values.text = field.text.value;
    return values;
  }

  function restore() {
    const asked = new URLSearchParams(location.hash.slice(1));
    const run = runs.get(asked.get("run")) ?? data.runs[0];
    field.language.value = run.language;
    offerRuns();
    field.run.value = run.name;
    field.kind.value = Object.hasOwn(KINDS, asked.get("kind")) ? asked.get("kind") : "any";
    field.other.value = runs.get(asked.get("other"))?.language === run.language ? asked.get("other") : "";
    field.sort.value = ["order", "longest"].includes(asked.get("sort")) ? asked.get("sort") : "worst";
    field.text.value = asked.get("text") ?? "";
    filter();
  }

  function show() {
    const pages = Math.max(Math.ceil(found.length / PAGE), 1);
    const shown = found.slice(page * PAGE, (page + 1) * PAGE);
    document.getElementById("count").textContent =
      `${found.length.toLocaleString("en")} utterances` + (KINDS[field.kind.value][0].includes("other run") && !field.other.value
        ? ": choose the other run under “Beside it”" : "");
    document.getElementById("page").textContent = `page ${page + 1} of ${pages}`;
    document.getElementById("previous").disabled = page === 0;
    document.getElementById("next").disabled = page + 1 >= pages;
    document.getElementById("list").replaceChildren(...shown.map(card));
  }

  function card(place) {
    const [id, , reference, seconds, speaker, clip] = data.utterances[place];
    const run = runs.get(field.run.value);
    const entry = run.transcripts[place];
    const rest = [`${seconds} s`, speaker && visible(String(speaker)), clip && "with audio",
      `WER ${percent(werOf(entry, place))}`, entry && entry[2]].filter(Boolean).join(" · ");
    const about = [shownId(id), ` · ${rest}`];
    const details = make("details");
    details.dataset.id = id;
    details.append(make("summary", [
      make("span", about, "about"),
      make("span", [make("span", "reference", "who"), make("bdi", reference || "(nothing)")], "line"),
      make("span", [make("span", "heard", "who"), make("bdi", entry === 0 ? "(the same)" : entry[0] || "(nothing)")], "line"),
    ]));
    details.addEventListener("toggle", () => {
      if (details.open && details.children.length === 1) details.append(body(place));
    });
    return details;
  }

  function body(place) {
    const [id, language, reference, , , clip] = data.utterances[place];
    const inside = make("div", [], "body");
    if (clip) {
      const player = make("audio");
      Object.assign(player, { controls: true, preload: "metadata", src: clip });
      player.setAttribute("aria-label", `Clip ${id}`);
      inside.append(player);
    }
    const chosen = field.other.value ? [field.run.value, field.other.value]
      : [field.run.value, ...data.runs.filter((run) => run.language === language && run.name !== field.run.value).map((run) => run.name)];
    for (const name of chosen) {
      const run = runs.get(name);
      const entry = run.transcripts[place];
      if (entry !== null) inside.append(diff(run, entry, reference, place));
    }
    return inside;
  }

  // Three rows: what was said, what was heard, and a letter under each error, so that colour is not all.
  function diff(run, entry, reference, place) {
    const said = words(reference);
    const heard = entry === 0 ? said : words(entry[0]);
    const titles = entry === 0 ? ["reference", "heard"] : ["reference", "heard", "error"];
    const rows = titles.map((title) => {
      const row = make("tr", make("th", title));
      row.firstChild.scope = "row";
      return row;
    });
    if (rows[2]) rows[2].className = "marks";
    let [from, to] = [0, 0];
    for (const [kind, size] of operations(entry, reference)) {
      for (let word = 0; word < size; word += 1) {
        const mark = kind === "e" ? "" : kind;
        rows[0].append(make("td", kind === "i" ? "" : said[from++], mark));
        rows[1].append(make("td", kind === "d" ? "" : heard[to++], mark));
        rows[2]?.append(make("td", mark.toUpperCase(), mark));
      }
    }
    const kind = entry && entry[2] ? `, ${entry[2]}` : "";
    const table = make("table", [
      make("caption", `${run.title}: WER ${percent(werOf(entry, place))}${kind}`), make("tbody", rows)]);
    const scroller = make("div", table, "diff");
    scroller.dataset.run = run.name;
    scroller.tabIndex = 0;
    return scroller;
  }

  function turn(step) {
    page += step;
    show();
    document.getElementById("count").scrollIntoView({ block: "start" });
  }

  options(field.language, Object.entries(data.languages));
  options(field.kind, Object.entries(KINDS).map(([value, [title]]) => [value, title]));
  field.language.addEventListener("change", () => { offerRuns(); filter(); });
  for (const name of ["run", "kind", "other", "sort", "heard"]) field[name].addEventListener("change", filter);
  let typing;
  field.text.addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(filter, 150); });
  const form = document.getElementById("filters");
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(() => { location.hash = ""; restore(); }));
  document.getElementById("previous").addEventListener("click", () => turn(-1));
  document.getElementById("next").addEventListener("click", () => turn(1));
  addEventListener("hashchange", () => { if (location.hash !== `#${new URLSearchParams(state())}`) restore(); });
  restore();
})();

"use strict";
// Everything from the run enters the page as text nodes, never as markup.
(() => {
  const $ = (id) => document.getElementById(id);

  function make(tag, attributes = {}, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else if (value !== null && value !== false) node.setAttribute(name, value === true ? "" : value);
    }
    node.append(...children);
    return node;
  }

  const theme = $("theme");
  theme.hidden = false;
  theme.addEventListener("click", () => {
    const root = document.documentElement;
    const dark = root.dataset.theme
      ? root.dataset.theme === "dark"
      : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });

  if (!$("list")) return;

  // Base64 of a gzip file that holds JSON.
  async function unpack(text) {
    const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).json();
  }

  // Texts of attempts are unpacked, block by block, when they are shown or searched.
  const packed = [...document.querySelectorAll("script.block")];
  const unpacked = [];
  const block = (number) => (unpacked[number] ??= unpack(packed[number].textContent));

  const filter = { run: "", arm: "", step: "", hidden: new Set(), search: "", scored: false, order: "file" };
  let data;
  let found = null; // attempts with the text searched for; null: all
  let page = 0;
  let perPage = 10;
  let heat = true;

  async function open() {
    data = await unpack($("index").textContent);
    data.samples = data.samples.map((values) => {
      const sample = Object.fromEntries(data.facts.map((fact, place) => [fact, values[place]]));
      sample.problem = data.problems[sample.problem];
      sample.arm = data.lines[sample.line].arm;
      return sample;
    });
    controls();
    await show();
  }

  // Nats of log q − log p that get the full colour.
  const FULL = 3;
  // Blue where the teacher would sooner have written the token, orange where it would not.
  const colour = (ratio) =>
    `rgba(${ratio > 0 ? "38, 124, 222" : "226, 106, 16"}, ${(0.62 * Math.min(Math.abs(ratio) / FULL, 1)).toFixed(3)})`;

  // Which token each character of the proof belongs to. Tokens and proof may differ in
  // blanks, which a trimmed proof has lost; tokens that are not in the proof at their
  // turn (an end marker, say) are returned apart.
  function align(characters, tokens) {
    const owner = new Array(characters.length).fill(-1);
    const apart = [];
    let cursor = 0;
    const fits = (wanted, start) => wanted.every((character, offset) => characters[start + offset] === character);
    tokens.forEach((token, index) => {
      const whole = Array.from(token);
      const body = Array.from(token.trimStart());
      let blank = cursor;
      while (blank < characters.length && /\s/.test(characters[blank])) blank += 1;
      let end = cursor;
      if (fits(whole, cursor)) end = cursor + whole.length;
      else if (fits(body, blank)) end = blank + body.length;
      if (end === cursor) apart.push(index);
      while (cursor < end) owner[cursor++] = index;
    });
    return { owner, apart };
  }

  function tokenSpan(sample, index, text) {
    const nats = sample.kl[index];
    const ratio = sample.log_ratio?.[index]; // runs of old have none
    const scored = nats !== null && nats !== undefined;
    const node = make("span", { class: scored ? "token" : "token unscored", "data-token": sample.tokens[index], "data-nats": nats ?? "", "data-ratio": ratio ?? "" }, text);
    if (ratio !== null && ratio !== undefined) node.style.backgroundColor = colour(ratio);
    return node;
  }

  function proofView(sample) {
    const characters = Array.from(sample.proof);
    const scored = heat && sample.kl ? align(characters, sample.tokens) : null;
    const starts = [0];
    characters.forEach((character, place) => { if (character === "\n") starts.push(place + 1); });
    if (starts.length > 1 && starts.at(-1) === characters.length) starts.pop();
    const end = (line) => {
      const next = line < starts.length ? starts[line] - 1 : characters.length;
      return characters[next - 1] === "\n" ? next - 1 : next;
    };
    const wrong = new Set();
    const marked = new Set();
    for (const message of sample.messages) {
      if (message.severity !== "error" || message.line < 1) continue;
      const line = Math.min(message.line, starts.length);
      wrong.add(line);
      const from = starts[line - 1] + message.column;
      const until = message.end_line
        ? (starts[message.end_line - 1] ?? characters.length) + message.end_column
        : from;
      for (let place = from; place < until; place += 1) marked.add(place);
    }
    const view = make("pre", { class: "proof" });
    starts.forEach((start, index) => {
      const line = index + 1;
      const code = make("span");
      let place = start;
      while (place < end(line)) {
        const owner = scored ? scored.owner[place] : -1;
        const mark = marked.has(place);
        let stop = place + 1;
        while (stop < end(line) && (scored ? scored.owner[stop] : -1) === owner && marked.has(stop) === mark) stop += 1;
        const text = characters.slice(place, stop).join("");
        const node = owner >= 0 ? tokenSpan(sample, owner, text) : make("span", {}, text);
        if (mark) node.classList.add("mark");
        code.append(node);
        place = stop;
      }
      const newline = scored && characters[end(line)] === "\n" ? scored.owner[end(line)] : -1;
      if (newline >= 0) code.append(tokenSpan(sample, newline, "↵"));
      if (!code.childNodes.length) code.append("\u200b");
      view.append(make("div", { class: wrong.has(line) ? "line error" : "line", "data-line": line }, make("span", {}, String(line)), code));
    });
    const ends = make("div", { class: "ends" });
    for (const index of scored ? scored.apart : []) {
      ends.append(tokenSpan(sample, index, sample.tokens[index].replace(/\n/g, "↵").replace(/ /g, "␣") || "⟨end⟩"), " ");
    }
    return ends.childNodes.length ? [view, ends] : [view];
  }

  function messageView(message, proof) {
    const inside = message.line >= 1;
    const where = inside ? `line ${message.line}, column ${message.column}` : "in the statement";
    const light = (on) => {
      const line = proof.querySelector(`[data-line="${Number(message.line)}"]`);
      if (line) line.classList.toggle("hover", on);
    };
    const severity = ["error", "warning"].includes(message.severity) ? message.severity : "info";
    return make("div", { class: `message ${severity}`, onmouseenter: () => light(true), onmouseleave: () => light(false) },
      make("div", { class: "where" }, make("b", {}, message.severity), ` · ${where}`),
      make("pre", {}, message.text));
  }

  const lineName = (line) => make("b", { class: `arm arm-${data.lines[line].place}` }, data.lines[line].label);
  const statusDot = (status) => make("i", { class: `dot ${data.statuses.includes(status) ? status : ""}` });
  const fixed = (value, digits) => value.toFixed(digits);

  function sampleView(sample) {
    const facts = data.runs.length > 1 ? [data.runs[sample.run]] : [];
    facts.push(`step ${sample.step}`, `attempt ${sample.attempt}`);
    facts.push(sample.reward === null ? "no reward" : `reward ${Number(sample.reward.toPrecision(4))}`);
    if (sample.mean !== null) facts.push(`KL mean ${fixed(sample.mean, 3)}, max ${fixed(sample.top, 2)} nats`);
    // Another judge than Lean gives a reward and no messages.
    const lean = sample.status !== "judged";
    const left = make("div", {},
      make("p", { class: "label" }, lean ? "Statement" : "Problem"),
      make("pre", { class: "statement" }, sample.statement),
      make("p", { class: "label" }, lean ? "Proof" : "Attempt"),
      ...proofView(sample));
    const right = make("div", {});
    if (lean) right.append(make("p", { class: "label" }, "Lean"));
    for (const message of sample.messages) right.append(messageView(message, left));
    if (lean && !sample.messages.length) {
      right.append(make("p", { class: "none" }, sample.status === "crashed" ? "The verifier failed: no verdict." : "No messages."));
    }
    sample.calls.forEach((call, index) => {
      left.append(
        make("p", { class: "label" }, `Call ${index + 1}: ${call.tool || "unreadable"}, ${call.ended}`),
        make("pre", {}, Object.entries(call.arguments).map((pair) => pair.join(": ")).join("\n")),
        make("pre", {}, call.answer));
    });
    if (sample.feedback !== null) {
      right.append(make("p", { class: "label" }, "Feedback to the teacher"), make("pre", {}, sample.feedback));
    }
    return make("article", { class: "sample" },
      make("header", {},
        make("span", { class: "status" }, statusDot(sample.status), sample.status),
        lineName(sample.line),
        make("button", { type: "button", class: "problem", title: "Show attempts at it", onclick: () => showProblem(sample.problem) }, sample.problem),
        make("span", { class: "meta" }, facts.join(" · "))),
      right.childNodes.length
        ? make("div", { class: "columns" }, left, right)
        : make("div", { class: "columns alone" }, left));
  }

  const ORDERS = {
    file: ["in order of training", () => 0],
    newest: ["newest first", (a, b) => b.step - a.step],
    mean: ["highest mean KL", (a, b) => (b.mean ?? -1) - (a.mean ?? -1)],
    top: ["highest token KL", (a, b) => (b.top ?? -1) - (a.top ?? -1)],
    long: ["longest attempt", (a, b) => b.length - a.length],
  };

  const matches = (sample, anyStatus) =>
    (!filter.run || data.runs[sample.run] === filter.run) &&
    (!filter.arm || sample.arm === filter.arm) &&
    (!filter.step || String(sample.step) === filter.step) &&
    (!filter.scored || sample.mean !== null) &&
    (!found || found.has(sample)) &&
    (anyStatus || !filter.hidden.has(sample.status));

  // Attempts whose problem, statement or proof holds the text; null when another text
  // is searched for meanwhile.
  async function search(text) {
    const fits = new Set();
    const places = new Map(data.samples.map((sample) => [`${sample.block} ${sample.place}`, sample]));
    for (let number = 0; number < packed.length; number += 1) {
      for (const [place, texts] of (await block(number)).entries()) {
        const sample = places.get(`${number} ${place}`);
        const all = `${sample.problem}\n${texts.statement}\n${texts.proof}`;
        if (all.toLowerCase().includes(text)) fits.add(sample);
      }
      if (filter.search !== text) return null;
    }
    return fits;
  }

  async function searchFor(text) {
    const asked = text.trim().toLowerCase();
    filter.search = asked;
    if (asked) $("pages").replaceChildren(make("span", { role: "status" }, "Searching…"));
    const fits = asked ? await search(asked) : null;
    if (filter.search === asked) await change(() => { found = fits; });
  }

  function showProblem(name) {
    $("controls").querySelector("input[type=search]").value = name;
    filter.search = name;
    return change(() => { found = new Set(data.samples.filter((sample) => sample.problem === name)); });
  }

  let shows = 0;

  async function show() {
    const turn = (shows += 1);
    const fits = data.samples.filter((sample) => matches(sample, false));
    if (filter.order !== "file") fits.sort(ORDERS[filter.order][1]);
    const last = Math.max(0, Math.ceil(fits.length / perPage) - 1);
    page = Math.min(page, last);
    const visible = fits.slice(page * perPage, (page + 1) * perPage);
    const texts = await Promise.all(visible.map(async (sample) => (await block(sample.block))[sample.place]));
    if (turn !== shows) return; // something else is shown meanwhile
    $("list").replaceChildren(...visible.map((sample, place) => sampleView({ messages: [], calls: [], ...texts[place], ...sample })));
    if (!visible.length) $("list").append(make("p", { class: "none" }, "No sample fits these filters."));
    const counts = {};
    for (const sample of data.samples) if (matches(sample, true)) counts[sample.status] = (counts[sample.status] || 0) + 1;
    for (const node of document.querySelectorAll("[data-status] .count")) {
      node.textContent = (counts[node.parentNode.dataset.status] || 0).toLocaleString("en");
    }
    const go = (to) => async () => { page = to; await show(); $("samples").scrollIntoView(); };
    const button = (text, to, off) => make("button", { type: "button", onclick: go(to), disabled: off }, text);
    const from = fits.length ? page * perPage + 1 : 0;
    $("pages").replaceChildren(
      make("span", { role: "status" }, `${from.toLocaleString("en")}–${(from ? from + visible.length - 1 : 0).toLocaleString("en")} of ${fits.length.toLocaleString("en")}`),
      button("« First", 0, page === 0), button("‹ Previous", page - 1, page === 0),
      button("Next ›", page + 1, page >= last), button("Last »", last, page >= last));
  }

  function change(update) {
    update();
    page = 0;
    return show();
  }

  function select(label, options, chosen, onChoice) {
    const node = make("select", { "aria-label": label, onchange: () => change(() => onChoice(node.value)) },
      ...options.map(([value, text]) => make("option", { value, selected: value === chosen }, text)));
    return node;
  }

  function controls() {
    const arms = [...new Set(data.samples.map((sample) => sample.arm))];
    const steps = [...new Set(data.samples.map((sample) => sample.step))].sort((a, b) => a - b);
    const statuses = [...new Set([...data.statuses, ...data.samples.map((sample) => sample.status)])]
      .filter((status) => data.samples.some((sample) => sample.status === status));
    const chips = make("div", { class: "chips", role: "group", "aria-label": "Statuses" },
      ...statuses.map((status) => {
        const node = make("button", {
          type: "button", "data-status": status, "aria-pressed": "true",
          onclick: () => change(() => {
            if (!filter.hidden.delete(status)) filter.hidden.add(status);
            node.setAttribute("aria-pressed", String(!filter.hidden.has(status)));
          }),
        }, statusDot(status), status, make("span", { class: "count" }));
        return node;
      }));
    let waiting;
    const text = make("input", { type: "search", placeholder: "Search problems and attempts", "aria-label": "Search",
      oninput: () => { clearTimeout(waiting); waiting = setTimeout(() => searchFor(text.value), 200); } });
    const runs = data.runs.length > 1
      ? [select("Run", [["", "all runs"], ...data.runs.map((run) => [run, run])], "", (value) => { filter.run = value; })]
      : [];
    const parts = [
      ...runs,
      select("Arm", [["", "all arms"], ...arms.map((arm) => [arm, arm])], "", (value) => { filter.arm = value; }),
      select("Step", [["", "all steps"], ...steps.map((step) => [String(step), `step ${step}`])], "", (value) => { filter.step = value; }),
      chips, text,
      select("Order", Object.entries(ORDERS).map(([value, [text]]) => [value, text]), "file", (value) => { filter.order = value; }),
      select("Samples on a page", [["10", "10 a page"], ["30", "30 a page"], ["100", "100 a page"]], "10", (value) => { perPage = Number(value); }),
    ];
    if (data.samples.some((sample) => sample.mean !== null)) {
      const only = make("input", { type: "checkbox", onchange: () => change(() => { filter.scored = only.checked; }) });
      const shown = make("input", { type: "checkbox", checked: true, onchange: () => { heat = shown.checked; show(); } });
      const ramp = make("i");
      ramp.style.background = `linear-gradient(90deg, ${colour(-FULL)}, transparent, ${colour(FULL)})`;
      parts.push(
        make("label", { class: "legend" }, only, "only with KL"),
        make("label", { class: "legend" }, shown, "colours"),
        make("span", { class: "legend" }, `with feedback less likely, ≤ −${FULL}`, ramp, `≥ ${FULL} nats, more likely`));
    }
    $("controls").append(...parts);
  }

  const tip = $("tip");
  $("list").addEventListener("pointerover", (event) => {
    const token = event.target.closest(".token");
    tip.hidden = !token;
    if (!token) return;
    const { nats, ratio } = token.dataset;
    const said = [];
    if (ratio !== "") said.push(`log q − log p ${Number(ratio) < 0 ? "−" : "+"}${Math.abs(Number(ratio)).toFixed(3)}`);
    if (nats !== "") said.push(`KL ${Number(nats).toFixed(3)} nats`);
    tip.textContent = `${JSON.stringify(token.dataset.token)}   ${said.join("   ") || "not scored"}`;
    const box = token.getBoundingClientRect();
    tip.style.left = `${Math.max(4, Math.min(box.left, innerWidth - tip.offsetWidth - 8))}px`;
    tip.style.top = `${box.top > 40 ? box.top - tip.offsetHeight - 5 : box.bottom + 5}px`;
  });
  $("list").addEventListener("pointerleave", () => { tip.hidden = true; });

  open();
})();

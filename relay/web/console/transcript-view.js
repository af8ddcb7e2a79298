/** The transcript on the page: one element per entry, touched only where something changed. */

import { STEPS, TOTAL } from "./turn-metrics.js";

const ICONS = { started: "…", progress: "…", done: "✓", failed: "✕", timeout: "✕", cancelled: "–" };
const STATUS_TEXT = {
  started: "running",
  progress: "running",
  done: "done",
  failed: "failed",
  timeout: "timed out",
  cancelled: "cancelled",
};
const RESPONSE_STATUS = { cancelled: "stopped", incomplete: "cut off by a limit of the model", failed: "failed" };
/** What a transcriber writes when it has no words, such as "[not understood]" or "[inaudible]". */
const REMARK = /^\[([^[\]]+)\]$/;
const MAX_SHOWN_JSON = 4000;
/** So close to its end, the transcript follows what comes. */
const FOLLOW_PX = 96;

/** @param {string} tag @param {string} className @param {(Node | string)[]} children */
function element(tag, className, ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...children);
  return node;
}

/** @param {number} ms */
export function duration(ms) {
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(ms < 10_000 ? 2 : 1)} s`;
}

export class TranscriptView {
  #list;
  #scroller;
  #transcript;
  /** @type {Map<number, HTMLElement>} */
  #nodes = new Map();
  /** Whether the reader is at the end, and so is kept there. */
  #following = true;
  #height = 0;

  /**
   * @param {import("./transcript.js").Transcript} transcript
   * @param {HTMLElement} list      receives the entries
   * @param {HTMLElement} scroller  is kept at its end while the reader is there
   */
  constructor(transcript, list, scroller) {
    this.#transcript = transcript;
    this.#list = list;
    this.#scroller = scroller;
    transcript.onChange = (entry) => this.#show(entry);
    transcript.onRemove = (entry) => this.#drop(entry);
    scroller.addEventListener("scroll", () => {
      const { scrollHeight, scrollTop, clientHeight } = scroller;
      if (clientHeight !== this.#height) return; // resized, which is not the reader's doing
      this.#following = scrollHeight - scrollTop - clientHeight < FOLLOW_PX;
    });
    // A notice or an on-screen keyboard takes room from the transcript.
    new ResizeObserver(() => {
      this.#height = scroller.clientHeight;
      this.#follow();
    }).observe(scroller);
  }

  #follow() {
    if (this.#following) this.#scroller.scrollTop = this.#scroller.scrollHeight;
  }

  /** @param {import("./transcript.js").Entry} entry */
  #show(entry) {
    const node = this.#nodes.get(entry.key) ?? this.#make(entry);
    this.#put(entry, node);
    if (entry.kind === "speech") fillSpeech(node, entry);
    else if (entry.kind === "tool") fillTool(node, entry);
    this.#follow();
  }

  /**
   * Puts the element where its entry is.
   *
   * @param {import("./transcript.js").Entry} entry
   * @param {HTMLElement} node
   */
  #put(entry, node) {
    const { entries } = this.#transcript;
    const after = entries[entries.indexOf(entry) + 1];
    const next = (after && this.#nodes.get(after.key)) ?? null;
    if (node.parentNode !== this.#list || node.nextElementSibling !== next) this.#list.insertBefore(node, next);
  }

  /** @param {import("./transcript.js").Entry} entry */
  #make(entry) {
    const node = element("li", `entry ${entry.kind}`);
    node.dataset.kind = entry.kind;
    if (entry.role) node.dataset.role = entry.role;
    if (entry.kind === "speech") {
      const who = entry.role === "user" ? "You" : "Relay";
      node.append(element("span", "who", who), element("p", "words"), element("div", "notes"));
    }
    if (entry.kind === "divider") node.append(element("span", "", entry.text));
    this.#nodes.set(entry.key, node);
    return node;
  }

  /** @param {import("./transcript.js").Entry} entry */
  #drop(entry) {
    this.#nodes.get(entry.key)?.remove();
    this.#nodes.delete(entry.key);
  }
}

/** @param {HTMLElement} node @param {import("./transcript.js").Entry} entry */
function fillSpeech(node, entry) {
  const [, words, notes] = /** @type {HTMLElement[]} */ ([...node.children]);
  // A screen reader waits until an entry is whole instead of reading every word as it comes.
  node.ariaBusy = String(!entry.done);
  node.dataset.state = entry.heard ? "interrupted" : entry.done ? "done" : "live";
  node.dataset.itemId = entry.id ?? "";
  words.replaceChildren(...wordsOf(entry));
  notes.replaceChildren(...notesOf(entry));
}

/** @param {import("./transcript.js").Entry} entry */
function wordsOf(entry) {
  if (entry.text === "" && !entry.heard) return [dots(entry.done ? "waiting for the transcript" : "speaking")];
  const remark = entry.role === "user" && !entry.typed && REMARK.exec(entry.text.trim());
  if (remark) return [element("em", "remark", remark[1][0].toUpperCase() + remark[1].slice(1))];
  if (!entry.heard) return [entry.text];
  const heard = entry.text === "" ? entry.heard.text : entry.text.slice(0, entry.heard.text.length);
  const unheard = entry.text.slice(heard.length).trimStart();
  const cut = element("s", "unheard", unheard);
  cut.title = "Not heard: the answer was interrupted here";
  return unheard === "" ? [heard] : [heard.trimEnd(), heard === "" ? "" : " ", cut];
}

/** @param {string} label */
function dots(label) {
  const node = element("span", "dots", element("i", ""), element("i", ""), element("i", ""));
  node.role = "img";
  node.ariaLabel = label;
  return node;
}

/** @param {import("./transcript.js").Entry} entry */
function notesOf(entry) {
  const notes = [];
  if (entry.heard) {
    const about = entry.heard.estimated ? "about " : "";
    notes.push(element("span", "note cut", `interrupted after ${about}${duration(entry.heard.playedMs)}`));
  } else if (entry.status) notes.push(element("span", "note cut", RESPONSE_STATUS[entry.status] ?? entry.status));
  if (entry.latency) notes.push(latencyNote(entry.latency));
  return notes;
}

/** The delay of a turn, with its steps to open. @param {any} latency */
function latencyNote(latency) {
  /** @param {import("./turn-metrics.js").Figure} figure */
  const isKnown = (figure) => typeof latency[figure.wire] === "number";
  const steps = STEPS.flatMap((step) => (step.parts.some(isKnown) ? step.parts : [step])).filter(isKnown);
  const list = element(
    "ul",
    "steps",
    ...steps.map((step) =>
      element(
        "li",
        "",
        element("span", "", `${step.labelAtClient} `),
        element("b", "", `${step.sign}${duration(latency[step.wire])}`),
      ),
    ),
  );
  const summary = element(
    "summary",
    "",
    element("span", "", "answered after "),
    element("b", "", duration(latency[TOTAL.wire])),
  );
  return element("details", "note latency", summary, list);
}

/** @param {HTMLElement} node @param {import("./transcript.js").Entry} entry */
function fillTool(node, { tool, done }) {
  const open = node.querySelector("details")?.open ?? false;
  const icon = element("span", "icon", ICONS[tool.status] ?? "?");
  icon.ariaHidden = "true";
  const time = done && typeof tool.ms === "number" ? ` · ${duration(tool.ms)}` : "";
  const status = element("span", "status", (STATUS_TEXT[tool.status] ?? tool.status) + time);
  const summary = element(
    "summary",
    "",
    icon,
    element("code", "name", tool.name),
    element("span", "arguments", brief(tool.arguments)),
    status,
  );
  const details = /** @type {HTMLDetailsElement} */ (element("details", "card", summary));
  details.open = open;
  if (!done && tool.text) details.append(element("p", "progress", tool.text));
  for (const [title, value] of [
    ["Arguments", tool.arguments],
    ["Result", tool.output],
  ]) {
    if (value !== undefined) details.append(element("h3", "", title), element("pre", "", pretty(value)));
  }
  node.dataset.status = tool.status;
  node.replaceChildren(details);
}

/** Arguments in one line. @param {unknown} args */
function brief(args) {
  if (typeof args !== "object" || args === null) return "";
  return Object.entries(args)
    .map(([name, value]) => `${name}: ${JSON.stringify(value)}`)
    .join(", ")
    .slice(0, 300);
}

/** @param {unknown} value */
function pretty(value) {
  const text = typeof value === "string" ? value : (JSON.stringify(value, null, 2) ?? "");
  return text.length > MAX_SHOWN_JSON ? `${text.slice(0, MAX_SHOWN_JSON)}…` : text;
}

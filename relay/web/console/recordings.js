/** The viewer of recordings: draws timeline.json and peaks.bin, plays both tracks. It requests nothing else. */

import { STEPS, TOTAL } from "./turn-metrics.js";

/** @template {HTMLElement} T @param {string} id @returns {T} */
const $ = (id) => /** @type {T} */ (document.getElementById(id));

const MIN_SPAN_S = 0.5;
const lanes = /** @type {HTMLCanvasElement} */ ($("lanes"));
const overview = /** @type {HTMLCanvasElement} */ ($("overview"));
const choice = /** @type {HTMLSelectElement} */ ($("choice"));

/** What is shown. @type {{timeline: any, user: Int8Array, relay: Int8Array, perSecond: number} | null} */
let shown = null;
let from = 0;
let span = 1;
/** The two tracks; they are on one clock, so they start and jump together. */
const tracks = [new Audio(), new Audio()];
let frame = 0;

/** @param {number} seconds */
function clock(seconds) {
  const minutes = Math.floor(seconds / 60);
  return `${minutes}:${(seconds - minutes * 60).toFixed(1).padStart(4, "0")}`;
}

/** @param {string} name */
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`);

const duration = () => Math.max((shown?.timeline.duration_ms ?? 0) / 1000, MIN_SPAN_S);

// ── drawing ─────────────────────────────────────────────────────────────────────────────────────────────────

/** @param {HTMLCanvasElement} canvas */
function surface(canvas) {
  const scale = devicePixelRatio || 1;
  const width = canvas.clientWidth;
  const height = Number(canvas.getAttribute("data-height") ?? canvas.height);
  canvas.setAttribute("data-height", String(height));
  canvas.style.height = `${height}px`;
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  pen.scale(scale, scale);
  return { pen, width, height };
}

/**
 * One side's outline: for each column the least and the greatest of what lies in it.
 *
 * @param {CanvasRenderingContext2D} pen @param {Int8Array} peaks @param {number} width
 * @param {number} middle @param {number} reach @param {number} start @param {number} length
 */
function outline(pen, peaks, width, middle, reach, start, length) {
  if (!shown) return;
  const perColumn = (length * shown.perSecond) / width;
  for (let x = 0; x < width; x++) {
    const first = Math.floor(start * shown.perSecond + x * perColumn);
    const last = Math.max(first + 1, Math.floor(start * shown.perSecond + (x + 1) * perColumn));
    let low = 0;
    let high = 0;
    for (let i = Math.max(first, 0); i < last && 2 * i + 1 < peaks.length; i++) {
      if (peaks[2 * i] < low) low = peaks[2 * i];
      if (peaks[2 * i + 1] > high) high = peaks[2 * i + 1];
    }
    if (high > low) pen.fillRect(x, middle - (high / 128) * reach, 1, Math.max(1, ((high - low) / 128) * reach));
  }
}

function draw() {
  if (!shown) return;
  drawOverview();
  const { pen, width, height } = surface(lanes);
  const { timeline } = shown;
  /** @param {number} ms */
  const x = (ms) => ((ms / 1000 - from) / span) * width;
  /** @param {number} start @param {number | null} end @param {number} top @param {number} tall @param {string} name */
  const bar = (start, end, top, tall, name) => {
    const left = Math.max(x(start), -1);
    const right = Math.min(x(end ?? timeline.duration_ms), width + 1);
    if (right < 0 || left > width) return;
    pen.fillStyle = colour(name);
    pen.fillRect(left, top, Math.max(right - left, 2), tall);
  };
  ruler(pen, width, height);
  for (const one of timeline.speech) bar(one.start_ms, one.end_ms, 22, 4, "you");
  for (const one of timeline.answers) bar(one.start_ms, one.end_ms, 128, 8, "answer");
  for (const one of timeline.heard) bar(one.start_ms, one.end_ms, 138, 4, "relay");
  for (const one of timeline.tools) bar(one.start_ms, one.end_ms, height - 22, 10, "tool");
  for (const one of timeline.latencies) {
    // It is reported later than what it measures, which ends with the first audio.
    const first = timeline.heard.find((item) => item.item_id === one.item_id)?.start_ms ?? one.at_ms;
    bar(first - one[TOTAL.name], first, height - 8, 5, "wait");
  }
  pen.fillStyle = colour("you");
  outline(pen, shown.user, width, 76, 46, from, span);
  pen.fillStyle = colour("relay");
  outline(pen, shown.relay, width, 188, 42, from, span);
  for (const one of timeline.barge_ins) bar(one.at_ms, one.at_ms, 126, 106, "bad");
  for (const one of timeline.marks) bar(one.at_ms, one.at_ms, 14, 6, "bad");
  bar(tracks[0].currentTime * 1000, tracks[0].currentTime * 1000, 14, height - 14, "ink");
  lanes.dataset.drawn = timeline.name;
}

function drawOverview() {
  if (!shown) return;
  const { pen, width, height } = surface(overview);
  pen.fillStyle = colour("you");
  outline(pen, shown.user, width, height * 0.28, height * 0.26, 0, duration());
  pen.fillStyle = colour("relay");
  outline(pen, shown.relay, width, height * 0.74, height * 0.24, 0, duration());
  pen.strokeStyle = colour("ink");
  pen.strokeRect((from / duration()) * width + 0.5, 0.5, Math.max((span / duration()) * width - 1, 2), height - 1);
}

/** @param {CanvasRenderingContext2D} pen @param {number} width @param {number} height */
function ruler(pen, width, height) {
  const step = [0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300, 600].find((one) => (one / span) * width > 70) ?? 1800;
  pen.font = "11px sans-serif";
  for (let at = Math.ceil(from / step) * step; at <= from + span; at += step) {
    const left = ((at - from) / span) * width;
    pen.fillStyle = colour("line");
    pen.fillRect(left, 14, 1, height - 14);
    pen.fillStyle = colour("quiet");
    pen.fillText(clock(at), left + 3, 11);
  }
}

function redraw() {
  if (frame) return;
  frame = requestAnimationFrame(() => {
    frame = 0;
    draw();
  });
}

/** @param {number} start @param {number} length */
function look(start, length) {
  span = Math.min(Math.max(length, MIN_SPAN_S), duration());
  from = Math.min(Math.max(start, 0), duration() - span);
  redraw();
}

// ── hearing ─────────────────────────────────────────────────────────────────────────────────────────────────

/** @param {number} seconds */
function seek(seconds) {
  const at = Math.min(Math.max(seconds, 0), duration());
  for (const track of tracks) track.currentTime = at;
  if (at < from || at > from + span) look(at - span / 4, span);
  $("clock").textContent = clock(at);
  redraw();
}

async function play() {
  if (tracks[0].paused) await Promise.all(tracks.map((track) => track.play()));
  else for (const track of tracks) track.pause();
  showPlaying();
}

function showPlaying() {
  $("play").textContent = tracks[0].paused ? "Play" : "Pause";
}

function follow() {
  const [one, other] = tracks;
  // They run on clocks of their own; the drift between them is corrected during silence.
  if (Math.abs(one.currentTime - other.currentTime) > 0.15 && !other.seeking) other.currentTime = one.currentTime;
  if (one.currentTime > from + span) look(one.currentTime, span);
  $("clock").textContent = clock(one.currentTime);
  redraw();
  showPlaying();
}

// ── words ───────────────────────────────────────────────────────────────────────────────────────────────────

/** @param {any} timeline */
function script(timeline) {
  const rows = [
    ...timeline.speech.map((one) => [one.start_ms, one.typed ? "typed" : "you", one.text || "(no transcript)"]),
    ...timeline.heard.map((one) => [one.start_ms, "relay", heardText(one)]),
    ...timeline.tools.map((one) => [one.start_ms, "tool", `${one.name} ${one.arguments} ${one.status} → ${one.output}`]),
    ...timeline.barge_ins.map((one) => [one.at_ms, "cut", `interrupted after ${one.played_ms} ms${one.estimated ? " (estimated)" : ""}`]),
    ...timeline.latencies.map((one) => [one.at_ms, "latency", `${one[TOTAL.name]} ms`]),
    ...timeline.marks.map((one) => [one.at_ms, one.kind, one.text]),
  ].sort((one, other) => one[0] - other[0]);
  $("script").replaceChildren(
    ...rows.map(([ms, kind, text]) => {
      const button = document.createElement("button");
      button.type = "button";
      const at = document.createElement("time");
      at.textContent = clock(ms / 1000);
      const who = document.createElement("span");
      who.className = who.textContent = kind;
      const words = document.createElement("span");
      words.textContent = text;
      button.append(at, who, words);
      button.addEventListener("click", () => seek(ms / 1000));
      const row = document.createElement("li");
      row.append(button);
      return row;
    }),
  );
}

/** The external voices that spoke. @param {any} timeline */
const voicesOf = (timeline) => [...new Set(timeline.heard.map((/** @type {any} */ one) => one.voice).filter(Boolean))];

/** @param {any} item */
const heardText = (item) => (item.heard_text === null ? item.text : `${item.heard_text} — ✂ ${item.text.slice(item.heard_text.length)}`);

/** The figures of each turn. @param {any[]} latencies */
function ledger(latencies) {
  const head = document.createElement("tr");
  for (const { label, meaning, parts = [] } of [{ label: "at", meaning: "" }, TOTAL, ...STEPS]) {
    const cell = document.createElement("th");
    cell.textContent = label;
    cell.title = [meaning, ...parts.map((part) => part.meaning)].join(" ");
    head.append(cell);
  }
  $("ledger").tHead.replaceChildren(head);
  $("ledger").tBodies[0].replaceChildren(
    ...latencies.map((one) => {
      const row = document.createElement("tr");
      for (const text of [clock(one.at_ms / 1000), figure(one, TOTAL), ...STEPS.map((step) => figure(one, step))]) {
        row.insertCell().textContent = text;
      }
      return row;
    }),
  );
}

/** A figure of a turn, or its parts where they are known. @param {any} latency @param {any} figure */
function figure(latency, { name, parts = [] }) {
  const known = parts.filter((part) => typeof latency[part.name] === "number");
  const figures = known.length ? known.map((part) => latency[part.name]) : [latency[name] ?? "–"];
  return `${figures.join(" + ")}${figures[0] === "–" ? "" : " ms"}`;
}

// ── what there is ───────────────────────────────────────────────────────────────────────────────────────────

/** @param {string} path */
async function get(path) {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error((await answer.json()).error ?? answer.statusText);
  return answer;
}

/** @param {string} name */
async function open(name) {
  const base = `/recordings/${encodeURIComponent(name)}`;
  try {
    const [timeline, raw] = await Promise.all([
      get(`${base}/timeline.json`).then((answer) => answer.json()),
      get(`${base}/peaks.bin`).then((answer) => answer.arrayBuffer()),
    ]);
    const { user, assistant, per_second: perSecond } = timeline.peaks;
    shown = { timeline, perSecond, user: new Int8Array(raw, 0, 2 * user), relay: new Int8Array(raw, 2 * user, 2 * assistant) };
  } catch (error) {
    $("facts").textContent = error.message;
    return;
  }
  tracks[0].src = `${base}/user.flac`;
  tracks[1].src = `${base}/assistant.flac`;
  $("play").disabled = false;
  const { timeline } = shown;
  const totals = timeline.latencies.map((one) => one[TOTAL.name]).sort((one, other) => one - other);
  const rank = /** @param {number} share */ (share) => totals[Math.max(0, Math.ceil(share * totals.length) - 1)];
  $("facts").textContent = [
    timeline.identity, timeline.model, ...voicesOf(timeline), clock(duration()), `${timeline.input} in, ${timeline.output} out`,
    totals.length ? `latency p50 ${rank(0.5)} ms, p95 ${rank(0.95)} ms` : "no turn was measured",
  ].join(" · ");
  script(timeline);
  ledger(timeline.latencies);
  look(0, duration());
  document.body.dataset.shown = name;
}

async function list() {
  const { recordings } = await (await get("/recordings/list")).json();
  choice.replaceChildren(
    ...recordings.map((one) => {
      const option = new Option(`${one.name}${one.state === "finished" ? "" : ` (${one.state})`}`, one.name);
      option.disabled = one.state !== "finished";
      return option;
    }),
  );
  const wanted = decodeURIComponent(location.hash.slice(1));
  const first = recordings.find((one) => one.name === wanted) ?? recordings.find((one) => one.state === "finished");
  if (!first) {
    $("facts").textContent = "Nothing is recorded yet. Set RELAY_RECORD=on or consent.";
    return;
  }
  choice.value = first.name;
  await open(first.name);
}

choice.addEventListener("change", () => {
  location.hash = encodeURIComponent(choice.value);
  open(choice.value);
});
$("sign-out").addEventListener("click", async () => {
  await fetch("logout", { method: "POST" });
  location.reload();
});
$("play").addEventListener("click", play);
$("in").addEventListener("click", () => look(from + span / 4, span / 2));
$("out").addEventListener("click", () => look(from - span / 2, span * 2));
$("all").addEventListener("click", () => look(0, duration()));
lanes.addEventListener("click", (event) => seek(from + (event.offsetX / lanes.clientWidth) * span));
overview.addEventListener("click", (event) => look((event.offsetX / overview.clientWidth) * duration() - span / 2, span));
lanes.addEventListener(
  "wheel",
  (event) => {
    event.preventDefault();
    const at = from + (event.offsetX / lanes.clientWidth) * span;
    const length = span * (event.deltaY > 0 ? 1.25 : 0.8);
    look(at - ((at - from) / span) * length, length);
  },
  { passive: false },
);
lanes.addEventListener("keydown", (event) => {
  const step = { ArrowLeft: -span / 20, ArrowRight: span / 20 }[event.key];
  if (step) seek(tracks[0].currentTime + step);
  else if (event.key === " ") play();
  else return;
  event.preventDefault();
});
tracks[0].addEventListener("timeupdate", follow);
tracks[0].addEventListener("ended", showPlaying);
new ResizeObserver(redraw).observe(document.body);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
list().catch((error) => { $("facts").textContent = error.message; });

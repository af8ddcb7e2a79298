/** The console page: the conversation's events to the page's elements, and clicks and keys back. */

import { Conversation } from "./conversation.js";
import { AUDIO_PROBLEMS, audioNotice, closeNotice, errorNotice } from "./notices.js";
import { TranscriptView } from "./transcript-view.js";
import { Transcript } from "./transcript.js";
import { WebSocketTransport, relaySocketUrl } from "./transport.js";
import { Glow, Waveform, animate, levelOf } from "./waveform.js";

/** @template {HTMLElement} T @param {string} id @returns {T} */
const $ = (id) => /** @type {T} */ (document.getElementById(id));

const STATUS = {
  off: "Press and talk",
  connecting: "Connecting…",
  listening: "Listening",
  waiting: "Connected without microphone",
  hearing: "You are speaking",
  thinking: "Thinking…",
  speaking: "Relay is speaking",
};
const TURNS = { server_vad: "turns by pauses", semantic_vad: "turns by meaning", manual: "turns by hand" };

export const conversation = new Conversation((rateHz) => new WebSocketTransport(relaySocketUrl(rateHz)));
export const transcript = new Transcript();
new TranscriptView(transcript, $("transcript"), $("scroller"));

/** What the user last asked for, for "Reconnect" to repeat. @type {() => Promise<unknown>} */
let lastAction = () => conversation.talk();
/** What the relay reported of this session. @type {{connected: any, ready: any, tokens: number}} */
let facts = { connected: null, ready: null, tokens: 0 };

const levels = {
  user: () => (conversation.microphone.muted ? 0 : levelOf(conversation.microphone.analyser)),
  relay: () => levelOf(conversation.player.analyser),
};
const animation = animate([
  new Waveform($("wave-user"), -1, levels.user),
  new Waveform($("wave-relay"), 1, levels.relay),
  new Glow($("talk"), () => Math.max(levels.user(), levels.relay())),
]);

/** @param {string} name @param {(detail: any) => void} listener */
function on(name, listener) {
  conversation.addEventListener(name, (event) => listener(/** @type {CustomEvent} */ (event).detail));
}

// ── display ───────────────────────────────────────────────────────────────────────────────────────────

const interruptible = () => conversation.player.playing || conversation.activity === "thinking";

function showControls() {
  const { activity, talking, microphone } = conversation;
  const muted = microphone.muted && activity === "listening";
  document.body.dataset.activity = activity;
  document.body.dataset.muted = String(microphone.muted);
  $("status").textContent = muted ? "Muted" : STATUS[activity];
  $("talk").ariaLabel = talking ? "End conversation" : "Start talking";
  $("mute").ariaPressed = String(microphone.muted);
  $("mute").textContent = microphone.muted ? "Unmute" : "Mute";
  /** @type {HTMLButtonElement} */ ($("mute")).disabled = !microphone.active;
  /** @type {HTMLButtonElement} */ ($("stop")).disabled = !interruptible();
  $("commit").hidden = facts.ready?.turn !== "manual" || !microphone.active;
  $("end").hidden = talking || !conversation.open;
  animation.setLive(conversation.open || talking);
}

/** @param {import("./notices.js").Notice} notice @param {string} [action] label of its button */
function showNotice(notice, action = "") {
  $("notice-title").textContent = notice.title;
  $("notice-text").textContent = notice.text;
  $("notice-action").textContent = action;
  $("notice-action").hidden = action === "";
  $("notice").hidden = false;
}

function hideNotice() {
  $("notice").hidden = true;
}

/** @param {string} text @param {string} [title] */
const fact = (text, title = "") => Object.assign(document.createElement("span"), { textContent: text, title });

/** @param {import("./protocol.js").Format} input @param {import("./protocol.js").Format} output */
function formats(input, output) {
  const [inputText, outputText] = [input, output].map(({ format, rate }) => `${format.toUpperCase()} ${rate / 1000} kHz`);
  return inputText === outputText ? inputText : `${inputText} in, ${outputText} out`;
}

/** The voice: the model's own, or an external TTS voice. @param {string} name */
function voice(name) {
  const id = name.startsWith("elevenlabs:") ? name.slice("elevenlabs:".length) : null;
  if (id === null) return fact(`voice ${name}`, "The model speaks itself");
  return fact(`voice ${id} of ElevenLabs`, "The model writes, and this voice speaks");
}

function showFacts() {
  const { connected, ready, tokens } = facts;
  $("connection-text").textContent = connected ? "Connected" : "Not connected";
  document.body.dataset.connected = String(connected !== null);
  if (connected === null) return; // the last session's stay, to be looked up
  const shown = [fact(`session ${connected.sessionId}`), fact(formats(connected.input, connected.output))];
  if (ready?.voice) shown.push(voice(ready.voice));
  if (ready?.language) shown.push(fact(`language ${ready.language}`));
  if (ready?.turn) shown.push(fact(TURNS[ready.turn] ?? ready.turn));
  const tools = Array.isArray(ready?.tools) ? ready.tools : [];
  if (tools.length > 0) shown.push(fact(tools.length === 1 ? "1 tool" : `${tools.length} tools`, tools.join(", ")));
  if (tokens > 0) shown.push(fact(`${tokens.toLocaleString("en")} tokens`));
  $("facts").replaceChildren(...shown);
}

// ── events of the conversation ─────────────────────────────────────────────────────────────────────────────

on("state", ({ state }) => {
  document.body.dataset.state = state;
  if (state !== "connecting") return;
  facts = { connected: null, ready: null, tokens: 0 };
  transcript.beginSession("New session");
  hideNotice();
});
on("connected", (connected) => {
  facts.connected = connected;
  showFacts();
});
on("ready", (ready) => {
  facts.ready = ready;
  Object.assign(facts.connected ?? {}, { input: ready.input, output: ready.output });
  showFacts();
  showControls();
});
on("usage", ({ totalTokens }) => {
  facts.tokens += totalTokens;
  showFacts();
});
on("activity", showControls);
on("playing", showControls);
on("microphone", showControls);

on("speechStart", () => transcript.speechStarted());
on("speechEnd", () => transcript.speechEnded());
on("textDelta", ({ text }) => transcript.answerDelta(text));
on("audioStart", ({ itemId }) => transcript.answerAudio(itemId));
on("responseEnd", (response) => transcript.answerEnded(response));
on("interrupted", (message) => transcript.interrupted(message));
on("transcript", (message) => transcript.transcript(message));
on("tool", (message) => transcript.tool(message));
on("latency", (message) => transcript.latency(message));

on("error", (error) => showNotice(errorNotice(error)));
on("congested", () => showNotice(AUDIO_PROBLEMS.congested));
on("overflow", () => showNotice(AUDIO_PROBLEMS.overflow));
on("audioError", ({ error }) => {
  const notice = audioNotice(error);
  showNotice(notice, notice.again ? "Try again" : "");
});
on("closed", (ending) => {
  transcript.endSession();
  facts.connected = null;
  showFacts();
  if (!ending.byUser) showNotice(closeNotice(ending, location.host), "Reconnect");
});

// ── input of the user ──────────────────────────────────────────────────────────────────────────────────────

/** @param {() => Promise<unknown>} action */
function start(action) {
  lastAction = action;
  hideNotice();
  return action();
}

const talk = () => conversation.talk();

$("talk").addEventListener("click", () => {
  if (conversation.talking) conversation.end();
  else start(talk);
});
$("end").addEventListener("click", () => conversation.end());
$("mute").addEventListener("click", () => conversation.mute(!conversation.microphone.muted));
$("stop").addEventListener("click", () => conversation.interrupt());
$("commit").addEventListener("click", () => conversation.commit());
$("notice-action").addEventListener("click", () => start(lastAction));
$("notice-close").addEventListener("click", () => {
  hideNotice();
  $("talk").focus();
});

$("composer").addEventListener("submit", async (event) => {
  event.preventDefault();
  /** @type {HTMLInputElement} */
  const box = $("composer-text");
  const text = box.value.trim();
  if (text === "") return;
  box.value = "";
  const sent = conversation.open
    ? await conversation.type(text)
    : (await start(() => conversation.connect())) && (await conversation.type(text));
  if (sent) transcript.typed(text);
  else box.value ||= text;
});

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !event.isComposing && interruptible()) conversation.interrupt();
});
// End the session instead of letting the relay notice the lost connection.
addEventListener("pagehide", () => conversation.end());
// A phone may have suspended the audio while the page was in the background.
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "visible" && conversation.open) conversation.resume();
});

showControls();

"use strict";
// From a picture to its answer. Nothing is requested from any other server.

const byId = (id) => document.getElementById(id);

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

const percent = (fraction) => `${(100 * fraction).toFixed(1)} %`;
const milliseconds = (ms) => `${ms < 10 ? ms.toFixed(2) : ms.toFixed(ms < 100 ? 1 : 0)} ms`;
const millions = (count) => `${(count / 1e6).toFixed(count < 1e7 ? 2 : 1)} M`;
const bytes = (count) => count < 1e6 ? `${Math.round(count / 1e3)} kB` : `${(count / 1e6).toFixed(1)} MB`;

const SHRINK_FROM = 1e6;     // bytes
const SHRINK_TO = 1024;      // pixels of the longer side
const COUNTS = ["", "", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"];

let picture = null;          // a Blob, as chosen
let sent = null;             // the same, or a smaller copy
let token = "";              // kept for this tab's pages, where the server asks for one
try {
  token = sessionStorage.getItem("token") ?? "";
} catch { /* the browser keeps nothing */ }
let previewAddress = null;
let asked = new AbortController();
let models = [];
let auto = null;             // the rule of the model "auto", where there is one
let classes = [];            // labels of the chosen model
let latest = null;           // the answer that is shown

const withToken = (headers = {}) => token ? {...headers, authorization: `Bearer ${token}`} : headers;

/** The JSON of an address of this server. */
const read = async (address) => (await fetch(address, {headers: withToken({accept: "application/json"})})).json();

// The models of the server, for the other scripts too.
const modelsKnown = new Promise((resolve) => {
  async function askForModels() {
    try {
      const listed = await read("models");
      if (listed.models?.length) return resolve(listed);
      if (listed.status === 401) return askForToken(askForModels);
      byId("classes").textContent = listed.models ? "The server is still loading its models…"
        : `The server says: ${listed.title}. Asking again…`;
    } catch {
      byId("classes").textContent = "The server cannot be reached. Asking again…";
    }
    setTimeout(askForModels, 1000);
  }
  askForModels();
});

function askForToken(then) {
  byId("classes").textContent = token ? "The server does not accept this token." : "This server asks for a token.";
  byId("access").hidden = false;
  byId("access").onsubmit = (event) => {
    event.preventDefault();
    token = byId("token").value;
    try {
      sessionStorage.setItem("token", token);
    } catch { /* then it is asked for again on the next page */ }
    byId("access").hidden = true;
    byId("problem").replaceChildren();
    then();
  };
}

modelsKnown.then(({default: chosen, models: listed, auto: rule}) => {
  models = listed;
  auto = rule ?? null;
  for (const name of [...(auto ? ["auto"] : []), ...models.map((model) => model.name)]) {
    byId("model").add(new Option(name, name, name === chosen, name === chosen));
  }
  describeModel();
});

const count = (number) => COUNTS[number] ?? String(number);

/** The model chosen; of "auto", its model for large pictures. */
function chosenModel() {
  const chosen = byId("model").value;
  return models.find(({name}) => name === (auto && chosen === "auto" ? auto.large : chosen));
}

async function describeModel() {
  const chosen = byId("model").value, model = chosenModel();
  if (!model) return;
  byId("command").textContent =
    `curl ${token && '-H "Authorization: Bearer $TOKEN" '}-F image=@photo.jpg '${new URL("classify", location.href)}?model=${chosen}'`;
  byId("model-facts").textContent = model.name === chosen ? `${factsOf(model).join(" · ")}.`
    : `Pictures of ${auto.large_side} pixels and more are answered by ${auto.large}, smaller ones by ${auto.small}.`;
  document.dispatchEvent(new CustomEvent("model"));
  try {
    const told = await read(`models/${model.name}`);
    if (byId("model").value === chosen) classes = told.card?.labels ?? [];
  } catch {
    classes = [];
  }
  const shown = classes.filter((label) => label !== "none");
  byId("classes").textContent = !shown.length ? "" : shown.length > 20 ? `One of ${shown.length} classes.`
    : `One of ${count(shown.length)} things${shown.length < classes.length ? ", or none of them" : ""}: ` +
      `${shown.slice(0, -1).join(", ")} or ${shown.at(-1)}.`;
}

function factsOf(model) {
  const test = model.test_accuracy;
  return [
    test ? `${percent(test.accuracy)} of ${test.count.toLocaleString("en")} test images right` +
      ` (95 % interval ${(100 * test.low).toFixed(1)}–${(100 * test.high).toFixed(1)})` : "accuracy not measured",
    `${millions(model.parameters)} parameters`,
    `${(model.size_bytes / 1e6).toFixed(1)} MB`,
    `runs on ${model.device === "cuda" ? "the GPU" : "the CPU"}`,
  ];
}

// Kinds of refusal in plain words; the server's own are under "Details".
const PLAIN_WORDS = {
  "unsupported-type": "That is not a picture this server reads: send a JPEG, PNG, WebP, AVIF, GIF or BMP.",
  "undecodable": "The picture is damaged and cannot be read.",
  "too-many-pixels": "The picture has too many pixels. Send a smaller copy of it.",
  "too-large": "The file is too large. Send a smaller copy of it.",
  "queue-full": "The server is busy. Try again in a moment.",
  "too-many-connections": "The server is busy. Try again in a moment.",
  "rate-limited": "Too many pictures were sent from here in a short time. Try again in a moment.",
  "unauthorized": "The server does not accept the token.",
  "not-ready": "The server is not ready yet. Try again in a moment.",
  "body-timeout": "The upload took too long. Try again, or send a smaller copy.",
  "deadline": "The server did not answer in time. Try again in a moment.",
  "no-such-model": "The server no longer has this model. Reload the page.",
  "internal": "The server failed. Its log says why.",
};
const HEIC = "That is an iPhone HEIC photo, which this server does not read. On the iPhone, choose " +
  "Settings, Camera, Formats, Most Compatible; or send a screenshot of it.";

function wordsOf(answer, file) {
  if (!file.size) return "This file is empty.";
  const kind = answer.type.split(":").pop();
  const heic = /hei[cf]/i.test(`${file.name ?? ""} ${file.type} ${answer.detail}`);
  if (kind !== "unsupported-type") return PLAIN_WORDS[kind] ?? `${answer.title}.`;
  if (heic) return HEIC;
  const named = answer.detail?.match(/; this is (.+?)\.?$/)?.[1];
  if (!named) return PLAIN_WORDS[kind];
  return `This is ${named}.${named.includes("send") ? "" : " Send a JPEG, PNG, WebP, AVIF, GIF or BMP."}`;
}

/** The verdict in words; without one, the most probable class and its probability. */
function inWords({verdict, label, confidence, top_k: found = []}) {
  const name = label.replaceAll("_", " "), other = found[1]?.label.replaceAll("_", " ");
  const known = classes.filter((each) => each !== "none").length;
  switch (verdict) {
    case "sure": return `${name[0].toUpperCase()}${name.slice(1)}.`;
    case "likely": return `Probably ${/^[aeiou]/i.test(name) ? "an" : "a"} ${name}.`;
    case "unsure": return `Not sure: ${other ? `${name} or ${other}` : name}.`;
    case "none": return `None of the ${known ? count(known) : "classes"}, it seems.`;
    default: return `${label}, ${percent(confidence)}`;
  }
}

function say(text, found = false) {
  byId("said").textContent = text;
  byId("said").className = found ? "found" : "";
}

/** A problem on this side of the wire: what was shown is still true. */
function complain(words, detail = "") {
  byId("problem").replaceChildren(make("p", {textContent: words}));
  if (detail) {
    byId("problem").append(make("details", {}, make("summary", {textContent: "Details"}),
      make("p", {textContent: `The server says: ${detail.replace(/\.?$/, ".")}`})));
  }
  byId("again").hidden = true;
}

/** There is no answer for this picture. */
function refuse({words, detail, passing, kind}) {
  complain(words, detail);
  say("");
  byId("result").hidden = true;
  byId("again").hidden = !passing;
  if (kind === "unauthorized") askForToken(() => { describeModel(); classify(); });
}

function bar({label, probability}) {
  const track = make("span", {className: "track", ariaHidden: "true"});
  track.style.setProperty("--share", probability);
  const figure = make("span", {className: "figure", textContent: percent(probability)});
  return make("li", {}, make("span", {textContent: label}), track, figure);
}

function showTiming(timing, roundTrip) {
  const rest = Math.max(0, roundTrip - timing.body - timing.decode - timing.queue - timing.inference);
  const stages = [
    ["Upload", timing.body], ["Decode, resize", timing.decode], ["Queue", timing.queue],
    ["Model", timing.inference], ["Network, other", rest],
  ];
  byId("timeline").replaceChildren(...stages.map(([, ms], index) => {
    const part = make("span", {className: `stage-${index + 1}`});
    part.style.setProperty("--share", ms);
    return part;
  }));
  byId("stages").replaceChildren(...stages.map(([name, ms], index) => make("div", {},
    make("dt", {className: `stage-${index + 1}`, textContent: name}),
    make("dd", {textContent: milliseconds(ms)}))));
}

function show(answer, roundTrip) {
  const {tile_png: tile, timing_ms: timing, batch_images: together} = answer.explanation;
  latest = answer;
  byId("tile").onload = () => {
    byId("seen-size").textContent = `${byId("tile").naturalWidth} × ${byId("tile").naturalHeight}`;
  };
  byId("tile").src = `data:image/png;base64,${tile}`;
  byId("bars").replaceChildren(...answer.top_k.map(bar));
  showTiming(timing, roundTrip);
  const company = together > 1 ? `, in one run with ${together - 1} other images` : "";
  byId("ran").textContent = `${milliseconds(roundTrip)} from here and back, ` +
    `${milliseconds(timing.total)} of them in the server. Answered by ${answer.model} ` +
    `(${answer.digest.slice(0, 12)}…) on the ${answer.device === "cuda" ? "GPU" : "CPU"}${company}.`;
  byId("result").hidden = false;
  say(inWords(answer), true);
  document.dispatchEvent(new CustomEvent("answer", {detail: answer}));
}

/** POST with the progress of the upload, which fetch does not tell. */
function send(address, body, signal, onProgress = () => {}) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", address);
    for (const [name, value] of Object.entries(withToken())) request.setRequestHeader(name, value);
    request.upload.onprogress = ({loaded, total}) => onProgress(loaded / total);
    request.onload = () => resolve({ok: request.status < 300, status: request.status, text: request.responseText,
      wait: Number(request.getResponseHeader("retry-after"))});
    request.onerror = request.onabort = () => reject(new Error("no answer"));
    signal?.addEventListener("abort", () => request.abort());
    request.send(body);
  });
}

/** [answer, null], or [null, the refusal: its words, whether it is `passing`, and the seconds to `wait`]. */
async function ask(file, query, signal, onProgress) {
  let response;
  try {
    response = await send(`classify?${new URLSearchParams(query)}`, file, signal, onProgress);
  } catch {
    return [null, {words: "The server cannot be reached.", passing: true}];
  }
  const {ok, status, text, wait} = response, passing = status >= 500 || status === 408 || status === 429;
  let answer = null;
  try {
    answer = JSON.parse(text);
  } catch { /* a page of something between the server and here */ }
  if (ok && answer) return [answer, null];
  if (answer?.type) {
    return [null, {words: wordsOf(answer, file), detail: answer.detail, kind: answer.type.split(":").pop(), passing, wait}];
  }
  if (status === 413) return [null, {words: "A proxy in front of the server refuses so large a file. Send a smaller copy of it."}];
  return [null, {words: `A proxy in front of the server answered with status ${status}. Try again in a moment.`, passing: true, wait}];
}

/** The answer as of `ask`, what was sent, and words about it: a smaller copy of a picture that is too large. */
async function askShrunk(file, query, signal, onProgress) {
  let [body, told] = await shrink(file);
  let [answer, refusal] = await ask(body, query, signal, onProgress);
  if (refusal?.kind === "too-many-pixels" && body === file) {
    [body, told] = await shrink(file, 0);
    if (body !== file) [answer, refusal] = await ask(body, query, signal, onProgress);
  }
  return [answer, refusal, body, told];
}

/** A smaller copy of a large picture, turned as its EXIF says; the file itself where it cannot be made. */
async function shrink(file, from = SHRINK_FROM) {
  if (file.size <= from) return [file, ""];
  try {
    const bitmap = await createImageBitmap(file, {imageOrientation: "from-image"});
    const scale = Math.min(1, SHRINK_TO / Math.max(bitmap.width, bitmap.height));
    const canvas = make("canvas", {width: Math.round(bitmap.width * scale), height: Math.round(bitmap.height * scale)});
    const pen = canvas.getContext("2d");
    pen.imageSmoothingQuality = "high";
    pen.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    const copy = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.95));
    if (!copy || copy.size >= file.size) return [file, ""];
    return [copy, `Sent a copy of ${canvas.width} × ${canvas.height} pixels, ${bytes(copy.size)} instead of ${bytes(file.size)}.`];
  } catch {
    return [file, ""];
  }
}

async function classify() {
  if (!picture) return;
  asked.abort();
  const turn = asked = new AbortController();
  byId("answer").ariaBusy = "true";
  say("Looking at the picture…");
  byId("problem").replaceChildren();
  byId("again").hidden = true;
  byId("sent").textContent = "";
  const query = {top_k: Math.min(10, chosenModel()?.classes ?? 3), explain: true};
  if (byId("model").value) query.model = byId("model").value;
  const started = performance.now();
  const [answer, refusal, body, told] = await askShrunk(picture, query, turn.signal, (share) => {
    byId("progress").hidden = share === 1 || turn !== asked;
    byId("progress").value = share;
  });
  if (turn !== asked) return;
  byId("progress").hidden = true;
  byId("sent").textContent = told;
  sent = body;
  if (answer) show(answer, performance.now() - started);
  else refuse(refusal);
  byId("answer").ariaBusy = "false";
}

function take(file) {
  picture = file;
  sent = null;
  if (previewAddress) URL.revokeObjectURL(previewAddress);
  previewAddress = URL.createObjectURL(file);
  byId("preview").src = previewAddress;
  byId("preview").hidden = false;
  return classify();
}

async function pasteFromClipboard() {
  try {
    for (const item of await navigator.clipboard.read()) {
      const type = item.types.find((name) => name.startsWith("image/"));
      if (type) return take(await item.getType(type));
    }
    complain("There is no picture on the clipboard.");
  } catch {
    complain("The browser does not let this page read the clipboard. Press Ctrl+V instead.");
  }
}

async function copyCommand() {
  try {
    await navigator.clipboard.writeText(byId("command").textContent);
  } catch {  // not over plain http, except on localhost
    getSelection().selectAllChildren(byId("command"));
    if (!document.execCommand("copy")) {
      byId("copied").textContent = "Selected: press Ctrl+C.";
      return;
    }
  }
  byId("copied").textContent = "Copied.";
}

byId("preview").addEventListener("error", () => { byId("preview").hidden = true; });
for (const id of ["file", "capture"]) {
  byId(id).addEventListener("change", (event) => {
    takeAll([...event.target.files]);
    event.target.value = "";  // so that the same file can be chosen again
  });
}
byId("model").addEventListener("change", () => { describeModel(); classify(); });
byId("again").addEventListener("click", classify);
byId("copy").addEventListener("click", copyCommand);
byId("paste").hidden = !navigator.clipboard?.read;
byId("paste").addEventListener("click", pasteFromClipboard);
document.addEventListener("paste", (event) => {
  if (event.target !== byId("token")) takeFrom(event.clipboardData, "pasted");
});
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    byId("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop") takeFrom(event.dataTransfer, "dropped");
  });
}

"use strict";
// From a picture to its answer. Nothing is asked of any other server.

const byId = (id) => document.getElementById(id);

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

const percent = (fraction) => `${(100 * fraction).toFixed(1)} %`;
const milliseconds = (ms) => `${ms < 10 ? ms.toFixed(2) : ms.toFixed(ms < 100 ? 1 : 0)} ms`;
const millions = (count) => `${(count / 1e6).toFixed(count < 1e7 ? 2 : 1)} M`;

let picture = null;          // a Blob
let previewAddress = null;
let asked = new AbortController();
let models = [];
let auto = null;             // which two models answer as "auto", where there is one

// The models that there are, for efficiency.js too.
const modelsKnown = new Promise((resolve) => {
  async function ask() {
    try {
      const listed = await (await fetch("models")).json();
      if (listed.models.length) return resolve(listed);
      byId("model-facts").textContent = "The server is still loading its models…";
    } catch {
      byId("model-facts").textContent = "The server cannot be reached; asking again…";
    }
    setTimeout(ask, 1000);
  }
  ask();
});

modelsKnown.then(({default: chosen, models: listed, auto: rule}) => {
  models = listed;
  auto = rule ?? null;
  const names = models.map(({name}) => name);
  for (const name of auto ? ["auto", ...names] : names) {
    byId("model").add(new Option(name, name, name === chosen, name === chosen));
  }
  describeModel();
});

function showCommand(name) {
  byId("command").textContent =
    `curl -F image=@photo.jpg '${new URL("classify", location.href)}?model=${name}'`;
}

/** The model chosen; of "auto", its model for large pictures. */
function chosenModel() {
  const chosen = byId("model").value;
  const wanted = auto && chosen === "auto" ? auto.large : chosen;
  return models.find(({name}) => name === wanted);
}

function describeModel() {
  const model = chosenModel();
  if (!model) return;
  showCommand(byId("model").value);
  if (byId("model").value !== model.name) {
    byId("model-facts").textContent = `Pictures of ${auto.large_side} pixels and more are answered by ` +
      `${auto.large}, smaller ones by ${auto.small}.`;
    return;
  }
  const test = model.test_accuracy;
  const facts = [
    test ? `${percent(test.accuracy)} of ${test.count.toLocaleString("en")} test images right` +
      ` (95 % interval ${(100 * test.low).toFixed(1)}–${(100 * test.high).toFixed(1)})` : "accuracy not measured",
    `${millions(model.parameters)} parameters`,
    `${(model.size_bytes / 1e6).toFixed(1)} MB`,
    `runs on ${model.device === "cuda" ? "the GPU" : "the CPU"}`,
  ];
  byId("model-facts").textContent = `${facts.join(" · ")}.`;
}

// What the server's kinds of refusal mean to who holds the picture; its own words follow.
const PLAIN_WORDS = {
  "unsupported-type": "That is not a JPEG, PNG, WebP, AVIF, GIF or BMP picture.",
  "undecodable": "The picture is damaged and cannot be read.",
  "too-many-pixels": "The picture has too many pixels. Send a smaller copy of it.",
  "too-large": "The file is too large. Send a smaller copy of it.",
  "queue-full": "The server is busy. Try again in a moment.",
  "not-ready": "The server is not ready yet. Try again in a moment.",
  "body-timeout": "The upload took too long. Try again, or send a smaller copy.",
  "deadline": "The server did not answer in time. Try again in a moment.",
  "no-such-model": "The server no longer has this model. Reload the page.",
  "internal": "The server failed. Its log says why.",
};

function say(text, found = false) {
  byId("said").textContent = text;
  byId("said").className = found ? "found" : "";
}

/** A problem on this side of the wire: what was shown is still true. */
function complain(words, detail = "") {
  byId("problem").replaceChildren(make("p", {textContent: words}));
  if (detail) byId("problem").append(make("p", {textContent: `The server says: ${detail.replace(/\.?$/, ".")}`}));
  byId("again").hidden = true;
}

/** There is no answer for this picture. */
function refuse(words, detail, passing) {
  complain(words, detail);
  say("");
  byId("result").hidden = true;
  byId("again").hidden = !passing;
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
  byId("tile").src = `data:image/png;base64,${tile}`;
  byId("bars").replaceChildren(...answer.top_k.map(bar));
  showTiming(timing, roundTrip);
  const company = together > 1 ? `, in one run with ${together - 1} other images` : "";
  byId("ran").textContent = `${milliseconds(roundTrip)} from here and back, ` +
    `${milliseconds(timing.total)} of them in the server. Answered by ${answer.model} ` +
    `(${answer.digest.slice(0, 12)}…) on the ${answer.device === "cuda" ? "GPU" : "CPU"}${company}.`;
  byId("result").hidden = false;
  say(`${answer.label}, ${percent(answer.confidence)}`, true);
}

/** What our server says; null: what answered is a page of something between it and here. */
async function answerIn(response) {
  const text = await response.text();
  try {
    const answer = JSON.parse(text);
    return response.ok || answer.type ? answer : null;
  } catch {
    return null;
  }
}

/** The words for an answer that is no JSON, and whether to try again may help. */
function wordsOfProxy(status) {
  if (status === 413) {
    return ["A proxy in front of the server refuses so large a file. Send a smaller copy of it.", "", false];
  }
  return [`A proxy in front of the server answered with status ${status}. Try again in a moment.`, "", true];
}

async function classify() {
  if (!picture) return;
  asked.abort();
  const turn = asked = new AbortController();
  byId("answer").ariaBusy = "true";
  byId("problem").replaceChildren();
  byId("again").hidden = true;
  const query = new URLSearchParams({explain: true});
  if (byId("model").value) {
    query.set("model", byId("model").value);
    query.set("top_k", Math.min(10, chosenModel().classes));
  }
  try {
    const started = performance.now();
    const response = await fetch(`classify?${query}`, {method: "POST", body: picture, signal: turn.signal});
    const answer = await answerIn(response);
    const roundTrip = performance.now() - started;
    if (turn !== asked) return;
    if (!answer) refuse(...wordsOfProxy(response.status));
    else if (response.ok) show(answer, roundTrip);
    else refuse(PLAIN_WORDS[answer.type.split(":").pop()] ?? `${answer.title}.`, answer.detail,
      response.status >= 500 || response.status === 408);
  } catch {
    if (turn === asked) refuse("The server cannot be reached.", "", true);
  } finally {
    if (turn === asked) byId("answer").ariaBusy = "false";
  }
}

function take(file) {
  picture = file;
  if (previewAddress) URL.revokeObjectURL(previewAddress);
  previewAddress = URL.createObjectURL(file);
  byId("preview").src = previewAddress;
  byId("preview").hidden = false;
  classify();
}

/** The picture in what was dropped or pasted; where there is none, says so. */
function takeFrom(transfer, verb) {
  const file = transfer.files[0];
  if (file) take(file);
  else complain(`What was ${verb} holds no picture file. Save the picture first, then choose it.`);
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

async function openCamera() {
  // Browsers give live video only to https and localhost; elsewhere a phone opens its camera app.
  if (!navigator.mediaDevices?.getUserMedia) return byId("capture").click();
  try {
    byId("video").srcObject = await navigator.mediaDevices.getUserMedia({video: {facingMode: "environment"}});
    byId("viewfinder").showModal();
  } catch (error) {
    complain(error.name === "NotAllowedError" ? "The browser was not allowed to use the camera."
      : "No camera can be used here.");
  }
}

function closeCamera() {
  for (const track of byId("video").srcObject?.getTracks() ?? []) track.stop();
  byId("video").srcObject = null;
}

function shoot() {
  const video = byId("video");
  if (!video.videoWidth) return;  // it has not begun
  const canvas = make("canvas", {width: video.videoWidth, height: video.videoHeight});
  canvas.getContext("2d").drawImage(video, 0, 0);
  canvas.toBlob((blob) => { byId("viewfinder").close(); take(blob); }, "image/jpeg", 0.95);
}

function drawShip() {
  const canvas = make("canvas", {width: 256, height: 256}), pen = canvas.getContext("2d");
  const shape = (colour, ...points) => {
    pen.fillStyle = colour;
    pen.beginPath();
    for (const [x, y] of points) pen.lineTo(x, y);
    pen.fill();
  };
  const fade = (top, bottom, from, to) => {
    const gradient = pen.createLinearGradient(0, from, 0, to);
    gradient.addColorStop(0, top);
    gradient.addColorStop(1, bottom);
    return gradient;
  };
  shape(fade("#9fc0e0", "#dfe8ee", 0, 160), [0, 0], [256, 0], [256, 160], [0, 160]);
  shape(fade("#5d86a6", "#1f3f5c", 160, 256), [0, 160], [256, 160], [256, 256], [0, 256]);
  shape("#7d2b26", [24, 140], [236, 132], [206, 188], [48, 188]);
  shape("#e9e6df", [70, 104], [178, 104], [178, 136], [70, 138]);
  shape("#cfcbc2", [92, 78], [150, 78], [150, 104], [92, 104]);
  shape("#3a3a3a", [108, 46], [128, 46], [128, 78], [108, 78]);
  shape("#7d2b26", [108, 54], [128, 54], [128, 62], [108, 62]);
  canvas.toBlob(take, "image/png");
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

byId("tile").addEventListener("load", ({target: tile}) => {
  byId("seen-size").textContent = `${tile.naturalWidth} × ${tile.naturalHeight}`;
});
byId("preview").addEventListener("error", () => { byId("preview").hidden = true; });
for (const id of ["file", "capture"]) {
  byId(id).addEventListener("change", (event) => {
    if (event.target.files[0]) take(event.target.files[0]);
    event.target.value = "";  // so that the same file can be chosen again
  });
}
byId("model").addEventListener("change", () => { describeModel(); classify(); });
byId("again").addEventListener("click", classify);
byId("sample").addEventListener("click", drawShip);
byId("camera").addEventListener("click", openCamera);
byId("shoot").addEventListener("click", shoot);
byId("leave").addEventListener("click", () => byId("viewfinder").close());
byId("viewfinder").addEventListener("close", closeCamera);
byId("copy").addEventListener("click", copyCommand);
byId("paste").hidden = !navigator.clipboard?.read;
byId("paste").addEventListener("click", pasteFromClipboard);
document.addEventListener("paste", (event) => takeFrom(event.clipboardData, "pasted"));
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    byId("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop") takeFrom(event.dataTransfer, "dropped");
  });
}

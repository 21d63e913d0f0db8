"use strict";
// Beyond one answer: why, other models, several pictures, the camera and this visit's history.

const OCCLUSIONS = 7;        // places of the patch on each side
const MOST_VISITED = 12;
const IMAGE_NAME = /\.(jpe?g|jfif|png|webp|avif|gif|bmp|tiff?|hei[cf]|jxl)$/i;
const MOST_TRIES = 5;        // to send one of several pictures, where the server says when to try again

/** An .npy file of uint8 images (N, height, width, 3). */
function toNpy(count, height, width, pixels) {
  const text = `{'descr': '|u1', 'fortran_order': False, 'shape': (${count}, ${height}, ${width}, 3), }`;
  const header = new TextEncoder().encode(text.padEnd(Math.ceil((text.length + 11) / 64) * 64 - 11) + "\n");
  return new Blob([new Uint8Array([0x93, 78, 85, 77, 80, 89, 1, 0, header.length & 255, header.length >> 8]), header, pixels]);
}

function pixelsOfTile() {
  const tile = byId("tile");
  const [width, height] = [tile.naturalWidth, tile.naturalHeight];
  const canvas = make("canvas", {width, height}), pen = canvas.getContext("2d");
  pen.drawImage(tile, 0, 0);
  return {width, height, rgba: pen.getImageData(0, 0, width, height).data};
}

/** Where the answer depends on: a grey patch over each place in turn, all in one batch. */
async function explainByOcclusion() {
  const {width, height, rgba} = pixelsOfTile();
  const patch = Math.ceil(Math.min(width, height) / 4), all = OCCLUSIONS ** 2;
  const at = (index, length) => Math.round(index * (length - patch) / (OCCLUSIONS - 1));
  const pixels = new Uint8Array(all * height * width * 3);
  for (let image = 0; image < all; image++) {
    const left = at(image % OCCLUSIONS, width), top = at(Math.floor(image / OCCLUSIONS), height);
    for (let place = 0; place < width * height; place++) {
      const x = place % width, y = Math.floor(place / width);
      const hidden = x >= left && x < left + patch && y >= top && y < top + patch;
      for (let channel = 0; channel < 3; channel++) {
        pixels[(image * width * height + place) * 3 + channel] = hidden ? 128 : rgba[place * 4 + channel];
      }
    }
  }
  const answer = latest, before = answer.confidence;
  byId("because").textContent = "Hiding parts of the picture…";
  try {
    const query = new URLSearchParams({model: answer.model, top_k: answer.top_k.length});
    const response = await fetch(`classify/batch?${query}`, {method: "POST",
      headers: withToken({"content-type": "application/x-npy"}), body: toNpy(all, height, width, pixels)});
    const {predictions} = await response.json();
    if (answer !== latest) return;
    const losses = predictions.map(({top_k: found}) =>
      Math.max(0, before - (found.find(({label}) => label === answer.label)?.probability ?? 0)));
    paintHeat(losses, at, patch, width, height);
    const most = Math.max(...losses);
    byId("because").textContent = most < 0.02
      ? "No single part matters: with any of them hidden the answer stays."
      : `The brighter a part, the more “${answer.label}” depends on it; hiding the brightest costs ${Math.round(100 * most)} points.`;
  } catch {
    byId("because").textContent = "That could not be worked out: the server did not answer.";
  }
}

function paintHeat(losses, at, patch, width, height) {
  const heat = byId("heat"), pen = heat.getContext("2d");
  Object.assign(heat, {width, height, hidden: false});
  const sums = new Float32Array(width * height), counts = new Uint16Array(width * height);
  losses.forEach((loss, image) => {
    const left = at(image % OCCLUSIONS, width), top = at(Math.floor(image / OCCLUSIONS), height);
    for (let y = top; y < top + patch; y++) {
      for (let x = left; x < left + patch; x++) {
        sums[y * width + x] += loss;
        counts[y * width + x]++;
      }
    }
  });
  const means = sums.map((sum, place) => sum / (counts[place] || 1)), most = Math.max(0.02, ...means);
  const painted = pen.createImageData(width, height);
  means.forEach((mean, place) => painted.data.set([255, 196, 0, 210 * mean / most], place * 4));
  pen.putImageData(painted, 0, 0);
}

async function compareModels() {
  const compared = picture, body = sent ?? (await shrink(compared))[0];
  const lines = await Promise.all(models.map(async ({name}) => {
    const [answer, refusal] = await ask(body, {model: name, top_k: 2, explain: true});
    const cells = answer ? [answer.verdict ? inWords(answer) : answer.label, percent(answer.confidence), milliseconds(answer.explanation.timing_ms.inference)]
      : [refusal.words, "–", "–"];
    return make("tr", {}, make("th", {scope: "row"}, ...breakable(name)),
      ...cells.map((text) => make("td", {textContent: text})));
  }));
  if (compared !== picture) return;
  const head = ["Model", "Answer", "Confidence", "Time in the model"];
  const table = make("table", {className: "plain"},
    make("thead", {}, make("tr", {}, ...head.map((text) => make("th", {scope: "col", textContent: text})))),
    make("tbody", {}, ...lines));
  byId("compared").replaceChildren(make("div", {className: "scroll", tabIndex: 0, role: "region", ariaLabel: "All models on this picture"}, table));
}

/** The pictures in a folder that was dropped, and in folders inside it. */
async function picturesIn(folder) {
  const reader = folder.createReader(), found = [];
  for (;;) {  // it gives up to 100 at a time
    const entries = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!entries.length) return found;
    for (const entry of entries) {
      if (entry.isDirectory) found.push(...await picturesIn(entry));
      else if (!entry.name.startsWith(".") && IMAGE_NAME.test(entry.name)) {
        found.push(await new Promise((resolve, reject) => entry.file(resolve, reject)));
      }
    }
  }
}

/** The pictures in what was dropped or pasted; where there is none, says so. */
async function takeFrom(transfer, verb) {
  let files = [...transfer.files];
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry()).filter(Boolean);
  const folders = entries.filter((entry) => entry.isDirectory);
  if (folders.length) {
    files = files.filter(({name}) => !folders.some((folder) => folder.name === name));
    try {
      for (const folder of folders) files.push(...await picturesIn(folder));
    } catch {
      return complain("The folder cannot be read. Open it and choose the pictures in it.");
    }
  }
  if (files.length) takeAll(files);
  else if (folders.length) complain(`There is no picture in the folder ${folders[0].name}.`);
  else complain(`What was ${verb} holds no picture file. Save the picture first, then choose it.`);
}

let lines = [];              // of the CSV

async function takeAll(files) {
  if (!files.length) return;
  if (files.length === 1) return take(files[0]);
  byId("many").hidden = false;
  byId("grid").replaceChildren();
  byId("many").scrollIntoView();
  const mine = lines = [];
  for (const [index, file] of files.entries()) {
    byId("many-said").textContent = `${index + 1} of ${files.length}…`;
    let answer, refusal;
    for (let left = MOST_TRIES; left > 0; left--) {
      [answer, refusal] = await askShrunk(file, {top_k: 2, ...(byId("model").value && {model: byId("model").value})});
      if (mine !== lines) return;  // others have been chosen meanwhile
      if (!refusal?.wait) break;
      await new Promise((resolve) => setTimeout(resolve, 1000 * Math.min(refusal.wait, 5)));
    }
    const button = thumbnail(file, answer ? inWords(answer) : refusal.words, () => { take(file); scrollTo(0, 0); });
    button.title = file.name;  // it may be cut
    button.append(make("small", {textContent: file.name}));
    byId("grid").append(make("li", {}, button));
    mine.push([file.name, answer?.label ?? "", answer?.verdict ?? "", answer?.confidence ?? "", answer?.model ?? "", refusal?.words ?? ""]);
  }
  byId("many-said").textContent = `${files.length} pictures. A click shows one in full.`;
}

function thumbnail(file, text, onClick) {
  const image = make("img", {alt: "", src: URL.createObjectURL(file)});
  image.addEventListener("error", () => image.remove());  // the browser cannot show it
  const button = make("button", {type: "button"}, image, make("span", {textContent: text}));
  button.addEventListener("click", onClick);
  return button;
}

function saveCsv() {
  // A spreadsheet takes a text that begins like this for a formula, and calculates it.
  const safe = (value) => /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value);
  const quoted = (value) => `"${safe(value).replaceAll('"', '""')}"`;
  const header = ["file", "label", "verdict", "confidence", "model", "error"];
  const text = [header, ...lines].map((line) => line.map(quoted).join(",")).join("\r\n");
  const link = make("a", {href: URL.createObjectURL(new Blob([`\ufeff${text}\r\n`], {type: "text/csv"})), download: "pictures.csv"});
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

/** The history keeps the picture of each answer, the newest first, each picture once. */
function remember({detail: answer}) {
  const file = picture, visited = byId("visited");
  for (const item of [...visited.children]) if (item.file === file) item.remove();
  const item = make("li", {file}, thumbnail(file, inWords(answer), () => { take(file); scrollTo(0, 0); }));
  visited.prepend(item);
  while (visited.children.length > MOST_VISITED) visited.lastChild.remove();
  byId("history").hidden = visited.children.length < 2;
  byId("heat").hidden = true;
  byId("because").textContent = "";
  byId("compared").replaceChildren();
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
  byId("live").ariaPressed = "false";
  byId("live-said").textContent = "";
  for (const track of byId("video").srcObject?.getTracks() ?? []) track.stop();
  byId("video").srcObject = null;
}

function frame(side, quality) {
  const video = byId("video"), scale = Math.min(1, side / Math.max(video.videoWidth, video.videoHeight));
  if (!video.videoWidth) return null;  // it has not begun
  const canvas = make("canvas", {width: video.videoWidth * scale, height: video.videoHeight * scale});
  canvas.getContext("2d").drawImage(video, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", quality));
}

async function shoot() {
  const blob = await frame(SHRINK_TO, 0.95);
  if (!blob) return;
  byId("viewfinder").close();
  take(blob);
}

/** One picture after another, as fast as the server answers, until the button is pressed again. */
async function runLive() {
  const on = byId("live").ariaPressed !== "true";
  byId("live").ariaPressed = String(on);
  const times = [];
  while (byId("live").ariaPressed === "true") {
    const blob = await frame(320, 0.85);
    const [answer, refusal] = blob ? await ask(blob, {top_k: 2, ...(byId("model").value && {model: byId("model").value})}) : [null, {words: "Waiting for the camera…"}];
    if (byId("live").ariaPressed !== "true") return;
    times.push(performance.now());
    if (times.length > 10) times.shift();
    const rate = times.length > 1 ? 1000 * (times.length - 1) / (times.at(-1) - times[0]) : 0;
    byId("live-said").textContent = answer ? `${inWords(answer)} ${rate.toFixed(1)} pictures a second` : refusal.words;
    await new Promise((resolve) => requestAnimationFrame(resolve));
  }
}

byId("why").addEventListener("click", explainByOcclusion);
byId("compare").addEventListener("click", compareModels);
byId("csv").addEventListener("click", saveCsv);
byId("camera").addEventListener("click", openCamera);
byId("shoot").addEventListener("click", shoot);
byId("live").addEventListener("click", runLive);
byId("leave").addEventListener("click", () => byId("viewfinder").close());
byId("viewfinder").addEventListener("close", closeCamera);
document.addEventListener("answer", remember);

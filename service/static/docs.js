"use strict";
// The API page: what openapi.json describes, each operation with a form that sends it.

const byId = (id) => document.getElementById(id);

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

const GROUPS = [
  ["Classify", /^\/classify/], ["Models", /^\/models/], ["Open Inference Protocol v2", /^\/v2/],
  ["Health and metrics", /^\/(livez|readyz|metrics)/], ["Documents and pages", /./],
];
const JSON_EXAMPLES = {
  "/v2/models/{name}/infer": {inputs: [{name: "image", datatype: "UINT8", shape: [1, 32, 32, 3], data: ["…3072 numbers, row by row, RGB"]}]},
};

let description = {};

const resolved = (value) => value.$ref
  ? value.$ref.slice(2).split("/").reduce((place, key) => place[key], description) : value;

function fieldOf(parameter, operation) {
  const {name, required, description: text = "", schema = {}} = resolved(parameter);
  const id = `${operation.operationId}-${name}`;
  const input = make("input", {id, name, required: Boolean(required), placeholder: schema.default ?? ""});
  input.dataset.place = resolved(parameter).in;
  return make("p", {}, make("label", {htmlFor: id, className: "field", textContent: `${name}${required ? "" : " (optional)"}`}),
    input, make("small", {textContent: ` ${text}`}));
}

function bodyOf(path, operation) {
  const types = Object.keys(operation.requestBody?.content ?? {});
  if (!types.length) return [];
  const id = `${operation.operationId}-body`;
  const told = make("p", {className: "small", textContent: `Body: ${types.join(", ")}`});
  const label = (text) => make("label", {htmlFor: id, className: "field", textContent: text});
  if (types.every((type) => type.endsWith("json") || type === "application/octet-stream" && path.startsWith("/v2"))) {
    const text = JSON.stringify(JSON_EXAMPLES[path.replace("/versions/{version}", "")] ?? {}, null, 1);
    return [told, label("Body"), make("textarea", {id, rows: 6, value: text})];
  }
  return [told, label("File"), make("input", {id, type: "file", multiple: path.endsWith("batch")})];
}

function tableOfAnswers(operation) {
  const lines = Object.entries(operation.responses).map(([status, answer]) => make("tr", {},
    make("th", {scope: "row", textContent: status}), make("td", {textContent: resolved(answer).description ?? ""})));
  return make("details", {}, make("summary", {textContent: "Answers"}),
    make("table", {className: "plain"}, make("tbody", {}, ...lines)));
}

async function sendForm(form, method, path, output) {
  const query = new URLSearchParams();
  let address = path.slice(1);
  for (const input of form.querySelectorAll("input[data-place]")) {
    if (!input.value) continue;
    if (input.dataset.place === "path") address = address.replace(`{${input.name}}`, encodeURIComponent(input.value));
    else if (input.dataset.place === "query") query.append(input.name, input.value);
  }
  if (query.size) address += `?${query}`;
  const headers = {};
  if (byId("token").value) headers.authorization = `Bearer ${byId("token").value}`;
  let body;
  const file = form.querySelector("input[type=file]"), text = form.querySelector("textarea");
  if (file?.files.length > 1 || file?.multiple && file.files.length) {
    body = new FormData();
    for (const one of file.files) body.append("image", one);
  } else if (file) body = file.files[0];
  else if (text) {
    body = text.value;
    headers["content-type"] = "application/json";
  }
  const sent = body instanceof FormData ? " -F image=@picture.jpg" : file ? " --data-binary @picture.jpg" : text ? " -d @body.json" : "";
  const command = `curl${method === "POST" ? " -X POST" : ""}${headers.authorization ? ' -H "Authorization: Bearer $TOKEN"' : ""}${sent} '${new URL(address, document.baseURI)}'`;
  const started = performance.now();
  try {
    const response = await fetch(address, {method, headers: {accept: "application/json, */*", ...headers}, body});
    const answer = await response.text();
    let shown = answer;
    try {
      shown = JSON.stringify(JSON.parse(answer), null, 1);
    } catch { /* it is no JSON */ }
    output.textContent = `${command}\n\n${response.status} ${response.statusText}, ${(performance.now() - started).toFixed(0)} ms\n${shown.slice(0, 20000)}`;
  } catch {
    output.textContent = `${command}\n\nThe server cannot be reached.`;
  }
  output.hidden = false;
}

function show(path, method, operation) {
  const output = make("pre", {hidden: true, tabIndex: 0, role: "region", ariaLabel: "The answer"});
  const form = make("form", {}, ...(operation.parameters ?? []).map((each) => fieldOf(each, operation)),
    ...bodyOf(path, operation), make("p", {className: "buttons"}, make("button", {textContent: "Try it"})));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    sendForm(form, method.toUpperCase(), path, output);
  });
  return make("details", {id: operation.operationId},
    make("summary", {}, make("code", {textContent: `${method.toUpperCase()} ${path}`}), ` ${operation.summary ?? ""}`),
    make("p", {textContent: operation.description ?? ""}), form, output, tableOfAnswers(operation));
}

async function start() {
  description = await (await fetch("openapi.json")).json();
  byId("about").textContent = description.info.description ?? description.info.title;
  const operations = Object.entries(description.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => [path, method, operation]));
  const taken = new Set();
  for (const [title, wanted] of GROUPS) {
    const mine = operations.filter((each) => wanted.test(each[0]) && !taken.has(each));
    mine.forEach((each) => taken.add(each));
    byId("operations").append(make("section", {className: "card"}, make("h2", {textContent: title}),
      ...mine.map((each) => show(...each))));
  }
  const wanted = document.getElementById(location.hash.slice(1));
  if (wanted) wanted.open = true;
}

byId("access").addEventListener("submit", (event) => event.preventDefault());
start().catch(() => { byId("about").textContent = "The description cannot be read. Reload the page."; });

"use strict";
// /models and /models/{name} for people: the same address asked for JSON, in words.

const byId = (id) => document.getElementById(id);

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

const ROOT = new URL("..", document.currentScript.src).href;
const headers = {accept: "application/json"};
try {
  const token = sessionStorage.getItem("token");  // given on the page
  if (token) headers.authorization = `Bearer ${token}`;
} catch { /* the browser keeps nothing */ }

const percent = (fraction) => `${(100 * fraction).toFixed(1)} %`;
const grouped = (number) => number.toLocaleString("en");
const accuracyOf = (test, dataset = "") => test
  ? `${percent(test.accuracy)} of ${grouped(test.count)} test images${dataset && ` of ${dataset}`} (95 % interval ${(100 * test.low).toFixed(1)}–${(100 * test.high).toFixed(1)})` : "not measured";

function tableOf(title, lines) {
  return make("section", {className: "card"}, make("h2", {textContent: title}),
    make("div", {className: "scroll", tabIndex: 0, role: "region", ariaLabel: title},
      make("table", {className: "plain"}, make("tbody", {}, ...lines.map(([name, ...values]) => make("tr", {},
        make("th", {scope: "row"}, name), ...values.map((value) => make("td", {}, value))))))));
}

/** All models, or the two of "auto", whose own address is one folder further down. */
function showList({name = null, default: chosen, auto, models}) {
  const root = name ? "../" : "./";
  const rule = !auto ? "" : `${chosen === "auto" ? "The default is auto" : "The model auto"}: pictures of ` +
    `${auto.large_side} pixels and more are answered by ${auto.large}, smaller ones by ${auto.small}. `;
  if (name) byId("title").textContent = document.title = name;
  byId("about").replaceChildren(`${rule}Each model has its own page. `,
    make("a", {href: root, textContent: "Try them"}), " · ", make("a", {href: `${root}docs`, textContent: "API"}));
  byId("model").append(tableOf("Models", models.map((model) => [
    make("a", {href: `${root}models/${model.name}`, textContent: model.name}),
    `${accuracyOf(model.test_accuracy, model.dataset)}${model.name === chosen ? "; the default" : ""}`,
    `${grouped(model.parameters)} parameters, ${(model.size_bytes / 1e6).toFixed(2)} MB`,
  ])));
}

/** What was measured of this very file, from the efficiency table; {} where nothing was. */
async function measuredOf(digest) {
  try {
    const {machines} = await (await fetch("../efficiency", {headers})).json();
    return machines.flatMap((machine) => machine.models).find((model) => model.digest === digest) ?? {};
  } catch {
    return {};
  }
}

function limitsOf(card, side, measured) {
  const found = [], rightOn = (share) => `right on ${percent(share)}`;
  const test = card.accuracy?.test;
  if (side && side <= 32) found.push(`It sees ${side} × ${side} pixels: small or off-centre things are lost.`);
  if (measured.elsewhere_accuracy != null && test) {
    found.push(`It is ${rightOn(test.accuracy)} of its test images, but ${rightOn(measured.elsewhere_accuracy)} of ` +
      `${grouped(measured.elsewhere_images)} other images of its classes (${measured.elsewhere_dataset}; 95 % interval ` +
      `${(100 * measured.elsewhere_low).toFixed(1)}–${(100 * measured.elsewhere_high).toFixed(1)}).`);
  } else if (side && side <= 32) {
    found.push("The accuracy is that of such tiles. Expect less on photographs: how much less was not measured.");
  }
  if (measured.damaged_accuracy != null) {
    found.push(`On noisy, blurred, recompressed, bright and low-contrast copies of the test images it is ${rightOn(measured.damaged_accuracy)}.`);
  }
  if (!card.labels.includes("none")) {
    found.push("A picture of anything else still gets one of its class names" + (measured.others_images
      ? `: ${percent(measured.others_sure)} of ${grouped(measured.others_images)} such pictures got one with the verdict “sure”.`
      : ", often with high confidence."));
  }
  found.push("Do not use it where a wrong answer harms someone.");
  return found;
}

async function showModel(model) {
  const {card} = model, measured = await measuredOf(card.sha256);
  byId("title").textContent = model.name;
  document.title = model.name;
  byId("about").replaceChildren(make("a", {href: "../models", textContent: "All models"}), " · ",
    make("a", {href: "../", textContent: "Try it"}), " · ", make("a", {href: "../docs", textContent: "API"}));
  const [height] = model.input ?? card.input?.shape?.slice(1) ?? [];
  const labels = card.labels.filter((label) => label !== "none");
  const test = card.accuracy?.test;
  byId("model").append(
    make("section", {className: "card"}, make("h2", {textContent: "Intended use and limits"}),
      make("p", {textContent: `Pictures whose main subject is one of: ${labels.join(", ")}.`}),
      make("ul", {}, ...limitsOf(card, height, measured).map((text) => make("li", {textContent: text})))),
    tableOf("What it is", [
      ["Accuracy", accuracyOf(test)],
      ["Data set", card.dataset.variant === card.dataset.name ? card.dataset.name : `${card.dataset.name} (${card.dataset.variant})`],
      ["Parameters", grouped(card.parameters.total)],
      ["Multiply-accumulates", `${(card.macs / 1e6).toFixed(1)} M an image`],
      ["File", `${(card.size_bytes / 1e6).toFixed(2)} MB, ${card.precision}`],
      ["Runs on", `${model.device} (${model.providers.join(", ")})`],
      ["SHA-256", make("code", {textContent: card.sha256})],
    ]),
    ...(test?.per_class ? [tableOf("Accuracy by class", Object.entries(test.per_class).map(([label, share]) => [label, percent(share)]))] : []),
    tableOf("How it was made", [
      ["Recipe", card.recipe],
      ["Commit", make("code", {textContent: String(card.commit ?? "–").slice(0, 12)})],
      ["Made", String(card.created ?? "–").slice(0, 10)],
      ["Training", card.training ? `${card.training.epochs} epochs, ${(card.training.seconds / 60).toFixed(0)} minutes on ${card.training.hardware}` : "–"],
      ["Variant of", card.variant ? `${card.variant.source} (${card.precision})` : "–"],
    ]),
    make("details", {}, make("summary", {textContent: "The whole card as JSON"}),
      make("pre", {tabIndex: 0, role: "region", ariaLabel: "The card", textContent: JSON.stringify(card, null, 1)})),
  );
}

async function start() {
  const response = await fetch(location.href, {headers});
  const found = await response.json();
  if (response.status === 401) {
    byId("about").replaceChildren("This server asks for a token. ", make("a", {href: ROOT, textContent: "Give it on the page"}), ", then reload this one.");
  } else if (!response.ok) byId("about").textContent = `${found.title}: ${found.detail}`;
  else if (found.card) await showModel(found);
  else showList(found);
}

start().catch(() => { byId("about").textContent = "The server cannot be reached. Reload the page."; });

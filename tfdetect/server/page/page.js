/** The page "Is this real?": takes files, has them judged in turn, and shows what the server says. */

import { get, hasToken, useToken } from "./api.js";
import { aboutModels, Card } from "./card.js";
import { el } from "./dom.js";
import { Queue } from "./task.js";
import { applyTexts, atMost, bytes, has, joined, language, loadTexts, number, storeLanguage, t } from "./texts.js";
import { smallPrint } from "./verdict.js";

const byId = (id) => document.getElementById(id);
const queue = new Queue();
const cards = [];
let server = null;
let focusWanted = false; // the first result of a choice of files gets the focus

const app = {
  queue,
  get server() { return server; },
  model: (name) => (server.models ?? []).find((each) => each.name === name),
  announce: (text) => { byId("status").textContent = text; },
  finished,
  remove,
  needsToken: () => { byId("access").hidden = false; byId("token").focus(); },
};

async function start() {
  let languages = { en: "English", it: "Italiano" }; // until the server says which there are
  try { server = await get("v1/server"); languages = server.languages ?? languages; } catch (error) { server = { error }; }
  await loadTexts(Object.keys(languages));
  showAll(languages);
  byId("language").addEventListener("change", async (event) => {
    storeLanguage(event.target.value);
    await loadTexts(Object.keys(languages), event.target.value);
    showAll(languages);
    cards.forEach((card) => card.render());
  });
  listen();
}

/** Write everything but the cards in the language of the page. */
function showAll(languages) {
  applyTexts();
  byId("language").replaceChildren(...Object.entries(languages).map(([code, name]) => el("option", { value: code, lang: code, selected: code === language }, name)));
  document.body.classList.add("ready");
  showServer();
}

function showServer() {
  const { error, models = [], limits = {}, keeps = null, version = "" } = server;
  say(error ? t(error.kind === "token" ? "error.token.help" : "error.start") : models.length ? "" : t("models.missing"));
  byId("access").hidden = !(server.needs_token && !hasToken()) && error?.kind !== "token";
  byId("limits").textContent = [limits.bytes && t("limits.bytes", { bytes: bytes(limits.bytes) }),
    limits.pixels && t("limits.pixels", { megapixels: number(limits.pixels / 1e6) }),
    limits.seconds && t("limits.seconds", { duration: atMost(limits.seconds) })].filter(Boolean).join(" ");
  const columns = (keeps ?? []).map((name) => (has(`column.${name}`) ? t(`column.${name}`) : name));
  byId("keeps").textContent = error ? "" : keeps ? t("keeps.columns", { columns: joined(columns) }) : t("keeps.nothing");
  byId("log").hidden = !keeps;
  byId("version").textContent = version && `tfdetect ${version}`;
  byId("about").replaceChildren(...aboutModels(models, smallPrint));
  byId("caveats").replaceChildren(...["proof", "unseen", "context", "sound"].map((name) => el("li", {}, t(`caveat.${name}`))));
  showChoice(models);
}

/** Offer the detectors to choose from, if there are several; a choice survives a change of language. */
function showChoice(models) {
  const chosen = new Set(chosenModels());
  byId("models").hidden = models.length < 2;
  byId("models").replaceChildren(el("legend", {}, t("models.legend")), ...models.map(({ name }) => el("label", {},
    el("input", { type: "checkbox", value: name, checked: !chosen.size || chosen.has(name) }), name)));
}

function chosenModels() {
  return [...byId("models").querySelectorAll("input:checked")].map(({ value }) => value);
}

function say(text) {
  byId("alert").textContent = text;
  byId("alert").hidden = !text;
}

// ---- Taking files

function listen() {
  for (const id of ["files", "camera"]) {
    byId(id).addEventListener("change", (event) => {
      take([...event.target.files]);
      event.target.value = ""; // the same file can be chosen again
    });
  }
  const over = (event, is) => { event.preventDefault(); byId("drop").classList.toggle("over", is); };
  document.addEventListener("dragover", (event) => over(event, true));
  document.addEventListener("dragleave", (event) => event.relatedTarget === null && over(event, false));
  document.addEventListener("drop", (event) => { over(event, false); takeDropped(event.dataTransfer); });
  document.addEventListener("paste", (event) => takePasted(event));
  byId("access").addEventListener("submit", (event) => { event.preventDefault(); signIn(); });
  window.addEventListener("pagehide", () => cards.forEach((card) => card.stop())); // nobody waits for the answers any more
}

function takeDropped(data) {
  const folders = [...data.items].some((item) => item.webkitGetAsEntry?.()?.isDirectory);
  if (folders) say(t("drop.folder"));
  else if (data.files.length) take([...data.files]);
  else say(t("drop.address"));
}

function takePasted(event) {
  const files = [...event.clipboardData.files];
  if (files.length) { event.preventDefault(); take(files); }
  else if (!/^(INPUT|TEXTAREA)$/.test(event.target.tagName)) say(t("drop.address"));
}

/** Show a card for each file, in order above the earlier ones, and have them judged in turn. */
function take(files) {
  if (!files.length) return;
  if (server.error) return say(t("error.start"));
  const models = server.models.length < 2 ? [] : chosenModels();
  if (server.models.length > 1 && !models.length) return say(t("models.choose"));
  say("");
  focusWanted = true;
  const added = files.map((file) => new Card(file, models, app, files.length === 1));
  byId("results").prepend(...added.map(({ node }) => node));
  cards.unshift(...added);
  document.body.classList.add("has-results");
  app.announce(t("files.taken", { n: files.length }));
  added.forEach((card) => card.judge());
}

function finished(card) {
  app.announce(card.inOneLine());
  const active = document.activeElement;
  const free = active === document.body || active.closest(".ask") || card.node.contains(active);
  if (focusWanted && free && card.failure?.kind !== "token") card.heading.focus();
  focusWanted = false;
}

function remove(card) {
  const at = cards.indexOf(card);
  card.close();
  cards.splice(at, 1);
  document.body.classList.toggle("has-results", cards.length > 0);
  (cards[Math.min(at, cards.length - 1)]?.heading ?? byId("files")).focus();
}

async function signIn() {
  useToken(byId("token").value.trim());
  try { server = await get("v1/server"); } catch (error) { server = { error }; }
  showServer();
  cards.filter(({ failure }) => failure?.kind === "token").forEach((card) => card.judge());
}

start();

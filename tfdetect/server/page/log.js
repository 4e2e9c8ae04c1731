/** The page of the record: what was judged, found by text, date or file; as a table to download; and whether it was changed. */

import { get, getText, hasToken, useToken } from "./api.js";
import { el, symbol } from "./dom.js";
import { applyTexts, bytes, dateTime, duration, has, language, loadTexts, percent, storeLanguage, t } from "./texts.js";

const byId = (id) => document.getElementById(id);
const ROWS = 50; // that are shown at a time
const COLUMNS = ["time", "verdict", "probability", "model", "who", "request", "seconds", "bytes", "sha256"];
let server = {};
let found = null; // the answer that is shown
let offset = 0;
let message = null; // a function that says what is said above the rows, in the language of the page

async function start() {
  let languages = { en: "English", it: "Italiano" }; // until the server says which there are
  try { server = await get("v1/server"); languages = server.languages ?? languages; } catch (error) { message = () => explain(error); }
  await loadTexts(Object.keys(languages));
  byId("text").value = new URLSearchParams(location.search).get("sha256") ?? "";
  showAll(languages);
  byId("language").addEventListener("change", async (event) => {
    storeLanguage(event.target.value);
    await loadTexts(Object.keys(languages), event.target.value);
    showAll(languages);
  });
  listen();
  if (!server.needs_token || hasToken()) await search();
}

/** Write everything in the language of the page. */
function showAll(languages) {
  applyTexts();
  document.title = `${t("log.title")} – tfdetect`;
  byId("language").replaceChildren(...Object.entries(languages).map(([code, name]) => el("option", { value: code, lang: code, selected: code === language }, name)));
  byId("columns").replaceChildren(...COLUMNS.map((name) => el("th", { scope: "col" }, t(`log.${name}`))));
  byId("access").hidden = !(server.needs_token && !hasToken());
  document.body.classList.add("ready");
  show();
}

function listen() {
  byId("search").addEventListener("submit", (event) => { event.preventDefault(); search(); });
  byId("access").addEventListener("submit", (event) => { event.preventDefault(); useToken(byId("token").value.trim()); search(); });
  byId("older").addEventListener("click", () => search(offset + ROWS));
  byId("newer").addEventListener("click", () => search(Math.max(0, offset - ROWS)));
  byId("export").addEventListener("click", () => attempt(async () => save(await getText(`v1/log.csv?${asked()}`))));
  byId("check").addEventListener("click", () => attempt(check));
  byId("file").addEventListener("change", (event) => {
    const [file] = event.target.files;
    event.target.value = ""; // the same file can be chosen again
    if (file) attempt(async () => { byId("text").value = await sha256(file); await search(); });
  });
}

/** Return what is searched for as parameters of the address; a whole SHA-256 is looked up. */
function asked() {
  const typed = byId("text").value.trim(), since = byId("since").value;
  const text = ["real", "fake", "inconclusive", "failed"].find((word) => t(`verdict.${word}`).toLowerCase() === typed.toLowerCase()) ?? typed; // the record is in English
  const isHash = /^[0-9a-f]{64}$/i.test(text);
  return new URLSearchParams({ ...(text && { [isHash ? "sha256" : "text"]: text }), ...(since && { since }) });
}

function search(from = 0) {
  return attempt(async () => {
    found = await get(`v1/log?${asked()}&limit=${ROWS}&offset=${from}`);
    offset = from;
    message = null;
    byId("access").hidden = true;
  });
}

async function check() {
  const { rows, first_changed: changed, chain } = await get("v1/log/check");
  message = () => (changed === null ? t("log.intact", { n: rows, chain }) : t("log.changed", { row: changed }));
}

/** Do something, and say what went wrong. */
async function attempt(action) {
  try {
    await action();
  } catch (error) {
    message = () => explain(error);
    byId("access").hidden = error.kind !== "token";
  }
  show();
}

/** Return why there is no answer; the server's sentence where it has one. */
function explain({ kind = "page", detail = "" }) {
  const known = kind === "missing" ? "log.none" : kind === "network" ? "error.start" : kind === "token" ? "error.token.help" : `error.${kind}`;
  return [t(has(known) ? known : "error.page"), kind === "missing" || kind === "token" ? "" : detail].filter(Boolean).join(" ");
}

function show() {
  byId("alert").textContent = message?.() ?? "";
  byId("alert").hidden = !message;
  const { rows = [], total = 0 } = found ?? {};
  byId("count").textContent = found ? t("log.count", { n: total }) : "";
  document.querySelector("table").hidden = !rows.length;
  byId("rows").replaceChildren(...rows.map((row) => el("tr", {}, COLUMNS.map((name) => cell(name, row)))));
  byId("newer").hidden = offset === 0;
  byId("older").hidden = offset + rows.length >= total;
}

function cell(name, row) {
  const state = has(`verdict.${row.verdict}`) ? row.verdict : "scored";
  const content = {
    time: () => el("time", { datetime: row.time, title: row.time }, dateTime(row.time)),
    verdict: () => [symbol(state), t(`verdict.${state}`)],
    probability: () => (row.probability === null ? "" : percent(row.probability)),
    model: () => el("span", { title: row.model_hash }, `${row.model}, ${t("details.version", { version: row.version })}`),
    seconds: () => duration(row.seconds, 2),
    bytes: () => bytes(row.bytes),
  }[name]?.() ?? row[name];
  const kind = { probability: "number", seconds: "number", bytes: "number", sha256: "hash", verdict: state }[name];
  return el("td", { class: kind, "data-name": t(`log.${name}`) }, content);
}

/** Return the SHA-256 of a file, which stays on this machine. */
async function sha256(file) {
  if (!crypto.subtle) throw Object.assign(new Error(), { kind: "insecure" });
  const digest = await crypto.subtle.digest("SHA-256", await file.arrayBuffer());
  return [...new Uint8Array(digest)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

function save(text) {
  const url = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  el("a", { href: url, download: "log.csv" }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

start();

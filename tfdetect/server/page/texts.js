/** All that the page says, in the reader's language: texts.LANGUAGE.json, and numbers as they are written there. */

import { el } from "./dom.js";

const STORED = "tfdetect.language";
let texts = {};
let sentences = [], parts = []; // what the server says in English, as expressions, and its translations
let locale = "en"; // the language as it is written where the reader lives, such as en-GB
export let language = "en";

/** Load the texts of a language, or of the first one that the reader prefers; `languages` are codes. */
export async function loadTexts(languages, chosen = stored()) {
  const preferred = [chosen, ...navigator.languages.map((code) => code.slice(0, 2)), "en"];
  const found = preferred.find((code) => languages.includes(code)) ?? "en";
  const answer = await fetch(`page/texts.${found}.json`);
  texts = await answer.json();
  language = found;
  locale = navigator.languages.find((code) => code.startsWith(language)) ?? language;
  sentences = Object.entries(texts.server).map(([english, own]) => ({ english: pattern(english), own }));
  parts = Object.entries(texts.parts).map(([english, own]) => ({ english: pattern(english), own }));
  document.documentElement.lang = language;
}

function stored() {
  try { return localStorage.getItem(STORED); } catch { return null; }
}

/** Remember the reader's choice. */
export function storeLanguage(code) {
  try { localStorage.setItem(STORED, code); } catch { /* a private window: it holds for this visit */ }
}

/** Return a text with its {values}; one with forms for one and for many is chosen by `n`. */
export function t(key, values = {}) {
  let text = texts[key];
  if (text === undefined) throw new Error(`No text ${key} in ${language}`);
  if (typeof text === "object") text = text[new Intl.PluralRules(language).select(values.n)] ?? text.other;
  return text.replace(/\{(\w+)\}/g, (_, name) => (name === "n" ? number(values.n) : values[name]));
}

export const has = (key) => key in texts;

/** Put the texts into the elements that name them. */
export function applyTexts() {
  document.querySelectorAll("[data-text]").forEach((node) => { node.textContent = t(node.dataset.text); });
  document.querySelectorAll("[data-label]").forEach((node) => node.setAttribute("aria-label", t(node.dataset.label)));
  document.title = `${t("title")} – tfdetect`;
}

/** Return what the server said in English as a node: what the texts know translated, the rest marked as English. */
export function said(text) {
  return el("span", {}, saidBy(text, [". ", "; "]));
}

/** Return nodes for a text, which is translated as a whole or else piece by piece: by sentences first, then by clauses. */
function saidBy(text, separators) {
  const own = translated(text), [separator, ...finer] = separators;
  if (own !== null) return own;
  if (separator === undefined) return language === "en" ? text : el("span", { lang: "en" }, text);
  const pieces = text.split(separator).map((piece, at, all) => piece + (at < all.length - 1 ? separator.trim() : ""));
  return pieces.map((piece, at) => [at ? " " : "", saidBy(piece, finer)]);
}

/** Return a sentence of the server in the reader's language, null if the texts do not know it.
 *  What varies in it may be a sentence as well, or one of the parts, such as "{} to {}". */
function translated(sentence, known = sentences) {
  for (const { english, own } of known) {
    const match = english.exec(sentence);
    if (match) return own.replace(/\{(\d)\}/g, (_, at) => translated(match[Number(at) + 1], [...sentences, ...parts]) ?? localNumbers(match[Number(at) + 1]));
  }
  const unfinished = sentence.endsWith(".") ? translated(sentence.slice(0, -1), known) : null; // a reason that became a sentence
  return unfinished === null ? null : `${unfinished}.`;
}

/** Return the expression of a sentence in which {} stands for what varies. */
function pattern(english) {
  const literal = english.split("{}").map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  return new RegExp(`^${literal.join("((?:(?!\\. ).)+?)")}$`, "s");
}

function localNumbers(text) {
  return text.replace(/(?<![\w(,.])\d{1,3}(,\d{3})+(\.\d+)?|\d+\.\d+/g,
    (found) => number(Number(found.replaceAll(",", "")), found.split(".")[1]?.length ?? 0));
}

export function number(value, digits = 0) {
  return new Intl.NumberFormat(locale, { minimumFractionDigits: digits, maximumFractionDigits: digits }).format(value);
}

/** Return a probability as a percentage with at most one decimal; 0 and 100 are said only of exact values. */
export function percent(value, digits = 1) {
  const format = new Intl.NumberFormat(locale, { style: "percent", maximumFractionDigits: digits });
  if (digits > 1) return format.format(value);
  if (value > 0 && value < 0.0005) return t("percent.under", { value: format.format(0.001) });
  if (value < 1 && value >= 0.9995) return t("percent.over", { value: format.format(0.999) });
  return format.format(value);
}

/** Return probabilities in percent, with as many digits as tell different ones apart: 49.9999 % and 50 %. */
export function percents(values) {
  const shown = (digits) => values.map((value) => percent(value, digits));
  const enough = [1, 2, 3, 4, 5].find((digits) => new Set(shown(digits)).size === new Set(values).size);
  return shown(enough ?? 6);
}

export function bytes(count) {
  const units = ["byte", "kilobyte", "megabyte", "gigabyte"];
  const at = Math.min(3, Math.floor(Math.log10(Math.max(1, count)) / 3));
  const format = { style: "unit", unit: units[at], unitDisplay: "short", maximumFractionDigits: count < 10 * 1000 ** at ? 1 : 0 };
  return new Intl.NumberFormat(locale, format).format(count / 1000 ** at);
}

/** Return seconds as "4.2 s" or, from a minute on, "2:05". */
export function duration(seconds, digits = 0) {
  if (seconds >= 60) return `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;
  return `${new Intl.NumberFormat(locale, { maximumFractionDigits: digits }).format(seconds)} s`;
}

/** Return a limit in seconds as "30 seconds" or "60 minutes". */
export function atMost(seconds) {
  const [value, unit] = seconds < 120 ? [seconds, "second"] : [seconds / 60, "minute"];
  return new Intl.NumberFormat(locale, { style: "unit", unit, unitDisplay: "long", maximumFractionDigits: 1 }).format(value);
}

export function dateTime(text) {
  const date = new Date(text);
  return Number.isNaN(date.getTime()) ? text : new Intl.DateTimeFormat(locale, { dateStyle: "long", timeStyle: "short" }).format(date);
}

/** Return names as "a, b and c". */
export function joined(names) {
  return new Intl.ListFormat(locale, { type: "conjunction" }).format(names);
}

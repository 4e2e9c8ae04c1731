/** What one detector says about a file: the verdict, its probability, and what that means. */

import { el, fold, list, svg, symbol, uniqueId } from "./dom.js";
import { duration, has, number, percent, percents, said, t } from "./texts.js";

/** Return the state of a finding: real, fake, inconclusive, unfamiliar, scored (no calibration) or failed. */
export function stateOf({ verdict }) {
  if (verdict.error) return "failed";
  const word = verdict.verdict ?? verdict.label;
  if (verdict.unfamiliar && word === "inconclusive") return "unfamiliar";
  return word ?? "scored";
}

/** Return the finding in one line, for the list of files and for screen readers. */
export function oneLine(finding) {
  const word = t(`verdict.${stateOf(finding)}`);
  return hasProbability(finding) ? t("verdict.line", { word, percent: percent(finding.verdict.probability) }) : word;
}

/** Whether the probability is worth showing: not of a file that the detector does not know. */
function hasProbability(finding) {
  return typeof finding.verdict.probability === "number" && stateOf(finding) !== "unfamiliar";
}

/** Return the panel of a finding; `model` is what the server says about the detector, the third what it says about the file. */
export function verdictPanel(finding, model, { kind, sha256 }) {
  const state = stateOf(finding), title = uniqueId(), { verdict } = finding;
  const calibrated = hasProbability(finding);
  return el("section", { class: `finding ${state}`, "aria-labelledby": title },
    el("div", { class: "call" }, symbol(state),
      el("h3", { id: title }, el("span", { class: "by" }, t("verdict.by", { model: finding.model })),
        el("span", { class: "word" }, t(`verdict.${state}`))),
      calibrated ? el("p", { class: "probability" }, el("b", {}, percent(verdict.probability)), el("span", {}, t("probability"))) : ""),
    calibrated ? gauge(finding, kind) : "",
    el("div", { class: "words" },
      el("p", { class: "lead" }, explanationOf(state, kind)),
      state === "failed" ? el("p", {}, said(verdict.error)) : el("p", {}, atThisThreshold(finding, state)),
      cautions(finding, state, model)),
    el("div", {}, calibrated ? fold(t("meaning.title"), list((finding.meaning ?? []).map(said))) : "",
      fold(t("model.title"), smallPrint(model)),
      state === "failed" ? "" : fold(t("details.title"), details(finding, sha256))));
}

/** Return the verdict in a sentence about an image or a video. */
function explanationOf(state, kind) {
  return t(`explained.${state}`, { file: t(`kind.${kind ?? "file"}`), this: t(`this.${kind ?? "file"}`) });
}

/** Return what the probability means at the threshold of this detector. */
function atThisThreshold({ verdict, threshold, band }, state) {
  const { probability } = verdict;
  if (state === "scored" || threshold === null || threshold === undefined) return t("threshold.none");
  const [shown, limit, from, to] = percents([probability, threshold, ...(band ?? [])]);
  const values = { percent: shown, threshold: limit, from, to };
  if (state === "unfamiliar") return verdict.unfamiliar_reason ? t(`unfamiliar.${verdict.unfamiliar_reason.replace(" ", "_")}`) : "";
  if (state === "inconclusive" && band) return t("threshold.band", values);
  return t(band ? `threshold.${state}_band` : `threshold.${state}`, values);
}

function cautions({ verdict, caveats }, state, model) {
  const saidAbove = (text) => state === "unfamiliar" && text.includes(verdict.unfamiliar_reason); // in plainer words
  const texts = [...(caveats ?? []).filter((text) => !saidAbove(text)), ...(model?.caveats ?? [])];
  return texts.map((text) => el("p", { class: "careful" }, symbol("careful"), el("span", {}, said(text))));
}

/** Return a scale from 0 to 100 % with the threshold, the inconclusive band, and where this file lies. */
function gauge({ verdict: { probability }, threshold, band }, kind) {
  const x = (share) => 2 + 96 * share, at = (share) => `${x(share)}%`;
  const limits = band ?? [threshold, threshold];
  const zone = (from, to, name) => svg("rect", { x: at(from), width: `${96 * Math.max(0, to - from)}%`, y: 22, height: 12, class: name });
  const edge = probability < 0.15 ? "start" : probability > 0.85 ? "end" : "middle";
  const label = t(band ? "gauge.label_band" : "gauge.label", { percent: percent(probability), threshold: percent(band?.[1] ?? threshold ?? 0.5),
    from: percent(band?.[0] ?? 0) });
  const known = threshold !== null && threshold !== undefined;
  return svg("svg", { class: "gauge", role: "img", "aria-label": label },
    known ? [zone(0, limits[0], "zone-real"), zone(limits[0], limits[1], "zone-band"), zone(limits[1], 1, "zone-fake")] : zone(0, 1, "zone-band"),
    known && !band ? svg("line", { x1: at(threshold), x2: at(threshold), y1: 18, y2: 38, class: "tick" }) : "",
    svg("circle", { cx: at(probability), cy: 28, r: 9, class: "dot" }),
    svg("text", { x: at(probability), y: 13, "text-anchor": edge, class: "here" }, t(`this.${kind ?? "file"}`)),
    gaugeNames(known ? limits : null, x));
}

/** Return the names under the scale; what is said of its middle replaces an end that it would cover. */
function gaugeNames(limits, x) {
  const name = (share, text, anchor, place = "") => svg("text", { x: `${x(share)}%`, y: 53, "text-anchor": anchor, class: place }, text);
  if (!limits) return [name(0, t("gauge.real"), "start"), name(1, t("gauge.fake"), "end")];
  const [from, to] = limits, middle = (from + to) / 2, low = middle < 0.36, high = middle > 0.64;
  const text = from < to ? t("gauge.band", { from: percent(from), to: percent(to) }) : t("gauge.threshold", { threshold: percent(to) });
  return [low ? "" : name(0, t("gauge.real"), "start"), high ? "" : name(1, t("gauge.fake"), "end"),
    name(low ? Math.min(from, 0.3) : high ? Math.max(to, 0.7) : middle, text, low ? "start" : high ? "end" : "middle", "limits")];
}

/** Return what the model card says about a detector. */
export function smallPrint(model) {
  if (!model) return [];
  const unfit = list((model.not_for ?? []).map(said));
  return [model.headline ? el("p", {}, said(model.headline)) : "",
    unfit ? el("p", { class: "label" }, t("model.not_for")) : "", unfit].filter(Boolean);
}

function details(finding, sha256) {
  const { verdict, seconds, version, model } = finding;
  const rows = [[t("details.model"), `${model}, ${t("details.version", { version })}`]];
  const add = (name, value, write) => value !== null && value !== undefined && value !== "" && rows.push([t(`details.${name}`), write(value)]);
  if (hasProbability(finding)) add("probability", verdict.probability, percent);
  add("score", verdict.score, (value) => number(value, 3));
  add("frames", verdict.frames, (value) => number(value));
  add("familiarity", verdict.familiarity, (value) => `p = ${number(value, 3)}`);
  add("source", verdict.source, (value) => [value, verdict.source_probability === null ? "" : ` (${t("details.if_fake", { percent: percent(verdict.source_probability) })})`]);
  add("text", verdict.text, (value) => value);
  add("seconds", seconds, (value) => duration(value, 2));
  rows.push(["SHA-256", sha256]);
  return el("dl", {}, rows.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
}

/** Return a note on several detectors: whether they agree, and who says what if they do not; null for one. */
export function comparison(findings) {
  const judged = findings.filter(({ verdict }) => !verdict.error);
  if (judged.length < 2) return null;
  const groups = Map.groupBy(judged, stateOf), sides = ["real", "fake"].filter((state) => groups.has(state)).length;
  if (sides === 1 && groups.size === 1) {
    return el("p", { class: "agree" }, symbol("passed"), el("span", {}, t(judged.length === 2 ? "models.both" : "models.agree", { n: judged.length })));
  }
  const who = [...groups].map(([state, members]) => el("li", {}, t("models.side", {
    word: t(`verdict.${state}`), models: members.map(({ model }) => model).join(", ") })));
  const kind = ["none", "partly", "opposed"][sides];
  return el("div", { class: "disagree" }, symbol("careful"), el("div", {}, el("p", { class: "label" }, t(`models.${kind}`)),
    el("ul", {}, who), el("p", {}, t(`models.${kind}.help`))));
}

/** Return the faces of a file in words, [] where the detector does not look for them. */
export function facesInWords(faces, note) {
  if (!faces?.length) return note ? [el("p", {}, has(`faces.${note.replaceAll(" ", "_")}`) ? t(`faces.${note.replaceAll(" ", "_")}`) : said(note))] : [];
  const each = faces.map((face, at) => (typeof face.probability === "number"
    ? t("faces.one", { number: number(at + 1), percent: percent(face.probability) }) : null));
  return [el("p", {}, t("faces.found", { n: faces.length })), list(each.filter(Boolean))];
}

/** The card of one file: from the queue over the upload to verdicts, explanations and downloads. */

import { Failure, get } from "./api.js";
import { el, symbol, uniqueId } from "./dom.js";
import { drawFaces, explanationParts } from "./explanation.js";
import { failureBox, Task } from "./task.js";
import { bytes, dateTime, said, t } from "./texts.js";
import { comparison, facesInWords, oneLine, stateOf, verdictPanel } from "./verdict.js";

export class Card {
  /** `app` has the server's facts, the queue, and ways to announce and to move the focus. */
  constructor(file, models, app, alone) {
    Object.assign(this, { file, models, app, alone, explanations: new Map(), entry: null, failure: null, task: null });
    this.url = URL.createObjectURL(file);
    this.node = el("article", { class: "card" });
    this.title = uniqueId();
    this.node.setAttribute("aria-labelledby", this.title);
    this.preview = this.makePreview();
    this.render();
  }

  /** Have the file judged, and show what comes of it. */
  async judge() {
    const { limits } = this.app.server;
    this.failure = this.entry = null;
    this.task = new Task(this.app.queue, 0, t("progress.judging"));
    this.render();
    try {
      if (limits.bytes && this.file.size > limits.bytes) {
        throw new Failure("too_large", el("span", {}, t("error.size", { size: bytes(this.file.size), limit: bytes(limits.bytes) })));
      }
      const answer = await this.task.post(this.kind() === "video" ? "v1/score?wait=false" : "v1/score", [["file", this.file], ...this.models.map((name) => ["model", name])]);
      this.accept(answer.files[0]);
    } catch (error) {
      this.fail(error);
    }
    this.task = null;
    if (this.closed) return;
    this.render();
    this.app.finished(this);
    const explaining = this.explaining();
    if (this.alone && explaining.length) this.explain(explaining.find((name) => stateOf(this.findingOf(name)) !== "unfamiliar") ?? explaining[0]);
  }

  accept(entry) {
    if (entry.error) throw new Failure(entry.error.startsWith("no face found") ? "face" : "file", entry.error);
    this.entry = entry;
    if (this.app.server.keeps) this.lookUp(entry);
  }

  fail(error) {
    this.failure = error;
    if (error.kind === "token") this.app.needsToken();
  }

  /** Return the file's verdicts in one line. */
  inOneLine() {
    if (this.failure) return `${this.file.name}: ${t(`error.${this.failure.kind ?? "page"}`)}`;
    return `${this.file.name}: ${this.entry.findings.map((each) => (this.entry.findings.length > 1 ? `${each.model}: ` : "") + oneLine(each)).join("; ")}`;
  }

  /** Cancel what is under way. */
  stop() {
    this.task?.cancel();
    this.explanations.forEach(({ task }) => task?.cancel());
  }

  close() {
    this.closed = true;
    this.stop();
    URL.revokeObjectURL(this.url);
    this.node.remove();
  }

  render() {
    const kind = this.kind(), hadFocus = this.node.contains(document.activeElement);
    this.heading = el("h2", { id: this.title, tabindex: -1 }, this.file.name);
    this.why = el("div", { class: "why" });
    this.node.replaceChildren(...[
      el("header", { class: "file" }, el("div", {}, this.heading,
        el("p", { class: "fine" }, [kind && t(`kind.${kind}`), bytes(this.file.size)].filter(Boolean).join(" · "))),
      el("button", { type: "button", class: "quiet", "aria-label": t("remove.label", { name: this.file.name }), onclick: () => this.app.remove(this) }, t("remove"))),
      this.task ? el("div", { class: "waiting" }, this.preview, this.task.node) : "",
      this.failure ? failureBox(this.failure, () => this.judge()) : "",
      ...(this.entry ? this.results() : [])].filter(Boolean));
    if (this.entry) this.renderExplanations();
    if (hadFocus) this.heading.focus(); // what had it is gone
  }

  kind() {
    return this.entry?.kind ?? (/^(image|video)\//.exec(this.file.type)?.[1] || null);
  }

  results() {
    const { findings, kind } = this.entry;
    this.faces = el("div", {});
    this.before = el("p", { class: "fine before" }, this.seen ?? "");
    return [comparison(findings), el("div", { class: findings.length > 1 ? "verdict-and-file several" : "verdict-and-file" },
      el("div", { class: "findings" }, findings.map((each) => verdictPanel(each, this.app.model(each.model), this.entry))),
      el("div", { class: "preview" }, this.preview, this.faces, kind === "video" ? el("p", { class: "fine" }, t("sound")) : "")),
    this.why, this.downloads(), this.before];
  }

  // ---- The file itself

  makePreview() {
    const holder = el("div", { class: "picture" });
    const image = !this.file.type.startsWith("video/");
    const gone = () => holder.replaceChildren(el("p", { class: "fine none" }, t("preview.none")));
    this.video = image ? null : el("video", { src: this.url, controls: true, playsinline: true, muted: true, preload: "metadata", onerror: gone });
    this.image = image ? el("img", { src: this.url, alt: t("preview.alt", { name: this.file.name }), onerror: gone, onload: () => this.showFaces() }) : null;
    holder.append(this.video ?? this.image);
    return holder;
  }

  showFaces() {
    if (!this.entry) return;
    const explained = [...this.explanations.values()].map(({ found }) => found).filter(Boolean);
    const found = [...this.entry.findings.map(({ verdict }) => ({ faces: verdict.faces })), ...explained]
      .find(({ faces, face_note: note }) => faces?.length || note);
    if (this.image) drawFaces(this.preview, this.image, found?.faces);
    this.faces.replaceChildren(...facesInWords(found?.faces, found?.face_note).filter(Boolean));
  }

  // ---- What drives the verdict

  /** Return the names of the detectors that judged this file and can explain themselves. */
  explaining() {
    return (this.entry?.findings ?? []).filter((each) => stateOf(each) !== "failed" && this.app.model(each.model)?.explains)
      .map(({ model }) => model);
  }

  findingOf(name) {
    return this.entry.findings.find(({ model }) => model === name);
  }

  async explain(name) {
    const task = new Task(this.app.queue, 1, t("progress.explaining"));
    const fromHere = this.why.contains(document.activeElement);
    this.explanations.set(name, { task });
    this.renderExplanations();
    if (fromHere) task.node.querySelector("button").focus();
    try {
      this.explanations.set(name, { found: await task.post("v1/explain?wait=false", [["file", this.file], ["model", name]]) });
      this.app.announce(t("map.ready", { name: this.file.name, model: name }));
    } catch (error) {
      this.explanations.set(name, { failure: error });
      this.app.announce(`${this.file.name}: ${t(`error.${error.kind ?? "page"}`)}`);
      if (error.kind === "token") this.app.needsToken();
    }
    const cancelHadFocus = task.node.contains(document.activeElement);
    this.renderExplanations();
    if (cancelHadFocus) this.why.querySelector("h3")?.focus();
  }

  renderExplanations() {
    this.why.replaceChildren(...this.explaining().flatMap((name) => {
      const { task, found, failure } = this.explanations.get(name) ?? {};
      if (task) return [task.node];
      if (failure) return [failureBox(failure, () => this.explain(name))];
      if (found) return explanationParts(found, this.findingOf(name), this.video);
      const label = this.entry.kind === "video" ? "map.show_video" : "map.show";
      return [el("p", { class: "offer" }, el("button", { type: "button", onclick: () => this.explain(name) }, t(label, { model: name })))];
    }));
    this.why.querySelectorAll("h3").forEach((heading) => heading.setAttribute("tabindex", -1));
    this.showFaces();
  }

  // ---- To take away

  downloads() {
    const state = el("div", {}), stem = this.file.name.replace(/\.[^.]*$/, "") || "file";
    const report = async () => {
      if (state.querySelector(".task")) return; // under way
      const task = new Task(this.app.queue, 1, t("progress.report"));
      state.replaceChildren(task.node);
      try {
        const answer = await task.post("v1/case?wait=false", [["file", this.file], ...this.models.map((name) => ["model", name])]);
        save(typeof answer === "string" ? answer : answer.html, "text/html", `${stem}-case.html`);
        state.replaceChildren(el("p", { class: "fine", role: "status" }, t("download.done")));
      } catch (error) {
        state.replaceChildren(failureBox(error, report));
        if (error.kind === "token") this.app.needsToken();
      }
    };
    return el("div", { class: "downloads" },
      el("p", {}, el("button", { type: "button", onclick: report }, t("download.case")),
        el("button", { type: "button", onclick: () => save(this.asJson(), "application/json", `${stem}-verdict.json`) }, t("download.json"))),
      el("p", { class: "fine" }, t("download.note")), state);
  }

  /** Return all that the server said of this file but the pictures. */
  asJson() {
    const explanations = [...this.explanations.values()].map(({ found }) => found).filter(Boolean);
    const isPicture = (value) => typeof value === "string" && value.startsWith("data:");
    return JSON.stringify({ tfdetect: this.app.server.version, ...this.entry, explanations }, (_, value) => (isPicture(value) ? undefined : value), 1);
  }

  /** Say whether the server's record has this file from before. */
  async lookUp({ sha256, findings }) {
    const { rows } = await get(`v1/log/${sha256}`).catch(() => ({ rows: [] }));
    if (rows.length <= findings.length) return;
    const first = rows.map(({ time }) => time).sort()[0];
    this.seen = t("log.before", { n: rows.length, date: dateTime(first) });
    this.before?.replaceChildren(this.seen, " ", el("a", { href: `log?sha256=${sha256}` }, t("log.open")));
  }
}

function save(text, type, name) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  el("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

/** Return what the page says of the detectors that the server has. */
export function aboutModels(models, smallPrint) {
  return models.map((model) => el("section", { class: "model" }, el("h3", {}, model.name),
    el("p", { class: "fine" }, [model.detector, t("details.version", { version: model.version }), t(`model.${model.input}`),
      model.faces && model.faces !== "none" ? t("model.faces") : "", model.date ? dateTime(model.date) : ""].filter(Boolean).join(" · ")),
    (model.caveats ?? []).filter((text) => !model.headline?.startsWith(text)).map((text) => el("p", { class: "careful" }, symbol("careful"), said(text))), smallPrint(model)));
}

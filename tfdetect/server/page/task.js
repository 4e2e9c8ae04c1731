/** Requests one after the other, each with its progress in words, a bar, and a button that cancels it. */

import { Failure, post } from "./api.js";
import { el, symbol } from "./dom.js";
import { number, percent, said, t } from "./texts.js";

/** Runs one piece of work at a time, verdicts (rank 0) before all else (rank 1): a server has few places. */
export class Queue {
  waiting = [[], []];
  running = false;

  add(rank, work) {
    return new Promise((resolve, reject) => {
      this.waiting[rank].push(() => work().then(resolve, reject));
      this.next();
    });
  }

  async next() {
    const work = !this.running && (this.waiting[0].shift() ?? this.waiting[1].shift());
    if (!work) return;
    this.running = true;
    await work();
    this.running = false;
    this.next();
  }
}

/** A request, shown in `node` until it ends. */
export class Task {
  constructor(queue, rank, doing) {
    Object.assign(this, { queue, rank, doing, controller: new AbortController() });
    this.bar = el("progress", { max: 1, "aria-label": doing });
    this.words = el("p", {}, t("progress.waiting"));
    this.node = el("div", { class: "task" }, this.words, this.bar,
      el("button", { type: "button", onclick: () => this.cancel() }, t("cancel")));
  }

  cancel() {
    this.controller.abort();
  }

  /** Return the server's answer. Throws Failure. */
  post(path, fields) {
    const { signal } = this.controller;
    const hooks = { signal, onSent: () => this.show(this.doing), onProgress: (job) => this.follow(job),
      onUpload: (share) => this.show(t("progress.upload", { percent: percent(Math.floor(share * 100) / 100) }), share) };
    const cancelled = new Promise((_, reject) => {
      signal.addEventListener("abort", () => reject(new Failure("cancelled")), { once: true });
    });
    const answer = this.queue.add(this.rank, async () => {
      if (signal.aborted) throw new Failure("cancelled");
      this.show(t("progress.upload", { percent: percent(0) }), 0);
      return post(path, fields, hooks).catch((error) => {
        error.detail = error.detail?.replace(`${fields[0][1].name}: `, ""); // the card says which file it is
        throw error;
      });
    });
    return Promise.race([answer, cancelled]); // a request in the queue need not wait for its turn to be cancelled
  }

  follow({ state, before, done, total, stage }) {
    const waits = before ? t("progress.before", { n: before }) : t("progress.queued");
    const words = stage ? said(stage) : state === "queued" ? waits : this.doing;
    if (total) this.show([words, " ", t("progress.of", { done: number(done), total: number(total) })], done / total);
    else this.show(words);
  }

  show(words, share = null) {
    this.words.replaceChildren(...[words].flat());
    if (share === null) this.bar.removeAttribute("value");
    else this.bar.value = share;
  }
}

const SELF_EVIDENT = new Set(["busy", "unavailable", "token", "network"]); // kinds to which the server's sentence adds nothing
const FINAL = new Set(["file", "face", "too_large", "unsupported"]); // kinds in which the same file would fail again

/** Return what went wrong, in the reader's language, with the server's sentence, and a button to try again. */
export function failureBox(failure, tryAgain) {
  const known = failure instanceof Failure ? failure : new Failure("page", String(failure?.message ?? failure));
  if (!(failure instanceof Failure)) console.error(failure);
  const wait = known.wait ? t("error.wait", { n: known.wait }) : "";
  return el("div", { class: "failure" }, symbol("failed"), el("div", { class: "words" },
    el("h3", {}, t(`error.${known.kind}`)),
    el("p", {}, t(`error.${known.kind}.help`), wait && ` ${wait}`),
    known.detail && !SELF_EVIDENT.has(known.kind) ? el("p", { class: "fine" }, t("error.reason"), " ", known.detail instanceof Node ? known.detail : said(known.detail)) : "",
    tryAgain && !FINAL.has(known.kind) ? el("button", { type: "button", onclick: tryAgain }, t("again")) : ""));
}

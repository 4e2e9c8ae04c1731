/** The probability over the seconds of a video: a chart to click or to walk along by keys, and pictures of its peaks. */

import { el, svg, uniqueId } from "./dom.js";
import { duration, percent, said, t } from "./texts.js";

const HEIGHT = 210, LEFT = 46, RIGHT = 14, TOP = 20, BOTTOM = 30; // pixels
const LETTERS = "ABCD";

/** Return the section; `video` is the element that plays the file, `band` the inconclusive band or null. */
export function timelineSection(line, band, video) {
  const title = uniqueId(), chart = new Chart(line, band, video);
  return el("section", { class: "timeline", "aria-labelledby": title },
    el("h3", { id: title }, t("timeline.title")),
    el("p", { class: "fine" }, t("timeline.how")),
    chart.node, chart.readout,
    el("p", { class: "fine" }, t(band ? "timeline.legend_band" : "timeline.legend", { threshold: percent(chart.limit) })),
    el("div", { class: "peaks" }, (line.peaks ?? []).slice(0, LETTERS.length).map((peak, at) => peakButton(peak, LETTERS[at], chart))),
    el("p", { class: "fine" }, line.description ? said(line.description) : "", " ", line.note ? [said(line.note), ". "] : "", t("timeline.caution")));
}

function peakButton(peak, letter, chart) {
  const label = t("timeline.peak", { letter, time: duration(peak.time, 1), percent: percent(peak.probability) });
  return el("button", { type: "button", class: "peak", "aria-label": t("timeline.seek", { label }), onclick: () => chart.seek(peak.time) },
    peak.image ? el("img", { src: peak.image, alt: "" }) : "", el("span", {}, label));
}

/** A slider over the moments of a video: role and keys of https://www.w3.org/WAI/ARIA/apg/patterns/slider/ */
class Chart {
  constructor(line, band, video) {
    Object.assign(this, { line, band, video, at: 0, limit: band ? band[1] : line.threshold });
    this.end = Math.max(line.times.at(-1), Number.isFinite(video?.duration) ? video.duration : 0, 1e-6);
    this.node = el("div", { class: "chart", role: "slider", tabindex: 0, "aria-label": t("timeline.slider"), "aria-valuemin": 0,
      "aria-valuemax": this.end.toFixed(2), onkeydown: (event) => this.key(event), onpointerdown: (event) => this.point(event),
      onpointermove: (event) => event.buttons === 1 && this.point(event) });
    this.readout = el("p", { class: "readout", "aria-hidden": "true" });
    new ResizeObserver(() => this.draw()).observe(this.node); // text keeps its size on a phone
    video?.addEventListener("timeupdate", () => this.follow());
    this.select(0);
  }

  nearest(time) {
    const { times } = this.line;
    return times.reduce((best, each, at) => (Math.abs(each - time) < Math.abs(times[best] - time) ? at : best), 0);
  }

  x(seconds) { return LEFT + (this.width - LEFT - RIGHT) * Math.min(1, Math.max(0, seconds / this.end)); }

  y(share) { return TOP + (HEIGHT - TOP - BOTTOM) * (1 - share); }

  /** Draw the chart in the pixels that it has. */
  draw() {
    this.width = this.node.clientWidth || 640;
    const { times, probabilities } = this.line, points = times.map((time, at) => [this.x(time), this.y(probabilities[at])]);
    this.cursor = svg("line", { y1: TOP - 6, y2: HEIGHT - BOTTOM, class: "cursor" });
    this.ring = svg("circle", { r: 8, class: "ring" });
    this.node.replaceChildren(svg("svg", { width: this.width, height: HEIGHT, "aria-hidden": "true" },
      this.axes(), this.limits(),
      svg("polyline", { points: points.map((point) => point.join()).join(" "), class: "curve" }),
      points.map(([cx, cy], at) => (probabilities[at] >= this.limit ? this.fakePoint(cx, cy, points.length)
        : svg("circle", { cx, cy, r: points.length > 100 ? 2 : 4, class: "point-real" }))),
      this.letters(), this.cursor, this.ring));
    this.select(this.at);
  }

  /** Points that count as fake are triangles: they differ in shape as well as in colour. */
  fakePoint(x, y, count) {
    const size = count > 100 ? 2.5 : 5;
    return svg("path", { d: `M${x} ${y - size}l${size} ${1.7 * size}h${-2 * size}z`, class: "point-fake" });
  }

  axes() {
    const rows = [0, 0.5, 1].map((share) => [svg("line", { x1: LEFT, x2: this.width - RIGHT, y1: this.y(share), y2: this.y(share), class: "grid" }),
      svg("text", { x: LEFT - 7, y: this.y(share) + 4, "text-anchor": "end" }, percent(share))]);
    const raw = this.end / Math.max(2, Math.min(8, this.width / 90)), unit = 10 ** Math.floor(Math.log10(raw));
    const step = unit * [1, 2, 5, 10].find((factor) => unit * factor >= raw - 1e-9);
    const ticks = Array.from({ length: Math.floor(this.end / step + 1e-9) + 1 }, (_, at) => at * step);
    return [rows, ticks.map((time) => svg("text", { x: this.x(time), y: HEIGHT - 9, "text-anchor": this.x(time) > this.width - 30 ? "end" : "middle" }, duration(time, 2)))];
  }

  limits() {
    const width = this.width - LEFT - RIGHT, y = this.y(this.limit);
    const band = this.band && svg("rect", { x: LEFT, width, y: this.y(this.band[1]), height: this.y(this.band[0]) - this.y(this.band[1]), class: "zone-band" });
    return [band, svg("line", { x1: LEFT, x2: this.width - RIGHT, y1: y, y2: y, class: "threshold" })];
  }

  letters() {
    return (this.line.peaks ?? []).slice(0, LETTERS.length).map((peak, at) => svg("text", {
      x: this.x(peak.time), y: Math.max(13, this.y(peak.probability) - 12), "text-anchor": "middle", class: "letter" }, LETTERS[at]));
  }

  /** Make a moment the chosen one; screen readers say which it is. */
  select(at, time = this.line.times[at]) {
    this.show(at, time);
    this.node.setAttribute("aria-valuenow", this.line.times[at].toFixed(2));
    this.node.setAttribute("aria-valuetext", this.readout.textContent);
  }

  show(at, time) {
    this.at = at;
    const point = this.line.times[at], probability = this.line.probabilities[at];
    this.readout.textContent = t("timeline.moment", { time: duration(point, 2), percent: percent(probability) });
    if (!this.cursor) return;
    for (const [name, value] of [["x1", this.x(time)], ["x2", this.x(time)]]) this.cursor.setAttribute(name, value);
    for (const [name, value] of [["cx", this.x(point)], ["cy", this.y(probability)]]) this.ring.setAttribute(name, value);
  }

  /** Show a moment in the video and in the chart. */
  seek(time) {
    if (this.video && !this.video.error) this.video.currentTime = time;
    this.select(this.nearest(time), time);
  }

  /** Move along with the video; said aloud is only what the reader chose. */
  follow() {
    this.show(this.nearest(this.video.currentTime), this.video.currentTime);
  }

  point(event) {
    const share = (event.clientX - this.node.getBoundingClientRect().left - LEFT) / (this.width - LEFT - RIGHT);
    this.seek(Math.min(1, Math.max(0, share)) * this.end);
  }

  key(event) {
    const last = this.line.times.length - 1, step = Math.max(2, Math.round(last / 10));
    const to = { ArrowLeft: this.at - 1, ArrowDown: this.at - 1, ArrowRight: this.at + 1, ArrowUp: this.at + 1,
      PageDown: this.at - step, PageUp: this.at + step, Home: 0, End: last }[event.key];
    if (to !== undefined) this.seek(this.line.times[Math.min(last, Math.max(0, to))]);
    else if ((event.key === " " || event.key === "Enter") && this.video) this.video.paused ? this.video.play().catch(() => {}) : this.video.pause();
    else return;
    event.preventDefault();
  }
}

/** What drives a verdict: the frame as the detector saw it, the heat-map over it, and the check that tells a true map. */

import { el, svg, symbol, uniqueId } from "./dom.js";
import { number, percent, said, t } from "./texts.js";
import { timelineSection } from "./timeline.js";
import { stateOf } from "./verdict.js";

const SMALL = 200; // pixels of a side up to which a picture is enlarged without smoothing, as the detector saw it

/** Return the parts of an explanation; `finding` is the verdict that it explains, `video` the player of the file or null. */
export function explanationParts(found, finding, video) {
  const line = found.timeline;
  const doubt = stateOf(finding) === "unfamiliar" ? el("p", { class: "careful" }, symbol("careful"), el("span", {}, t("unfamiliar.anyway"))) : "";
  return [doubt, line && line.times.length > 1 ? timelineSection(line, finding.band, video) : "", drives(found)].filter(Boolean);
}

function drives(found) {
  if (!found.picture) return null;
  const title = uniqueId(), heat = found.heat_map;
  return el("section", { class: "drives", "aria-labelledby": title },
    el("div", { class: "words" }, el("h3", { id: title }, t("map.title", { model: found.model })),
      heat ? [checkInWords(heat), el("p", {}, t("map.proof")), el("h4", {}, t("map.how")), el("p", { class: "fine" }, said(heat.note))]
        : el("p", {}, t("map.none"))),
    heatFigure(found));
}

/** Return the picture with the heat-map over it, and the slider that fades it in and out. */
function heatFigure({ picture, heat_map: heat, kind }) {
  const frame = el("img", { src: picture, alt: t(kind === "video" ? "map.frame" : "map.picture") });
  const size = el("span", {});
  frame.addEventListener("load", () => {
    frame.parentElement.classList.toggle("small", Math.max(frame.naturalWidth, frame.naturalHeight) <= SMALL);
    size.textContent = t("map.size", { width: number(frame.naturalWidth), height: number(frame.naturalHeight) });
  });
  if (!heat) return el("figure", {}, el("div", { class: "stack" }, frame), el("figcaption", {}, size));
  const overlay = el("img", { src: heat.image, alt: t("map.alt"), class: "overlay" }), id = uniqueId();
  const slider = el("input", { id, type: "range", min: 0, max: 100, value: 80, oninput: () => fade() });
  const fade = () => {
    overlay.style.opacity = slider.value / 100;
    slider.setAttribute("aria-valuetext", t("map.shown", { percent: percent(slider.value / 100) }));
  };
  fade();
  return el("figure", {}, el("div", { class: "stack" }, frame, overlay),
    el("label", { for: id, class: "label" }, t("map.slider")),
    el("div", { class: "slide" }, el("span", { "aria-hidden": "true" }, t("map.off")), slider, el("span", { "aria-hidden": "true" }, t("map.on"))),
    el("figcaption", {}, size));
}

/** Return whether the map passes its check, and what was measured. */
function checkInWords({ passed, check, result }) {
  const measured = check && Number.isFinite(check.hottest_tenth) && Number.isFinite(check.elsewhere);
  const change = (drop) => t(drop >= 0 ? "map.lowers" : "map.raises", { value: number(Math.abs(drop), 3) });
  const text = measured ? t("map.measured", { hottest: change(check.hottest_tenth), elsewhere: change(check.elsewhere) }) : said(result ?? "");
  return el("p", { class: passed ? "check ok" : "check bad" }, symbol(passed ? "passed" : "careful"),
    el("span", {}, el("b", {}, t(passed ? "map.passed" : "map.failed")), " ", text));
}

/** Draw the boxes of faces over an image of the file; they are in pixels of it: [left, top, width, height]. */
export function drawFaces(picture, image, faces) {
  picture.querySelector(".boxes")?.remove();
  if (!faces?.length || !image.naturalWidth) return;
  const unit = Math.max(image.naturalWidth, image.naturalHeight) / 100;
  picture.append(svg("svg", { class: "boxes", viewBox: `0 0 ${image.naturalWidth} ${image.naturalHeight}`, "aria-hidden": "true" },
    faces.map(({ box: [x, y, width, height] }, at) => svg("g", {},
      svg("rect", { x, y, width, height, rx: unit }),
      svg("text", { x: x + unit, y: Math.max(y - 1.2 * unit, 5 * unit), "font-size": 5 * unit }, number(at + 1))))));
}

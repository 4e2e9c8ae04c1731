/** Requests to the server that this page came from, and to no other. */

const POLL = 1000; // milliseconds
const TRIES = 5; // polls in a row that may fail before the network counts as gone
const KINDS = { 400: "invalid", 401: "token", 404: "missing", 408: "timeout", 413: "too_large", 415: "unsupported", 422: "invalid", 429: "busy",
  503: "unavailable" };
const TOKEN = "tfdetect.token";

/** Why there is no answer. `kind` names a text ("error.busy"), `detail` is the server's sentence, or a node, `wait` seconds to wait. */
export class Failure extends Error {
  constructor(kind, detail = "", wait = null) {
    super(`${kind}: ${detail}`);
    Object.assign(this, { kind, detail, wait });
  }
}

let token = "";
try { token = sessionStorage.getItem(TOKEN) ?? ""; } catch { /* no storage: the token holds until the page is closed */ }

/** Send this token with every request of this tab. */
export function useToken(value) {
  token = value;
  try { sessionStorage.setItem(TOKEN, value); } catch { /* as above */ }
}

export const hasToken = () => token !== "";

const headers = () => (token ? { Authorization: `Bearer ${token}` } : {});

/** Return the JSON answer of a GET request. Throws Failure. */
export const get = async (path, signal) => parse(await getText(path, signal));

/** Return the answer of a GET request as text. Throws Failure. */
export async function getText(path, signal) {
  const answer = await fetch(path, { headers: headers(), signal, cache: "no-store" }).catch((error) => {
    throw signal?.aborted ? new Failure("cancelled") : new Failure("network", String(error.message ?? ""));
  });
  const text = await answer.text();
  if (!answer.ok) throw refusal(answer.status, text, answer.headers.get("Retry-After"));
  return text;
}

/** Return the answer of a POST of form fields: an object, or text where the server sends a page.
 *  A job is followed to its end. `onUpload(share)`, `onSent()` and `onProgress(job)` are called meanwhile. Throws Failure. */
export async function post(path, fields, { onUpload, onSent, onProgress, signal }) {
  const form = new FormData();
  for (const [name, value] of fields) form.append(name, value);
  const answer = await send(path, form, onUpload, onSent, signal);
  if (answer.status !== 202) return answer.isJson ? parse(answer.text) : answer.text;
  return follow(parse(answer.text).job, onProgress, signal);
}

function send(path, form, onUpload, onSent, signal) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest(); // fetch tells nothing of an upload's progress
    request.open("POST", path);
    for (const [name, value] of Object.entries(headers())) request.setRequestHeader(name, value);
    request.upload.onprogress = (event) => event.lengthComputable && onUpload?.(event.loaded / event.total);
    request.upload.onload = () => onSent?.();
    request.onerror = () => reject(new Failure("network"));
    request.onabort = () => reject(new Failure("cancelled"));
    request.onload = () => {
      const { status, responseText: text } = request;
      if (status >= 300 || status < 200) return reject(refusal(status, text, request.getResponseHeader("Retry-After")));
      return resolve({ status, text, isJson: (request.getResponseHeader("Content-Type") ?? "").includes("json") });
    };
    if (signal.aborted) return reject(new Failure("cancelled"));
    signal.addEventListener("abort", () => request.abort(), { once: true });
    return request.send(form);
  });
}

function refusal(status, text, wait) {
  let detail = "";
  try { detail = JSON.parse(text).error ?? ""; } catch { /* an intermediary's page says nothing that helps */ }
  return new Failure(KINDS[status] ?? "server", String(detail), wait && Number.isFinite(Number(wait)) ? Number(wait) : null);
}

function parse(text) {
  try { return JSON.parse(text); } catch { throw new Failure("server"); }
}

/** Return the result of a job, which is cancelled on the server where the signal says so. Throws Failure. */
async function follow(id, onProgress, signal) {
  const path = `v1/jobs/${encodeURIComponent(id)}`;
  const cancel = () => fetch(path, { method: "DELETE", headers: headers(), keepalive: true }).catch(() => {});
  signal.addEventListener("abort", cancel, { once: true });
  try {
    if (signal.aborted) await cancel();
    let job = await listen(`${path}/events`, onProgress, signal).catch(() => null);
    for (let failures = 0; !(job && hasEnded(job) && "result" in job);) {
      if (signal.aborted) throw new Failure("cancelled");
      try {
        job = await get(path, signal);
        failures = 0;
        onProgress?.(job);
      } catch (error) {
        if (error.kind !== "network" || ++failures === TRIES) throw error;
      }
      if (!job || !hasEnded(job)) await new Promise((resolve) => setTimeout(resolve, POLL));
    }
    if (job.state === "failed") throw new Failure("job", job.error ?? "");
    return job.result;
  } finally {
    signal.removeEventListener("abort", cancel);
  }
}

const hasEnded = (job) => job.state === "done" || job.state === "failed";

/** Return the last state that a stream of server-sent events tells, null if it breaks off before the end.
 *  EventSource cannot send a token, so the stream is read here: https://html.spec.whatwg.org/multipage/server-sent-events.html */
async function listen(path, onProgress, signal) {
  const answer = await fetch(path, { headers: { ...headers(), Accept: "text/event-stream" }, signal });
  if (!answer.ok || !answer.body) return null;
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let last = null;
  for (let buffer = ""; ;) {
    const { value, done } = await reader.read();
    if (done) return last;
    const events = (buffer + value).replace(/\r\n?/g, "\n").split("\n\n");
    buffer = events.pop();
    for (const event of events) {
      const data = event.split("\n").filter((line) => line.startsWith("data:")).map((line) => line.slice(5)).join("\n");
      if (!data) continue; // a comment that keeps the connection open
      last = JSON.parse(data);
      onProgress?.(last);
    }
    if (last && hasEnded(last)) {
      reader.cancel();
      return last;
    }
  }
}

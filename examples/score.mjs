// Verdicts of a server on files, with Node 20 or later: node examples/score.mjs http://localhost:8501 a.jpg b.mp4
// A token comes from the environment variable TFDETECT_TOKEN. The exit code is 2 if a file was not judged.
// In a browser, the same code takes the files of an <input type="file">.
import { openAsBlob } from "node:fs";
import { basename } from "node:path";

const [url, ...files] = process.argv.slice(2);
const token = process.env.TFDETECT_TOKEN;
const headers = token ? { Authorization: `Bearer ${token}` } : {};

async function ask(path, options) {
  const response = await fetch(url + path, { headers, ...options }).catch(({ message, cause }) => {
    throw new Error(`${url} cannot be reached (${cause?.message || cause?.code || message})`);
  });
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(answer.error ?? `${response.status} ${response.statusText}`);
  return answer;
}

async function score(file) {
  const form = new FormData();
  form.append("file", await openAsBlob(file), basename(file));
  let answer = await ask("/v1/score", { method: "POST", body: form });
  if (!answer.job) return answer.files[0];
  for (const { job } = answer; ; await new Promise((wake) => setTimeout(wake, 500))) {  // a long video
    answer = await ask(`/v1/jobs/${job}`);
    if (answer.state === "done") return answer.result.files[0];
    if (answer.state === "failed") throw new Error(answer.error);
  }
}

for (const file of files) {
  try {
    const { error, findings } = await score(file);
    if (error) throw new Error(error);
    for (const { model, verdict } of findings) {
      const words = verdict.error ?? `${verdict.verdict}, probability of being fake ${verdict.probability.toFixed(3)}`;
      console.log(`${file}: ${words} (${model})`);
    }
  } catch ({ message }) {
    console.error(`${file}: ${message}`);
    process.exitCode = 2;
  }
}

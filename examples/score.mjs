// Verdicts of a server on files, with Node 20 or later: node examples/score.mjs http://localhost:8501 a.jpg b.mp4
// In a browser, the same code takes the files of an <input type="file">.
import { openAsBlob } from "node:fs";
import { basename } from "node:path";

const [url, ...files] = process.argv.slice(2);

async function answerOf(request) {
  const response = await request;
  const answer = await response.json();
  if (!response.ok) throw new Error(`${response.status}: ${answer.error}`);
  return answer;
}

async function score(file) {
  const form = new FormData();
  form.append("file", await openAsBlob(file), basename(file));
  let answer = await answerOf(fetch(`${url}/v1/score`, { method: "POST", body: form }));
  if (!answer.job) return answer.files[0];
  for (const job = answer.job; ; await new Promise((wake) => setTimeout(wake, 500))) {  // a long video
    answer = await answerOf(fetch(`${url}/v1/jobs/${job}`));
    if (answer.state === "done") return answer.result.files[0];
    if (answer.state === "failed") throw new Error(answer.error);
  }
}

for (const file of files) {
  const { error, findings } = await score(file);
  if (error) console.log(`${file}: ${error}`);
  for (const { model, verdict } of findings ?? []) {
    console.log(`${file}: ${verdict.verdict}, probability of being fake ${verdict.probability?.toFixed(3)} (${model})`);
  }
}

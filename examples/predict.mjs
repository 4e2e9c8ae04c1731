// TensorFlow Serving's REST contract from JavaScript: node examples/predict.mjs http://localhost:8501 MODEL a.jpg
// The same request goes to `serve` and to `tensorflow/serving`, which writes NaN, for an image that
// cannot be decoded, where JSON has no word for it.
import { readFile } from "node:fs/promises";

const [url, model, ...files] = process.argv.slice(2);
try {
  const instances = await Promise.all(files.map(async (file) => ({ b64: await readFile(file, "base64") })));
  const response = await fetch(`${url}/v1/models/${model}:predict`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ signature_name: "serve_bytes", instances }),
  });
  const text = (await response.text()).replace(/([:,[]\s*)(NaN|-?Infinity)\b/g, "$1null");
  const { error, predictions } = JSON.parse(text);
  if (error) throw new Error(error);
  predictions.forEach((found, row) => console.log(`${files[row]}: ${found.error || found.verdict}, ${found.probability}`));
} catch ({ message, cause }) {
  console.error(cause ? `${message}: ${cause.message || cause.code}` : message);
  process.exitCode = 2;
}

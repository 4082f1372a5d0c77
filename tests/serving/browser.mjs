// Translate texts by an exported folder with transformers.js in headless Chromium, and print the outputs as JSON.
//
//     node browser.mjs NODE_MODULES FOLDER TEXTS.json
//
// NODE_MODULES has @huggingface/transformers, puppeteer-core and @sparticuz/chromium. All files are served on loopback.
import fs from "node:fs";
import http from "node:http";
import { createRequire } from "node:module";
import path from "node:path";
import { pathToFileURL } from "node:url";

const [modules, folder, textsFile] = process.argv.slice(2);
const require = createRequire(path.join(modules, "_"));
const load = async (name) => (await import(pathToFileURL(require.resolve(name)))).default;
const chromium = await load("@sparticuz/chromium");
const puppeteer = await load("puppeteer-core");

const imports = {
  "onnxruntime-web": "/modules/onnxruntime-web/dist/ort.min.mjs",
  "onnxruntime-web/webgpu": "/modules/onnxruntime-web/dist/ort.webgpu.bundle.min.mjs",
  "onnxruntime-common": "/modules/onnxruntime-common/dist/esm/index.js",
};
const page = `<script type="importmap">${JSON.stringify({ imports })}</script>
<script type="module">
import { env, AutoTokenizer, AutoModelForSeq2SeqLM } from "/modules/@huggingface/transformers/dist/transformers.web.js";
window.translate = async (texts, dtype) => {
  Object.assign(env, {
    allowRemoteModels: false, allowLocalModels: true, localModelPath: "/models/", useBrowserCache: false,
  });
  env.backends.onnx.wasm.wasmPaths = "/modules/onnxruntime-web/dist/";
  const tokenizer = await AutoTokenizer.from_pretrained("exported");
  const model = await AutoModelForSeq2SeqLM.from_pretrained("exported", { dtype, device: "wasm" });
  const outputs = [];
  for (const text of texts) {
    const [ids] = await model.generate({ ...tokenizer(text), max_new_tokens: 16 });
    outputs.push(tokenizer.decode(ids.tolist(), { skip_special_tokens: true }));
  }
  return outputs;
};
</script>`;

const types = {
  ".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm", ".json": "application/json",
};
const server = http.createServer((request, response) => {
  const url = decodeURIComponent(new URL(request.url, "http://localhost").pathname);
  if (url === "/") return response.writeHead(200, { "content-type": "text/html" }).end(page);
  const [root, prefix] = url.startsWith("/modules/") ? [modules, "/modules/"] : [folder, "/models/exported/"];
  const file = path.join(root, url.replace(prefix, ""));
  fs.readFile(file, (error, data) => {
    if (error) return response.writeHead(404).end();
    response.writeHead(200, { "content-type": types[path.extname(file)] ?? "application/octet-stream" }).end(data);
  });
});
await new Promise((done) => server.listen(0, "127.0.0.1", done));
const executablePath = await chromium.executablePath();
const browser = await puppeteer.launch({ executablePath, args: chromium.args, headless: "shell" });
try {
  const tab = await browser.newPage();
  tab.on("pageerror", (error) => console.error(String(error)));
  await tab.goto(`http://127.0.0.1:${server.address().port}/`);
  await tab.waitForFunction("window.translate", { timeout: 60000 });
  const texts = JSON.parse(fs.readFileSync(textsFile));
  const outputs = {};
  for (const dtype of ["fp32", "q8"]) {
    outputs[dtype] = await tab.evaluate((texts, dtype) => window.translate(texts, dtype), texts, dtype);
  }
  console.log(JSON.stringify(outputs));
} finally {
  await browser.close();
  server.close();
}

// The model runs in this browser: ONNX graphs under onnxruntime-web, and Hugging Face's tokenizers in JavaScript.

import { allGrids, allowsSomething, EVERYTHING, range } from "./effective.js";
import { Attention, EngineError } from "./engine.js";
import { MaskError, parse } from "./masks.js";

// A module with one instruction of SIMD, which every build of onnxruntime-web needs.
const SIMD = [0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11];
const AGAIN = "Write the folder again by: crossmask explore MODEL --write-static FOLDER";

export class Engine {
  kind = "browser";
  canAudit = false;

  /** @param {(loaded: number, total: number) => void} onProgress bytes of the model. */
  async load(onProgress = () => {}) {
    if (typeof WebAssembly !== "object" || !WebAssembly.validate(new Uint8Array(SIMD))) {
      throw new EngineError(
        "This browser has no WebAssembly SIMD, which the model needs. Use a current version of Firefox, Chrome, Edge " +
          "or Safari, or run crossmask explore on your machine. Masks can still be written and seen.",
      );
    }
    const [facts, tokenizer, config] = await Promise.all(
      ["facts", "tokenizer", "tokenizer_config"].map(async (name) => (await read(`model/${name}.json`)).json()),
    );
    this.facts = facts;
    this.own = Object.fromEntries(Object.entries(facts.masks).map(([scope, text]) => [scope, parse(text)]));
    const [ort, { Tokenizer }] = await Promise.all([load("./runtime/ort.mjs"), load("./runtime/tokenizers.mjs")]);
    this.ort = ort;
    this.tokenizer = new Tokenizer(tokenizer, config);
    ort.env.wasm.numThreads = 1;
    ort.env.wasm.wasmPaths = { wasm: new URL("runtime/ort-wasm-simd-threaded.wasm", document.baseURI).href };
    const progress = {};
    const report = (name) => (loaded, total) => {
      progress[name] = [loaded, total];
      const all = Object.values(progress);
      onProgress(all.reduce((sum, [n]) => sum + n, 0), all.reduce((sum, [, n]) => sum + n, 0));
    };
    const [encoder, decoder] = await Promise.all(
      ["encoder", "decoder"].map((name) => bytes(`model/${name}.onnx`, report(name))),
    );
    this.encoder = await ort.InferenceSession.create(encoder);
    this.decoder = await ort.InferenceSession.create(decoder);
    return facts;
  }

  async source(text) {
    return this.#tokens(text).tokens;
  }

  async translate(question, signal) {
    const { ids, tokens } = this.#tokens(question.text);
    const masks = this.#masks(question);
    const hidden = question.hidden ?? [];
    const read = this.#replaced(ids, question);
    const states = await this.#encode(read, masks, hidden);
    const target = [this.facts.start];
    let output;
    do {
      // A step at a time, so that the page stays alive.
      await new Promise((done) => setTimeout(done));
      signal?.throwIfAborted();
      output = await this.#decode(target, states, read.length, masks, hidden);
      target.push(output.next);
    } while (!this.facts.ends.includes(output.next) && target.length <= this.facts.limits.target);
    const written = target.slice(1);
    const { layers, heads } = this.#sizes("cross");
    const sizes = { layers, heads, rows: written.length, columns: read.length };
    return {
      tokens,
      read: read.map((id) => this.#shown(id)),
      target: written.map((id) => this.#shown(id)),
      text: this.#text(written),
      attention: new Attention(sizes, output.weights),
      digest: digest(output.logits),
    };
  }

  /** Source words one by one; a target token is written when all that its masks allow has arrived. */
  async *stream(question, signal) {
    const { ids, tokens } = this.#tokens(question.text);
    const [masks, hidden] = [this.#masks(question), question.hidden ?? []];
    const words = question.text.trim().split(/\s+/);
    const allowed = (scope, rows) => union(allGrids(scope, this.own[scope], masks[scope], hidden,
      { rows, columns: ids.length, ...this.#sizes(scope) }), rows, ids.length);
    const encoder = allowed("encoder", ids.length);
    const target = [this.facts.start];
    let known = 0;
    let [states, encoded] = [null, 0];
    for (const number of range(words.length)) {
      const ended = number === words.length - 1;
      const nextWord = tokens.findIndex(({ word }) => word === number + 1);
      const arrived = ended ? ids.length : nextWord;
      const closed = ended ? ids.length : longestClosed(encoder, arrived, ids.length);
      if (closed > encoded) {
        encoded = closed;
        states = await this.#encode(ids.slice(0, encoded), masks, hidden, ids.length);
      }
      let finished = false;
      while (encoded && !finished) {
        const row = target.length - 1;
        const needed = allowed("cross", row + 1).subarray(row * ids.length).lastIndexOf(1) + 1;
        if (needed > encoded && !ended) break;
        const { next } = await this.#decode(target, states, encoded, masks, hidden, ids.length);
        target.push(next);
        finished = this.facts.ends.includes(next) || target.length > this.facts.limits.target;
      }
      const all = this.#text(target.slice(1)).split(/\s+/).filter(Boolean);
      const written = all.slice(known, finished ? all.length : Math.max(known, all.length - 1));
      known += written.length;
      yield { read: number + 1, word: words[number], written, finished: finished || ended };
      if (finished || ended) return;
      await pause(question.pause ?? 0, signal);
    }
  }

  async audit() {
    throw new EngineError("The audit needs the server: run crossmask explore MODEL.");
  }

  #sizes(scope) {
    return { layers: this.facts.layers[scope], heads: this.facts.heads[scope] };
  }

  #masks(question) {
    return Object.fromEntries(
      Object.entries(EVERYTHING).map(([scope, everything]) => {
        const text = question[`${scope}_mask`] ?? everything;
        const mask = parse(text);
        const { source, target } = this.facts.limits;
        const [rows, columns] = [scope === "encoder" ? source : target, scope === "decoder" ? target : source];
        if (!allowsSomething(mask, { rows, columns, ...this.#sizes(scope) })) {
          throw new MaskError(
            `${scope}_mask must allow something, got ${text}, which never allows anything; join the rules by | or ` +
              "leave one of them out",
            0,
            text.length,
          );
        }
        return [scope, mask];
      }),
    );
  }

  #tokens(text) {
    const { characters, source } = this.facts.limits;
    if (!text.trim()) throw new EngineError("The sentence must have a word; write one.");
    if (text.length > characters) {
      throw new EngineError(`The sentence must have at most ${characters} characters, got ${text.length}; shorten it.`);
    }
    const { ids, tokens } = this.tokenizer.encode(text);
    if (ids.length > source) {
      throw new EngineError(`The sentence must have at most ${source} tokens, got ${ids.length}; shorten it.`);
    }
    const words = wordsOf(text, tokens);
    return { ids, tokens: ids.map((id, index) => ({ text: this.#shown(id), word: words[index] })) };
  }

  #shown(id) {
    const text = this.tokenizer.decode([id]).trim();
    return text && !text.includes("\ufffd") ? text : this.tokenizer.id_to_token?.(id) ?? text;
  }

  #text(ids) {
    const own = ids.filter((id) => !this.facts.ends.includes(id) && id !== this.facts.start);
    return own.length ? this.tokenizer.decode(own, { skip_special_tokens: true }) : "";
  }

  #replaced(ids, { replacement = 0, hidden = [], replaced = [] }) {
    if (!replacement) return ids;
    const chosen = new Set(replaced.length ? replaced : hidden);
    const { others } = this.facts;
    return ids.map((id, index) => {
      if (!chosen.has(index)) return id;
      const other = others[(7919 * replacement + 104729 * index) % others.length];
      return other === id ? others[(others.indexOf(other) + 1) % others.length] : other;
    });
  }

  async #encode(ids, masks, hidden, length = ids.length) {
    const { ort } = this;
    const { layers, heads } = this.#sizes("encoder");
    const sizes = { rows: ids.length, columns: ids.length, layers, heads };
    const whole = { ...sizes, columns: length, rows: length };
    const mask = crop(allGrids("encoder", this.own.encoder, masks.encoder, hidden, whole), whole, sizes);
    const { last_hidden_state: states } = await this.encoder.run({
      input_ids: new ort.Tensor("int64", BigInt64Array.from(ids, BigInt), [1, ids.length]),
      encoder_mask: new ort.Tensor("bool", mask, [layers, heads, ids.length, ids.length]),
    });
    return states;
  }

  async #decode(target, states, columns, masks, hidden, length = columns) {
    const { ort } = this;
    const rows = target.length;
    const grids = {};
    for (const [scope, keys] of [["decoder", rows], ["cross", columns]]) {
      const { layers, heads } = this.#sizes(scope);
      const sizes = { layers, heads, rows, columns: keys };
      const whole = { ...sizes, columns: scope === "cross" ? length : keys };
      const cells = crop(allGrids(scope, this.own[scope], masks[scope], hidden, whole), whole, sizes);
      grids[scope] = new ort.Tensor("bool", cells, [layers, heads, rows, keys]);
    }
    const { logits, cross_attentions: weights } = await this.decoder.run({
      input_ids: new ort.Tensor("int64", BigInt64Array.from(target, BigInt), [1, rows]),
      encoder_hidden_states: states,
      decoder_mask: grids.decoder,
      cross_mask: grids.cross,
    });
    const vocabulary = logits.dims[2];
    const last = logits.data.subarray((rows - 1) * vocabulary);
    let next = 0;
    for (let id = 1; id < vocabulary; id += 1) if (last[id] > last[next]) next = id;
    return { next, logits: logits.data, weights: weights.data };
  }
}

/** The part of grids (L, H, rows, columns) that a smaller number of rows and columns has. */
function crop(cells, whole, part) {
  if (whole.rows === part.rows && whole.columns === part.columns) return cells;
  const result = new Uint8Array(whole.layers * whole.heads * part.rows * part.columns);
  for (const block of range(whole.layers * whole.heads)) {
    for (const row of range(part.rows)) {
      const from = (block * whole.rows + row) * whole.columns;
      result.set(cells.subarray(from, from + part.columns), (block * part.rows + row) * part.columns);
    }
  }
  return result;
}

/** What any layer and head allows. */
function union(cells, rows, columns) {
  const result = new Uint8Array(rows * columns);
  cells.forEach((cell, index) => (result[index % result.length] |= cell));
  return result;
}

/** The most tokens, of those that have arrived, that look at nothing behind themselves. */
function longestClosed(allowed, arrived, length) {
  for (let count = arrived; count > 0; count -= 1) {
    if (range(count).every((row) => !allowed.subarray(row * length + count, (row + 1) * length).includes(1))) return count;
  }
  return 0;
}

/** For each token the number of its word, by where its bytes stand in the text; null for one that is not in it. */
function wordsOf(text, pieces) {
  const encoder = new TextEncoder();
  const bytesOfText = encoder.encode(text);
  const wordAt = [];
  let word = -1;
  let inside = false;
  for (const sign of text) {
    const isSpace = /\s/u.test(sign);
    if (!isSpace && !inside) word += 1;
    inside = !isSpace;
    for (const _ of encoder.encode(sign)) wordAt.push(isSpace ? null : word);
  }
  let at = 0;
  return pieces.map((piece) => {
    const ownBytes = /^<0x[0-9A-F]{2}>$/.test(piece) ? [parseInt(piece.slice(3, 5), 16)] : encoder.encode(piece);
    if (!range(ownBytes.length).every((index) => bytesOfText[at + index] === ownBytes[index])) return null;
    const words = wordAt.slice(at, at + ownBytes.length);
    at += ownBytes.length;
    return words.find((number) => number !== null) ?? null;
  });
}

/** Sixteen digits that differ if a bit of the numbers does, but for chance (FNV-1a, twice). */
function digest(numbers) {
  const words = new Uint32Array(numbers.buffer, numbers.byteOffset, numbers.length);
  return [0x811c9dc5, 0x9747b28c]
    .map((seed) => {
      let hash = seed;
      for (const bits of words) hash = Math.imul(hash ^ bits, 0x01000193) ^ (hash >>> 15);
      return (hash >>> 0).toString(16).padStart(8, "0");
    })
    .join("");
}

function pause(seconds, signal) {
  return new Promise((done, fail) => {
    const timer = setTimeout(done, 1000 * seconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      fail(signal.reason);
    });
  });
}

async function load(path) {
  return import(path).catch(() => {
    throw new EngineError(`${path} could not be loaded, which runs the model. Load the page again. ${AGAIN}`);
  });
}

async function read(path) {
  const response = await fetch(path).catch(() => null);
  if (response?.ok) return response;
  throw new EngineError(
    response ? `This folder has no ${path}, so that there is no model to run. ${AGAIN}`
      : `${path} could not be fetched. Check the network, and load the page again.`,
  );
}

async function bytes(path, onProgress) {
  const response = await read(path);
  const total = Number(response.headers.get("Content-Length")) || 0;
  const chunks = [];
  let loaded = 0;
  const reader = response.body.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    chunks.push(value);
    loaded += value.length;
    onProgress(loaded, Math.max(total, loaded));
  }
  return new Uint8Array(await new Blob(chunks).arrayBuffer());
}

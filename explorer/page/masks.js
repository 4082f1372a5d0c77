// The mask language in the browser: from a text to a mask, and from a mask to a grid.
//
// It reads what `crossmask.masks.parse` reads, and allows what the rules in `masks/rules/` allow;
// tests/explorer/test_masks_in_javascript.py compares the two on random texts. A mask here is an object with
// `allows(q, k)`, `check(sizes)`, `forLayer(layer, layers, training)`, the names of its rules, and the part of the
// text that it was read from. A page has one example in a row, without passages, so that `segment` is 1, and
// `passage` and `example` are 0.

import { names, RULES } from "./mask-rules.js";
import { Float, MaskError, readTree } from "./mask-syntax.js";

export { MaskError } from "./mask-syntax.js";

const RULES_LIMIT = 1024;

/** The mask of a text. Throws a MaskError. */
export function parse(text) {
  const context = { rules: 0, read: (part, offset) => build(readTree(part, offset), context) };
  return context.read(text, 0);
}

function build(node, context) {
  const { kind, start, end } = node;
  if (kind === "and" || kind === "or") return combine(kind, node.parts.map((part) => build(part, context)), start, end);
  if (kind === "not") return not(build(node.part, context), start, end);
  if (kind === "call") return call(node, context);
  if (kind === "name" && Object.hasOwn(RULES, node.name)) {
    throw new MaskError(`a rule must have brackets; write ${node.name}(...)`, start, end);
  }
  if (kind === "name") throw unknown(node.name, start, end);
  throw new MaskError("a mask must be made of rules with &, | and ~", start, end);
}

function unknown(name, start, end) {
  const near = Object.keys(RULES).find((rule) => distance(rule, name) <= 2);
  const fix = near ? `did you mean ${near}?` : `write one of ${Object.keys(RULES).sort().join(", ")}`;
  return new MaskError(`a rule must have a known name, got ${name.slice(0, 40)}; ${fix}`, start, end);
}

function distance(a, b) {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i += 1) {
    const next = [i];
    for (let j = 1; j <= b.length; j += 1) {
      next[j] = Math.min(next[j - 1] + 1, row[j] + 1, row[j - 1] + (a[i - 1] !== b[j - 1]));
    }
    row = next;
  }
  return row[b.length];
}

function call(node, context) {
  const { name, start, end, nameEnd } = node;
  context.rules += 1;
  if (context.rules > RULES_LIMIT) throw new MaskError(`a mask must have at most ${RULES_LIMIT} rules`, start, end);
  if (!Object.hasOwn(RULES, name)) throw unknown(name, start, nameEnd);
  const fail = (reason) => {
    throw new MaskError(`${name}: ${reason}`, start, end);
  };
  const { parameters, others, make } = RULES[name];
  const values = {};
  const rest = [];
  for (const [index, part] of node.positional.entries()) {
    if (index < parameters.length) values[parameters[index]] = part;
    else if (others) rest.push(part);
    else fail(`there must be at most ${parameters.length} parameters, got ${node.positional.length}`);
  }
  for (const [key, part] of node.named) {
    if (![...parameters, ...(others ?? [])].includes(key)) {
      fail(`a parameter must be one of ${[...parameters, ...(others ?? [])].join(", ") || "none"}, got ${key}`);
    }
    if (key in values) fail(`every parameter must be there once, got ${key} twice`);
    values[key] = part;
  }
  const options = Object.fromEntries(Object.entries(values).map(([key, part]) => [key, value(part, context)]));
  const mask = make(options, fail, rest.map((part) => value(part, context)), context);
  return { check() {}, ...mask, ...(mask.forLayer ? {} : { forLayer() { return this; } }), name, start, end,
    names: new Set([name, ...(mask.names ?? [])]) };
}

/** What a parameter is: a number, a `Float`, a string with its place, null, an array, a Map or a mask. */
function value(node, context) {
  const { kind, start, end } = node;
  if (kind === "constant") return typeof node.value === "string" ? { string: node.value, ...node } : node.value;
  if (kind === "negative" && node.part.kind === "constant") {
    const number = node.part.value;
    if (typeof number === "number") return -number;
    if (number instanceof Float) return new Float(-number.value);
  }
  if (kind === "sequence") return node.parts.map((part) => value(part, context));
  if (kind === "mapping") {
    const result = new Map();
    for (const [key, part] of node.entries) {
      const written = key.kind === "constant" ? key.value : undefined;
      if (!Number.isInteger(written) && typeof written !== "string") {
        throw new MaskError("a key must be a number or a string", key.start, key.end);
      }
      if (result.has(written)) throw new MaskError("every key must be there once", key.start, key.end);
      result.set(written, { key, mask: value(part, context) });
    }
    return result;
  }
  if (["call", "and", "or", "not"].includes(kind)) return build(node, context);
  throw new MaskError("a parameter must be a number, a string, a mask, or a tuple, list or dict of these", start, end);
}

function combine(kind, parts, start, end) {
  const every = kind === "and";
  return {
    start,
    end,
    names: names(parts),
    allows: every ? (q, k) => parts.every((part) => part.allows(q, k)) : (q, k) => parts.some((part) => part.allows(q, k)),
    check: (sizes) => parts.forEach((part) => part.check(sizes)),
    forLayer: (...layer) => combine(kind, parts.map((part) => part.forLayer(...layer)), start, end),
  };
}

function not(part, start, end) {
  return {
    start,
    end,
    names: part.names,
    allows: (q, k) => !part.allows(q, k),
    check: (sizes) => part.check(sizes),
    forLayer: (...layer) => not(part.forLayer(...layer), start, end),
  };
}

/**
 * What a mask allows: one byte for each pair, row by row. Throws a MaskError if the mask does not fit.
 *
 * @param {object} mask of `parse`.
 * @param {{rows: number, columns: number, heads?: number, head?: number, layers?: number, layer?: number,
 *   training?: boolean}} sizes rows are queries, columns are keys.
 */
export function grid(mask, { rows, columns, heads = 1, head = 0, layers = 1, layer = 0, training = false }) {
  const chosen = mask.forLayer(layer, layers, training);
  chosen.check({ rows, columns, heads });
  const cells = new Uint8Array(rows * columns);
  const [q, k] = [{ position: 0, head }, { position: 0 }];
  for (q.position = 0; q.position < rows; q.position += 1) {
    for (k.position = 0; k.position < columns; k.position += 1) {
      cells[q.position * columns + k.position] = chosen.allows(q, k) ? 1 : 0;
    }
  }
  return cells;
}

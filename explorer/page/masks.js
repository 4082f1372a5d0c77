// The mask language in the browser: from a text to a mask, and from a mask to a grid.
//
// It reads what `crossmask.masks.parse` reads, and allows what the rules in `masks/rules/` allow;
// tests/explorer/test_masks_in_javascript.py compares the two on random texts. A mask here is an object with
// `allows(q, k)`, `check(sizes)`, `forLayer(layer, layers, training)` and the part of the text that it was read from.
// A page has one example in a row, without passages, so that `segment` is 1 and `passage` and `example` are 0.

const TEXT_LIMIT = 2 ** 15;
const RULES_LIMIT = 1024;
const BRACKETS_LIMIT = 100;
const LARGEST = 2 ** 31;

/** A text that is not a mask, or a mask that does not fit. `start` and `end` are the part of the text at fault. */
export class MaskError extends Error {
  constructor(message, start, end) {
    super(message);
    this.start = start;
    this.end = Math.max(end, start + 1);
  }
}

// ---- Tokens and the syntax tree --------------------------------------------------------------------------------

const TOKEN = new RegExp(
  [
    String.raw`(?<space>[ \t]+)`,
    String.raw`(?<number>\.?\d[\p{L}\p{N}_.]*(?:(?<=[eE])[+-][\p{L}\p{N}_]*)?)`,
    String.raw`(?<name>[\p{L}_][\p{L}\p{N}\p{M}_]*)`,
    String.raw`(?<string>'(?:[^'\\\n\r\0]|\\.)*'|"(?:[^"\\\n\r\0]|\\.)*")`,
    String.raw`(?<sign>[&|~()[\]{},:=-])`,
  ].join("|"),
  "uy",
);
const DECIMAL = /^(?:\d+(?:_\d+)*(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?)$/;
const ESCAPE = /\\(?:([\\'"abfnrtv])|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8}))/g;
const ESCAPED = /^(?:[^\\]|\\(?:[\\'"abfnrtv]|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}))*$/su;
const CONTROL = { a: "\x07", b: "\b", f: "\f", n: "\n", r: "\r", t: "\t", v: "\v" };
const CONSTANTS = { None: null, True: true, False: false };

/** A number that was written with a point or an exponent, which a rule that wants an integer refuses. */
class Float {
  constructor(value) {
    this.value = value;
  }
}

function tokens(text, offset) {
  const found = [];
  let at = 0;
  let depth = 0;
  while (at < text.length) {
    TOKEN.lastIndex = at;
    const match = TOKEN.exec(text);
    if (!match) {
      const sign = String.fromCodePoint(text.codePointAt(at));
      const what = /['"]/.test(sign) ? "a string that does not end" : `${JSON.stringify(sign)}`;
      throw new MaskError(`the text of a mask must not have ${what}; join rules by &, | and ~`, offset + at,
        offset + (/['"]/.test(sign) ? text.length : at + sign.length));
    }
    const kind = Object.keys(match.groups).find((name) => match.groups[name] !== undefined);
    const written = match[0];
    if (kind !== "space") {
      const token = { kind, text: written, start: offset + at, end: offset + at + written.length };
      if ("([{~".includes(written)) depth += 1;
      else if (")]}".includes(written)) depth -= 1;
      else if (written !== "~" && found.at(-1)?.text === "~") depth = Math.max(0, depth - countTildes(found));
      if (depth > BRACKETS_LIMIT) {
        throw new MaskError(`brackets and ~ must be nested at most ${BRACKETS_LIMIT} deep`, token.start, token.end);
      }
      found.push(token);
    }
    at += written.length;
  }
  found.push({ kind: "end", text: "", start: offset + text.length, end: offset + text.length });
  return found;
}

function countTildes(found) {
  let count = 0;
  while (found.at(-1 - count)?.text === "~") count += 1;
  return count;
}

function readNumber(token) {
  const { text } = token;
  const isInteger = /^[\d_]+$/.test(text);
  if (text.length > 40 || !DECIMAL.test(text) || (isInteger && /^0[\d_]*[1-9]/.test(text))) {
    throw new MaskError(`numbers must be decimal and have at most 40 characters, got ${text.slice(0, 40)}`,
      token.start, token.end);
  }
  const value = Number(text.replaceAll("_", ""));
  return isInteger ? value : new Float(value);
}

function readString(token) {
  const inside = token.text.slice(1, -1);
  if (!ESCAPED.test(inside)) {
    throw new MaskError("the string has an unknown escape; write \\\\ for a backslash", token.start, token.end);
  }
  return inside.replace(ESCAPE, (_, sign, ...codes) =>
    sign ? CONTROL[sign] ?? sign : String.fromCodePoint(parseInt(codes.slice(0, 3).find(Boolean), 16)));
}

/** Python's precedence: `|` binds least, then `&`, then `~` and `-`, then a call. */
class Parser {
  constructor(text, offset) {
    this.tokens = tokens(text, offset);
    this.index = 0;
  }

  get next() {
    return this.tokens[this.index];
  }

  take(sign) {
    if (this.next.text !== sign || this.next.kind !== "sign") return null;
    return this.tokens[this.index++];
  }

  expect(sign, what) {
    const token = this.take(sign);
    if (token) return token;
    throw this.unexpected(`${sign} ${what}`);
  }

  unexpected(wanted) {
    const { kind, text, start, end } = this.next;
    const got = kind === "end" ? "the end of the text" : JSON.stringify(text.slice(0, 40));
    return new MaskError(`there must be ${wanted} here, got ${got}`, kind === "end" ? Math.max(0, start - 1) : start, end);
  }

  chain(sign, kind, part) {
    const parts = [part()];
    while (this.take(sign)) parts.push(part());
    if (parts.length === 1) return parts[0];
    return { kind, parts, start: parts[0].start, end: parts.at(-1).end };
  }

  expression() {
    return this.chain("|", "or", () => this.chain("&", "and", () => this.unary()));
  }

  unary() {
    for (const [sign, kind] of [["~", "not"], ["-", "negative"]]) {
      const token = this.take(sign);
      if (token) {
        const part = this.unary();
        return { kind, part, start: token.start, end: part.end };
      }
    }
    return this.atom();
  }

  atom() {
    const token = this.next;
    const { start, end } = token;
    if (token.kind === "name") {
      this.index += 1;
      const name = token.text.normalize("NFKC");
      if (this.next.kind === "string") throw this.unexpected("no prefix of a string");
      if (this.take("(")) return this.call(name, start, end);
      if (name in CONSTANTS) return { kind: "constant", value: CONSTANTS[name], start, end };
      return { kind: "name", name, start, end };
    }
    if (token.kind === "number" || token.kind === "string") {
      this.index += 1;
      if (token.kind === "string" && this.next.kind === "string") throw this.unexpected("one string, not two side by side");
      const value = token.kind === "number" ? readNumber(token) : readString(token);
      return { kind: "constant", value, start, end, text: token.text };
    }
    if (this.take("(")) return this.sequence(")", start);
    if (this.take("[")) return this.sequence("]", start);
    if (this.take("{")) return this.mapping(start);
    throw this.unexpected("a rule");
  }

  call(name, start, nameEnd) {
    const positional = [];
    const named = new Map();
    while (this.next.text !== ")") {
      const following = this.tokens[this.index + 1];
      if (this.next.kind === "name" && following?.text === "=") {
        const { text, start: from, end: to } = this.next;
        if (named.has(text)) throw new MaskError(`every parameter must be named once, got ${text} twice`, from, to);
        this.index += 2;
        named.set(text, this.expression());
      } else if (named.size) {
        throw this.unexpected("name=value, behind another of these,");
      } else {
        positional.push(this.expression());
      }
      if (!this.take(",")) break;
    }
    const { end } = this.expect(")", `or a comma in ${name}(...)`);
    return { kind: "call", name, positional, named, start, end, nameEnd };
  }

  sequence(closing, start) {
    const parts = [];
    let comma = null;
    while (this.next.text !== closing) {
      parts.push(this.expression());
      comma = this.take(",");
      if (!comma) break;
    }
    const { end } = this.expect(closing, "or a comma");
    if (closing === ")" && parts.length === 1 && !comma) return { ...parts[0] };
    return { kind: "sequence", parts, start, end };
  }

  mapping(start) {
    const entries = [];
    while (this.next.text !== "}") {
      const key = this.expression();
      this.expect(":", "after a key");
      entries.push([key, this.expression()]);
      if (!this.take(",")) break;
    }
    const { end } = this.expect("}", "or a comma");
    return { kind: "mapping", entries, start, end };
  }
}

// ---- From the syntax tree to a mask ----------------------------------------------------------------------------

/** The mask of a text. Throws a MaskError. `offset` is where the text stands in a longer one. */
export function parse(text, offset = 0, counter = { rules: 0 }) {
  if (text.length > TEXT_LIMIT) {
    throw new MaskError(`a mask's text must have at most ${TEXT_LIMIT} characters, got ${text.length}`,
      offset + TEXT_LIMIT, offset + text.length);
  }
  const trimmed = text.trim();
  if (!trimmed) throw new MaskError("a mask must have a rule, got an empty text; write full() for no mask", offset, offset);
  const reader = new Parser(trimmed, offset + text.indexOf(trimmed));
  const tree = reader.expression();
  if (reader.next.kind !== "end") throw reader.unexpected("& or |, or the end");
  return build(tree, counter);
}

function build(node, counter) {
  const { kind, start, end } = node;
  if (kind === "and" || kind === "or") return combine(kind, node.parts.map((part) => build(part, counter)), start, end);
  if (kind === "not") return not(build(node.part, counter), start, end);
  if (kind === "call") return call(node, counter);
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

function call(node, counter) {
  const { name, start, end, nameEnd } = node;
  counter.rules += 1;
  if (counter.rules > RULES_LIMIT) throw new MaskError(`a mask must have at most ${RULES_LIMIT} rules`, start, end);
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
  const options = Object.fromEntries(Object.entries(values).map(([key, part]) => [key, value(part, counter)]));
  const mask = make(options, fail, rest.map((part) => value(part, counter)), counter);
  return { check() {}, ...mask, ...(mask.forLayer ? {} : { forLayer() { return this; } }), name, start, end,
    names: new Set([name, ...(mask.names ?? [])]) };
}

/** What a parameter is: a number, a `Float`, a string with its place, null, an array, a Map or a mask. */
function value(node, counter) {
  const { kind, start, end } = node;
  if (kind === "constant") return typeof node.value === "string" ? { string: node.value, ...node } : node.value;
  if (kind === "negative" && node.part.kind === "constant") {
    const number = node.part.value;
    if (typeof number === "number") return -number;
    if (number instanceof Float) return new Float(-number.value);
  }
  if (kind === "sequence") return node.parts.map((part) => value(part, counter));
  if (kind === "mapping") {
    const result = new Map();
    for (const [key, part] of node.entries) {
      const written = key.kind === "constant" ? key.value : undefined;
      if (!Number.isInteger(written) && typeof written !== "string") {
        throw new MaskError("a key must be a number or a string", key.start, key.end);
      }
      if (result.has(written)) throw new MaskError("every key must be there once", key.start, key.end);
      result.set(written, { key, mask: value(part, counter) });
    }
    return result;
  }
  if (["call", "and", "or", "not"].includes(kind)) return build(node, counter);
  throw new MaskError("a parameter must be a number, a string, a mask, or a tuple, list or dict of these", start, end);
}

function names(parts) {
  return new Set(parts.flatMap((part) => [...part.names]));
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

// ---- The rules -------------------------------------------------------------------------------------------------

function integer(options, name, lowest, fail) {
  const given = options[name];
  if (given === undefined) fail(`${name} must be given, an integer of at least ${lowest}`);
  if (!Number.isInteger(given) || given < lowest || given >= LARGEST) {
    fail(`${name} must be an integer of at least ${lowest} and below 2**31, got ${shown(given)}`);
  }
  return given;
}

function shown(given) {
  if (given instanceof Float) return String(given.value);
  return given && typeof given === "object" ? "something else" : String(given);
}

function optional(options, name) {
  return options[name] ?? null;
}

/** A rule whose parameters are integers. `lowest` has the lowest value of each. */
function byIntegers(lowest, allows) {
  return {
    parameters: Object.keys(lowest),
    make(options, fail) {
      const numbers = Object.entries(lowest).map(([name, bound]) => integer(options, name, bound, fail));
      return { allows: allows(...numbers) };
    },
  };
}

/** A decimal number as numerator and denominator, so that rounding cannot move the edge of a band. */
function ratio(number) {
  const [digits, exponent = "0"] = String(number).split("e");
  const [whole, fraction = ""] = digits.split(".");
  const shift = Number(exponent) - fraction.length;
  const numerator = BigInt(whole + fraction) * 10n ** BigInt(Math.max(shift, 0));
  const denominator = 10n ** BigInt(Math.max(-shift, 0));
  let [a, b] = [numerator, denominator];
  while (b) [a, b] = [b, a % b];
  return [Number(numerator / a), Number(denominator / a)];
}

function mix(number) {
  number = (number ^ (number >>> 16)) >>> 0;
  number = Math.imul(number, 0x21f0aaad) >>> 0;
  number = (number ^ (number >>> 15)) >>> 0;
  number = Math.imul(number, 0x735a2d97) >>> 0;
  return (number ^ (number >>> 15)) >>> 0;
}

function makeRandom(options, fail) {
  const p = options.p instanceof Float ? options.p.value : options.p;
  if (typeof p !== "number" || p < 0 || p >= 1) fail("p must be a number of at least 0 and below 1");
  const seed = integer(options, "seed", 0, fail);
  const layer = "layer" in options ? integer(options, "layer", 0, fail) : 0;
  const pattern = (ofLayer) => ({
    allows(q, k) {
      let state = mix(0x2545f491 ^ seed);
      for (const number of [ofLayer, 0, q.head, q.position, k.position]) state = mix(state ^ number);
      return state >= Math.trunc(p * 2 ** 32);
    },
    check() {},
    forLayer: (index, _, training) => (training ? { ...pattern(index), names: new Set(["random"]) } : EVERYTHING),
  });
  return pattern(layer);
}

const EVERYTHING = { allows: () => true, check() {}, forLayer: () => EVERYTHING, names: new Set(["full"]) };

function readSpans(given, fail) {
  if (!Array.isArray(given)) fail("examples must have a tuple of spans for each example");
  return given.map((span) => {
    if (!Array.isArray(span) || span.length !== 2 || !span.every(Number.isInteger)) {
      fail("a span must be a pair (first, one past the last)");
    }
    const [first, last] = span;
    if (!(first >= 0 && first < last && last < LARGEST)) {
      fail(`a span must start at 0 or later and have at least one token, got (${first}, ${last})`);
    }
    return span;
  });
}

/** The tuple of the only example. Python refuses another number of examples than the batch has. */
function onlyExample(examples, fail) {
  if (examples.length !== 1) fail(`examples must have a tuple for each example of the batch, which has 1, got ${examples.length}`);
  return examples[0];
}

function bySpans(negated, hasPassages) {
  return {
    parameters: [],
    others: hasPassages ? ["examples", "passages"] : ["examples"],
    make(options, fail, spans) {
      const examples = optional(options, "examples");
      const passages = optional(options, "passages");
      if (spans.length && examples !== null) fail("there must be either spans or examples, got both");
      if (examples !== null && (!Array.isArray(examples) || !examples.length)) {
        fail("examples must be a tuple of spans for each example");
      }
      const tables = examples === null ? [readSpans(spans, fail)] : examples.map((row) => readSpans(row, fail));
      if (passages !== null) {
        if (spans.length || examples !== null) fail("there must be either spans or passages, got both");
        if (!Array.isArray(passages) || !passages.every((n) => Number.isInteger(n) && n >= 0 && n < LARGEST)) {
          fail("passages must be a tuple of numbers from 0");
        }
        return {
          allows: () => passages.includes(0) !== negated,
          check() {
            if (passages.some((n) => n > 0)) fail("a passage must be 0 here: a sentence of this page has one passage");
          },
        };
      }
      const [table] = tables;
      return {
        allows: (q, k) => table.some(([first, last]) => first <= k.position && k.position < last) !== negated,
        check({ columns }) {
          if (examples !== null) onlyExample(examples, fail);
          for (const [, last] of table) {
            if (last > columns) {
              fail(`a span must end within the ${columns} tokens to attend to, got a span that ends at ${last}`);
            }
          }
        },
      };
    },
  };
}

function makeAlignment(options, fail) {
  const width = "width" in options ? integer(options, "width", 0, fail) : 0;
  const points = optional(options, "points");
  const examples = optional(options, "examples");
  if ((points === null) === (examples === null)) {
    fail(`there must be either points or examples, got ${points === null ? "neither" : "both"}`);
  }
  const tables = examples === null ? [points] : examples;
  if (!Array.isArray(tables) || !tables.length || !tables.every((row) => Array.isArray(row) && row.length)) {
    fail("points must be a tuple of source positions");
  }
  if (!tables.flat().every((point) => Number.isInteger(point) && point >= 0 && point < LARGEST)) {
    fail("a point must be a source position, counted from 0");
  }
  const [row] = tables;
  return {
    allows: (q, k) => q.position < row.length && Math.abs(k.position - row[q.position]) <= width,
    check({ rows, columns }) {
      if (examples !== null) onlyExample(examples, fail);
      if (rows > row.length) fail(`there must be a point for each of ${rows} target positions, got ${row.length}`);
      const highest = Math.max(...row);
      if (highest >= columns) fail(`a point must be inside of the source, which has ${columns} tokens, got ${highest}`);
    },
  };
}

/** `heads` and `layers`: masks for ranges of numbers, and one for all others. */
function bySelection(kind) {
  const make = (options, fail, _, counter) => {
    const given = options.masks;
    if (!(given instanceof Map) || !given.size) {
      fail('there must be a mapping like {0: "window(8)", "rest": "full()"}');
    }
    const runs = [];
    let rest = null;
    for (const [key, { key: place, mask: written }] of given) {
      const mask = typeof written?.string === "string" ? parse(written.string, written.start + 1, counter) : written;
      if (!mask?.allows) throw new MaskError("there must be a mask or its text for each key", place.start, place.end);
      if (mask.names.has(`${kind}s`)) {
        throw new MaskError(`a mask in ${kind}s(...) must not have ${kind}s(...) in it`, mask.start, mask.end);
      }
      if (key === "rest") {
        rest = mask;
        continue;
      }
      const match = /^(\d{1,9})(?:-(\d{1,9}))?$/.exec(String(key));
      const [first, last] = match ? [Number(match[1]), Number(match[2] ?? match[1])] : [0, -1];
      if (first > last) {
        throw new MaskError(`keys must be numbers of ${kind}s; write 0, "0-3" or "rest"`, place.start, place.end);
      }
      const twice = runs.find((run) => first <= run.last && run.first <= last);
      if (twice) throw new MaskError(`keys must name every ${kind} once, got ${kind} ${Math.max(first, twice.first)} twice`, place.start, place.end);
      runs.push({ first, last, mask });
    }
    return selection(kind, runs.sort((a, b) => a.first - b.first), rest, fail);
  };
  return { parameters: ["masks"], make };
}

function selection(kind, runs, rest, fail) {
  const masks = [...runs.map((run) => run.mask), ...(rest ? [rest] : [])];
  const choose = (number) => runs.find((run) => run.first <= number && number <= run.last)?.mask ?? rest;
  const checkCount = (count) => {
    const last = runs.at(-1)?.last ?? -1;
    if (last >= count) fail(`a ${kind} must be a number from 0 to ${count - 1}, since there are ${count}, got ${last}`);
    const missing = rest ? -1 : Array.from({ length: count }, (_, n) => n).findIndex((n) => !choose(n));
    if (missing >= 0) fail(`every ${kind} must have a mask, got none for ${kind} ${missing}; name it or add "rest"`);
  };
  const own = { names: new Set([`${kind}s`, ...names(masks)]) };
  if (kind === "layer") {
    return {
      ...own,
      allows: () => fail("a layer must be chosen before the mask is used"),
      forLayer(layer, layers, training) {
        checkCount(layers);
        return choose(layer).forLayer(layer, layers, training);
      },
    };
  }
  return {
    ...own,
    allows: (q, k) => choose(q.head).allows(q, k),
    check(sizes) {
      checkCount(sizes.heads);
      masks.forEach((mask) => mask.check(sizes));
    },
    forLayer: (...layer) =>
      selection(kind, runs.map((run) => ({ ...run, mask: run.mask.forLayer(...layer) })), rest?.forLayer(...layer) ?? null, fail),
  };
}

const RULES = {
  alignment: { parameters: ["points", "width", "examples"], make: makeAlignment },
  blind: bySpans(true, false),
  blocks: byIntegers({ size: 1 }, (size) => (q, k) => Math.floor(q.position / size) === Math.floor(k.position / size)),
  causal: byIntegers({}, () => (q, k) => k.position <= q.position),
  chunked: {
    parameters: ["size", "lookback"],
    make(options, fail) {
      const size = integer(options, "size", 1, fail);
      const lookback = optional(options, "lookback") === null ? Infinity : integer(options, "lookback", 0, fail);
      return {
        allows(q, k) {
          const [query, key] = [Math.floor(q.position / size), Math.floor(k.position / size)];
          return query - lookback <= key && key <= query;
        },
      };
    },
  },
  dilated: byIntegers({ stride: 1 }, (stride) => (q, k) => (q.position - k.position) % stride === 0),
  drop: bySpans(true, true),
  full: byIntegers({}, () => () => true),
  heads: bySelection("head"),
  keep: bySpans(false, true),
  layers: bySelection("layer"),
  lookup: {
    parameters: ["name"],
    others: [],
    make: (options, fail) => fail("a function of Python cannot be called from this page; write a rule"),
  },
  monotonic: {
    parameters: ["slope", "width"],
    make(options, fail) {
      const width = integer(options, "width", 0, fail);
      const slope = options.slope instanceof Float ? options.slope.value : options.slope;
      if (typeof slope !== "number" || !(slope >= 0 && slope <= 1000)) fail("slope must be a number from 0 to 1000");
      const [numerator, denominator] = ratio(slope);
      if (denominator > 10 ** 6) fail("slope must have at most six decimals");
      return { allows: (q, k) => Math.abs(k.position * denominator - q.position * numerator) <= width * denominator };
    },
  },
  passages: byIntegers({}, () => () => true),
  prefix: byIntegers({ n: 0 }, (n) => (q, k) => k.position < n),
  random: { parameters: ["p", "seed", "layer"], make: makeRandom },
  segments: byIntegers({}, () => () => true),
  wait_k: byIntegers({ k: 1 }, (k) => (query, key) => key.position < query.position + k),
  window: {
    parameters: ["left", "right"],
    make(options, fail) {
      const left = integer(options, "left", 0, fail);
      const right = optional(options, "right") === null ? left : integer(options, "right", 0, fail);
      return { allows: (q, k) => q.position - left <= k.position && k.position <= q.position + right };
    },
  },
};

/** The names of all rules. */
export const RULE_NAMES = Object.keys(RULES).sort();

// ---- Grids -----------------------------------------------------------------------------------------------------

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

/** Whether two layers, or two heads, may have different grids. */
export function differsBy(mask, kind) {
  return mask.names.has(kind) || mask.names.has("random");
}

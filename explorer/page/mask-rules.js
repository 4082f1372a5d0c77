// The rules: what each takes, what it refuses, and what it allows, as the files of `masks/rules/` say.

import { Float, MaskError } from "./mask-syntax.js";

const LARGEST = 2 ** 31;

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
    forLayer: (index, _, training) => (training ? { ...pattern(index), names: new Set(["random"]) } : FULL),
  });
  return pattern(layer);
}

const FULL = { allows: () => true, check() {}, forLayer: () => FULL, names: new Set(["full"]) };

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
  const make = (options, fail, _, context) => {
    const given = options.masks;
    if (!(given instanceof Map) || !given.size) {
      fail('there must be a mapping like {0: "window(8)", "rest": "full()"}');
    }
    const runs = [];
    let rest = null;
    for (const [key, { key: place, mask: written }] of given) {
      const mask = typeof written?.string === "string" ? context.read(written.string, written.start + 1) : written;
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

/** The names of all rules in masks. */
export function names(parts) {
  return new Set(parts.flatMap((part) => [...part.names]));
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

/** By name: the parameters, further named ones behind any number of values, and what makes the mask. */
export const RULES = {
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

// From the text of a mask to its syntax tree, with the place of every part. Python's precedence, and what
// `masks/parse.py` takes of Python's syntax.

const TEXT_LIMIT = 2 ** 15;
const BRACKETS_LIMIT = 100;

/** A text that is not a mask, or a mask that does not fit. `start` and `end` are the part of the text at fault. */
export class MaskError extends Error {
  constructor(message, start, end) {
    super(message);
    this.start = start;
    this.end = Math.max(end, start + 1);
  }
}

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
export class Float {
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

/** The syntax tree of a text. Throws a MaskError. `offset` is where the text stands in a longer one. */
export function readTree(text, offset) {
  if (text.length > TEXT_LIMIT) {
    throw new MaskError(`a mask's text must have at most ${TEXT_LIMIT} characters, got ${text.length}`,
      offset + TEXT_LIMIT, offset + text.length);
  }
  const trimmed = text.trim();
  if (!trimmed) throw new MaskError("a mask must have a rule, got an empty text; write full() for no mask", offset, offset);
  const parser = new Parser(trimmed, offset + text.indexOf(trimmed));
  const tree = parser.expression();
  if (parser.next.kind !== "end") throw parser.unexpected("& or |, or the end");
  return tree;
}

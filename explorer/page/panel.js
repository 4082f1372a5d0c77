// A sentence under one set of masks: the masks, the grid, the output, the alignment and the checks.

import { html, useEffect, useMemo, useRef, useState } from "./preact-bundle.js";
import { Alignment } from "./alignment.js";
import { Audit, Proof, Stream } from "./checks.js";
import { EVERYTHING, range, readMasks, share } from "./effective.js";
import { EngineError } from "./engine.js";
import { Grid, label, shown } from "./grid.js";
import { MaskError, parse } from "./masks.js";
import { MasksEditor } from "./masks-editor.js";

const DELAY = 250;
const GRID_HINTS = {
  cross: "Each row is a token of the output. Its cells are the tokens of the source.",
  encoder: "Each row is a token of the source. Its cells are all tokens of the source.",
  decoder: "Each row is a token of the output. Its cells are the tokens written before.",
};
const SCOPE_NAMES = { cross: "Cross mask", encoder: "Encoder mask", decoder: "Decoder mask" };

export function Panel({ tries, onRetry, isAsked, engine, facts, source, hidden, texts, onTexts, view, name, title, onResult }) {
  const { masks, errors } = useMemo(() => readMasks(texts), [texts]);
  const kept = useRef({ texts: EVERYTHING, masks: readMasks(EVERYTHING).masks });
  if (!Object.keys(errors).length) kept.current = { texts, masks };
  const valid = kept.current;

  const question = useMemo(
    () => source && {
      text: source.text,
      ...Object.fromEntries(Object.entries(valid.texts).map(([scope, text]) => [`${scope}_mask`, text])),
      hidden,
    },
    [source, hidden, valid.texts],
  );
  const [answer, setAnswer] = useState({ result: null, error: null, busy: false });
  useEffect(() => {
    if (!facts || !question) return undefined;
    const controller = new AbortController();
    setAnswer((before) => ({ ...before, busy: true }));
    const timer = setTimeout(async () => {
      try {
        const result = await engine.translate(question, controller.signal);
        if (!controller.signal.aborted) setAnswer({ result: { ...result, question }, error: null, busy: false });
      } catch (error) {
        if (controller.signal.aborted) return;
        setAnswer((before) => ({ ...before, error, busy: false }));
        if (!(error instanceof EngineError) && !(error instanceof MaskError)) throw error;
      }
    }, DELAY);
    return () => {
      clearTimeout(timer);
      controller.abort();
    };
  }, [engine, facts, question, tries]);
  const { result, error, busy } = answer;
  useEffect(() => onResult(result), [result]);

  const [hover, setHover] = useState(null);
  const axes = useMemo(() => axesOf(view.scope, source, result), [view.scope, source, result]);
  const sizes = {
    rows: axes.rows.length,
    columns: axes.columns.length,
    layers: facts?.layers[view.scope] ?? 2,
    heads: facts?.heads[view.scope] ?? 2,
  };
  const own = useMemo(() => parse(facts?.masks[view.scope] ?? "full()"), [facts, view.scope]);
  const drawn = useMemo(() => {
    try {
      return { allowed: share(view.scope, own, valid.masks[view.scope], axes.isMemory ? [] : hidden, sizes, view) };
    } catch (fault) {
      if (!(fault instanceof MaskError)) throw fault;
      return { allowed: new Float32Array(sizes.rows * sizes.columns), fault };
    }
  }, [own, valid, hidden, view, axes]);
  // An output that answers another question than the one asked now: the sentence or the masks cannot be used.
  const isOld = result && !busy && (error !== null || !isAsked);
  const isOfMask = result && result.question.text === source.text && (error === null || error.canRetry);
  const attention = view.scope === "cross" && isOfMask ? result.attention : null;
  const weights = useMemo(
    () => attention && ((row, column) => attention.at(row, column, view.layer, view.head)),
    [attention, view],
  );
  const shownErrors = drawn.fault && !errors[view.scope] ? { ...errors, [view.scope]: drawn.fault } : errors;

  return html`
    <section class="panel" aria-label=${title}>
      <h2>${title}</h2>
      <${MasksEditor} texts=${texts} errors=${shownErrors} own=${facts?.masks} onChange=${onTexts} name=${name} />
      <h3>Output</h3>
      <div class="output" aria-busy=${busy ? "true" : "false"}>
        <p class="text" role="status" lang="">${result ? result.text || "(nothing)" : facts ? "…" : "no model"}</p>
        ${busy && html`<span class="busy" aria-hidden="true"></span>`}
      </div>
      ${isOld && html`<p class="hint old">This is the output of the last sentence and masks that were answered.</p>`}
      ${error &&
      html`<p class="error" role="alert">${error.message}
        ${error.canRetry && html`<button type="button" class="plain" onClick=${onRetry}>Try again</button>`}</p>`}

      <div class="pair">
        <div>
          <h3>${SCOPE_NAMES[view.scope]}${weights ? " and attention" : ""}</h3>
          <p class="hint">${GRID_HINTS[view.scope]}</p>
          <p class="legend">
            <span><i class="swatch yes"></i> allowed</span><span><i class="swatch no"></i> hidden</span>
            ${weights && html`<span><i class="swatch weight"></i> attention weight</span>`}
          </p>
          <${Grid}
            title=${`${SCOPE_NAMES[view.scope]}${name}: rows are ${view.scope === "encoder" ? "source" : "target"} tokens, columns are ${view.scope === "decoder" ? "target" : "source"} tokens`}
            rows=${axes.rows} columns=${axes.columns} allowed=${drawn.allowed} weights=${weights} hover=${hover} onHover=${setHover}
          />
          <p class="readout" aria-hidden="true">${readout(hover, axes, drawn.allowed, weights)}</p>
        </div>
        ${weights &&
        html`<div>
          <h3>Alignment</h3>
          <p class="hint">From source tokens, left, to the output tokens that read them. A thicker line is more weight.</p>
          <${Alignment} source=${axes.columns} target=${axes.rows} weights=${weights} hover=${hover} onHover=${setHover} />
        </div>`}
      </div>

      ${question && facts &&
      html`<div class="checks"><div><h3>Hidden words change nothing</h3>
        <${Proof} key=${JSON.stringify(question)} engine=${engine} question=${question} result=${result?.question === question ? result : null} />
        </div><div><h3>Word by word</h3>
        <${Stream} key=${`stream${JSON.stringify(question)}`} engine=${engine} question=${question} canStream=${facts.streams}
          onSimultaneous=${() => onTexts({ ...EVERYTHING, encoder: "causal()", cross: "wait_k(3)" })} />
        </div><div><h3>Audit</h3>
        <${Audit} key=${`audit${JSON.stringify(question)}`} engine=${engine} question=${question} /></div></div>`}
    </section>
  `;
}

/** The tokens on the axes; numbers where there is no output yet. */
function axesOf(scope, source, result) {
  const read = source?.tokens.map(({ text }) => text) ?? range(8).map(String);
  const written = result && result.question.text === source?.text ? result.target : range(8).map(String);
  if (scope === "encoder") return { rows: read, columns: read };
  // A memory of a fixed length has vectors, not tokens.
  const isMemory = scope === "cross" && result !== null && result.attention.columns !== result.tokens.length;
  if (scope === "cross") return { rows: written, columns: isMemory ? range(result.attention.columns).map((number) => `m${number}`) : read, isMemory };
  return { rows: written, columns: result ? ["start", ...written.slice(0, -1)] : written };
}

function readout(hover, { rows, columns }, allowed, weights) {
  const isCell = hover && hover.row !== null && hover.column !== null && hover.row < rows.length && hover.column < columns.length;
  if (!isCell) return "Point at a cell, or move through the grid with the arrow keys.";
  const value = allowed[hover.row * columns.length + hover.column];
  return html`<b>${shown(rows[hover.row])}</b> → <b>${shown(columns[hover.column])}</b>: ${label(value, weights ? weights(hover.row, hover.column) : null)}`;
}

// What can be tried on a sentence under its masks: replace hidden words, stream word by word, audit.

import { html, useEffect, useRef, useState } from "./preact-bundle.js";
import { EngineError } from "./engine.js";
import { shown } from "./grid.js";

const TRIES = 3;

/** Runs one task at a time; a new one, or the end of the component, ends the one before. */
function useTask() {
  const [state, setState] = useState({ status: "idle" });
  const controller = useRef();
  useEffect(() => () => controller.current?.abort(), []);
  const run = async (task) => {
    controller.current?.abort();
    const own = (controller.current = new AbortController());
    const update = (change) => {
      if (!own.signal.aborted) setState((before) => ({ ...before, ...change }));
    };
    setState({ status: "running" });
    try {
      await task(own.signal, update);
      update({ status: "done" });
    } catch (error) {
      if (own.signal.aborted) return;
      update({ status: "failed", error: error instanceof EngineError ? error.message : `The page has a bug: ${error}` });
      if (!(error instanceof EngineError)) throw error;
    }
  };
  const stop = () => {
    controller.current?.abort();
    setState((before) => ({ ...before, status: "stopped" }));
  };
  return [state, run, stop];
}

/** Replace the hidden words by others, and compare the outputs bit by bit. */
export function Proof({ engine, question, result }) {
  const [state, run] = useTask();
  const { hidden } = question;
  const prove = () =>
    run(async (signal, update) => {
      const rows = [];
      for (let number = 1; number <= TRIES; number += 1) {
        const { read, text, digest } = await engine.translate({ ...question, replacement: number }, signal);
        rows.push({ read, text, same: digest === result.digest && text === result.text });
        update({ rows: [...rows] });
      }
      const open = { ...question, hidden: [], replaced: hidden, replacement: 1 };
      const { read, text } = await engine.translate(open, signal);
      update({ contrast: { read, text } });
    });
  if (!hidden.length) {
    return html`<p class="hint">Hide a word of the sentence first, by clicking it above.</p>`;
  }
  const { rows = [], contrast, status, error } = state;
  const same = rows.filter((row) => row.same).length;
  const sentence = (read) =>
    read.map((token, index) => html`${" "}${hidden.includes(index) ? html`<mark>${shown(token)}</mark>` : shown(token)}`);
  return html`
    <p class="hint">Puts other words in place of the hidden ones. If nothing reads them, the model computes the same.</p>
    <button type="button" onClick=${prove} disabled=${status === "running" || !result}>Replace the hidden words</button>
    ${status === "failed" && html`<p class="error" role="alert">${error}</p>`}
    ${rows.length > 0 &&
    html`<div class="table-scroll" tabindex="0" role="group" aria-label="Outputs with the hidden words replaced">
      <table class="facts">
        <thead><tr><th scope="col">The model is given</th><th scope="col">It writes</th><th scope="col">Scores of all tokens</th></tr></thead>
        <tbody>
          ${rows.map(
            ({ read, text, same: isSame }) => html`<tr>
              <td>${sentence(read)}</td><td>${text}</td>
              <td class=${isSame ? "good" : "bad"}>${isSame ? "the same, to the bit" : "differs"}</td>
            </tr>`,
          )}
          ${contrast &&
          html`<tr class="contrast">
            <td>${sentence(contrast.read)} <small>(not hidden)</small></td><td>${contrast.text}</td><td>for comparison</td>
          </tr>`}
        </tbody>
      </table>
    </div>`}
    <p role="status">
      ${status === "done" &&
      (same === TRIES
        ? html`<b class="good">The output cannot change:</b> with ${TRIES} other texts in place of the hidden words, all scores (logits) were the same to the bit.`
        : html`<b class="bad">The output changed</b> in ${TRIES - same} of ${TRIES}; please report this as a bug.`)}
    </p>
  `;
}

/** Read word by word, and show how many words had been read when each target word was written. */
export function Stream({ engine, question, onSimultaneous, canStream }) {
  const [state, run, stop] = useTask();
  const [pause, setPause] = useState(0.6);
  const start = () =>
    run(async (signal, update) => {
      const [source, written] = [[], []];
      for await (const event of engine.stream({ ...question, pause }, signal)) {
        source.push(event.word);
        written.push(...event.written.map((word) => ({ word, read: event.read })));
        update({ source: [...source], written: [...written] });
      }
    });
  const { source = [], written = [], status, error } = state;
  const all = question.text.trim().split(/\s+/);
  if (!canStream) return html`<p class="hint">This model cannot stream.</p>`;
  return html`
    <p class="hint">The sentence arrives a word at a time, and each word is written as soon as the masks allow.</p>
    <div class="row">
      ${status === "running"
        ? html`<button type="button" onClick=${stop}>Stop</button>`
        : html`<button type="button" onClick=${start}>Stream word by word</button>`}
      <label>Pause <select value=${pause} onChange=${(event) => setPause(Number(event.currentTarget.value))}>
        <option value="0">none</option><option value="0.3">short</option><option value="0.6">middle</option><option value="1.5">long</option>
      </select></label>
      <button type="button" class="plain" onClick=${onSimultaneous}>Use causal() and wait_k(3)</button>
    </div>
    ${status === "failed" && html`<p class="error" role="alert">${error}${source.length > 0 && ` What was written before stays; ${source.length} of ${all.length} words were read.`}</p>`}
    ${source.length > 0 &&
    html`<div class="table-scroll" tabindex="0" role="group" aria-label="Who waits for what">
      <table class="stairs">
        <caption>Each row is a target word; the filled part is what had been read before it was written.</caption>
        <thead><tr><td></td>${all.map((word, index) => html`<th scope="col" class=${index < source.length ? "read" : ""}><span>${shown(word)}</span></th>`)}</tr></thead>
        <tbody>
          ${written.map(
            ({ word, read }) => html`<tr>
              <th scope="row">${shown(word)}</th>
              ${all.map((_, index) => html`<td class=${index < read ? "read" : ""}></td>`)}
              <td class="count">${read}</td>
            </tr>`,
          )}
        </tbody>
      </table>
    </div>`}
    <p role="status">
      ${status === "done" &&
      html`Done: ${written.length} ${written.length === 1 ? "word" : "words"}, each written after ${written.length ? (written.reduce((sum, { read }) => sum + read, 0) / written.length).toFixed(1) : 0} of ${all.length} source words on average.`}
      ${status === "stopped" && "Stopped."}
    </p>
  `;
}

/** Whether the model reads only what the masks allow. */
export function Audit({ engine, question }) {
  const [state, run] = useTask();
  if (!engine.canAudit) {
    return html`<p class="hint">
      The audit measures which token changes which output. It needs the server:${" "}
      <code>pip install "crossmask[serve]"</code>, then <code>crossmask explore MODEL</code>.
    </p>`;
  }
  const audit = () => run(async (signal, update) => update({ report: await engine.audit(question, signal) }));
  const { report, status, error } = state;
  return html`
    <p class="hint">Measures which tokens change which outputs, and compares that with the masks.</p>
    <button type="button" onClick=${audit} disabled=${status === "running"}>
      ${status === "running" ? "Measuring…" : "Audit this sentence"}
    </button>
    ${status === "failed" && html`<p class="error" role="alert">${error}</p>`}
    <div role="status">
      ${report &&
      html`<p><b class=${report.ok ? "good" : "bad"}>${report.ok ? "No leak." : report.leaks === 1 ? "1 leak." : `${report.leaks} leaks.`}</b>
        ${report.ok ? " The model reads only what the masks allow." : " The model reads what the masks do not allow."}</p>
        <pre class="report" tabindex="0" aria-label="The report of the audit">${report.report}</pre>`}
    </div>
  `;
}

// The page: a sentence, the words that are hidden, what is shown of the masks, and one or two panels.

import { html, render, useEffect, useId, useLayoutEffect, useMemo, useState } from "./preact-bundle.js";
import { EVERYTHING, range, SCOPES } from "./effective.js";
import { chooseEngine, EngineError } from "./engine.js";
import { parse } from "./masks.js";
import { Panel } from "./panel.js";

const DELAY = 200;
const SCOPE_NAMES = { cross: "Cross", encoder: "Encoder", decoder: "Decoder" };
const SCOPE_HINTS = {
  cross: "What each token of the output may read of the sentence.",
  encoder: "What each token of the sentence may read of the others.",
  decoder: "What each token of the output may read of those written before it.",
};
const LETTERS = ["A", "B"];

function App({ engine }) {
  const start = useMemo(readAddress, []);
  const [ownText, setText] = useState(start.text);
  const [panels, setPanels] = useState(start.panels);
  const [hiddenWords, setHiddenWords] = useState(start.hidden);
  const [view, setView] = useState({ scope: "cross", layer: null, head: null });
  const [results, setResults] = useState([]);
  const { facts, problem: loadProblem, progress, retry } = useModel(engine);
  const text = ownText ?? facts?.examples[0] ?? "";
  const [tries, setTries] = useState(0);
  const again = () => setTries(tries + 1);
  const { source, problem } = useSource(engine, facts, text, tries);
  const textId = useId();

  const words = text.trim() ? text.trim().split(/\s+/) : [];
  const hidden = useMemo(
    () => source?.tokens.flatMap(({ word }, index) => (hiddenWords.includes(word) ? [index] : [])) ?? [],
    [source, hiddenWords],
  );
  const edit = (changed) => {
    const next = changed.trim().split(/\s+/);
    setHiddenWords(hiddenWords.filter((number) => next[number] === words[number]));
    setText(changed);
  };
  const toggle = (number) =>
    setHiddenWords(hiddenWords.includes(number) ? hiddenWords.filter((other) => other !== number) : [...hiddenWords, number]);
  // With what is shown, not a moment later: a reload in between would lose it.
  useLayoutEffect(() => writeAddress({ text: ownText, panels, hidden: hiddenWords }), [ownText, panels, hiddenWords]);
  useEffect(() => {
    // Another link in the same tab. What the page itself writes does not raise this event.
    const read = () => {
      const given = readAddress();
      setText(given.text);
      setPanels(given.panels);
      setHiddenWords(given.hidden);
    };
    addEventListener("hashchange", read);
    return () => removeEventListener("hashchange", read);
  }, []);

  const layers = facts?.layers[view.scope] ?? 1;
  const heads = facts?.heads[view.scope] ?? 1;
  const isCompared = panels.length > 1;
  const difference = isCompared && results[0] && results[1] && (results[0].text === results[1].text ? "A and B write the same." : "A and B write different texts.");
  return html`
    <header>
      <h1>crossmask explorer</h1>
      <p>What an attention mask does to an output.
        ${facts && html` Model: <b>${facts.name}</b>, ${facts.kind === "browser" ? "in this browser" : "on the server"}.`}</p>
      <p class="about">The model reads a sentence as tokens, which are words or parts of words, and writes its output token by token.
        For each token that it writes it looks at the sentence. A <b>mask</b> says at which tokens it may look. Pick one below and
        see whether the output changes, or click a word to hide it.</p>
    </header>
    <main>
      ${loadProblem
        ? html`<p class="error banner" role="alert">${loadProblem} <button type="button" class="plain" onClick=${retry}>Try again</button></p>`
        : !facts && html`<p class="banner" role="status">Loading the model${progress && `: ${progress}`}…</p>`}
      <section class="sentence" aria-label="Sentence">
        <label for=${textId}>Sentence</label>
        <textarea id=${textId} rows="2" value=${text} aria-invalid=${problem ? "true" : "false"} aria-describedby=${`${textId}-note`}
          spellcheck="false" onInput=${(event) => edit(event.currentTarget.value.replaceAll("\n", " "))}></textarea>
        <p id=${`${textId}-note`} class=${problem ? "error" : "hint"} aria-live="polite">${problem?.message ?? ""}
          ${problem?.canRetry && html`<button type="button" class="plain" onClick=${again}>Try again</button>`}</p>
        <div class="row examples" role="group" aria-label="Examples">
          ${facts?.examples.map((example) => html`<button type="button" class="plain" onClick=${() => edit(example)}>${example}</button>`)}
        </div>
        <div class="words" role="group" aria-label="Hide words">
          <span class="hint">Click a word to hide it:</span>
          ${words.map(
            (word, number) => html`<button type="button" aria-pressed=${hiddenWords.includes(number) ? "true" : "false"} onClick=${() => toggle(number)}>${word}</button>`,
          )}
        </div>
      </section>
      <section class="view" aria-label="View">
        <fieldset>
          <legend>Show</legend>
          ${SCOPES.map(
            (scope) => html`<label class="choice"><input type="radio" name="scope" value=${scope} checked=${view.scope === scope}
              onChange=${() => setView({ scope, layer: null, head: null })} /><span>${SCOPE_NAMES[scope]}</span></label>`,
          )}
        </fieldset>
        <${Choice} label="Layer" count=${layers} value=${view.layer} onChange=${(layer) => setView({ ...view, layer })} />
        <${Choice} label="Head" count=${heads} value=${view.head} onChange=${(head) => setView({ ...view, head })} />
        <button type="button" aria-pressed=${isCompared ? "true" : "false"}
          onClick=${() => setPanels(isCompared ? panels.slice(0, 1) : [...panels, panels[0]])}>Compare two masks</button>
        <p class="hint scope">${SCOPE_HINTS[view.scope]} Attention weights are of the cross mask.</p>
      </section>
      ${isCompared && html`<p class="difference" role="status">${difference}</p>`}
      <div class=${isCompared ? "panels two" : "panels"}>
        ${panels.map(
          (texts, index) => html`<${Panel}
            key=${LETTERS[index]} tries=${tries} onRetry=${again} isAsked=${!problem} engine=${engine} facts=${facts} source=${source} hidden=${hidden} texts=${texts} view=${view}
            name=${isCompared ? ` ${LETTERS[index]}` : ""} title=${isCompared ? `Masks ${LETTERS[index]}` : "Masks"}
            onTexts=${(changed) => setPanels(panels.map((before, other) => (other === index ? changed : before)))}
            onResult=${(result) => setResults((before) => range(2).map((other) => (other === index ? result : before[other])))}
          />`,
        )}
      </div>
    </main>
    <footer><p>Masks: <code>&</code> both, <code>|</code> either, <code>~</code> not; the rules are those of crossmask.masks.
      In this page padding and packing do not occur.</p></footer>
  `;
}

function Choice({ label, count, value, onChange }) {
  const id = useId();
  return html`<div class="choose"><label for=${id}>${label}</label>
    <select id=${id} value=${value ?? "all"} onChange=${(event) => onChange(event.currentTarget.value === "all" ? null : Number(event.currentTarget.value))}>
      <option value="all">all ${count}</option>
      ${range(count).map((number) => html`<option value=${number}>${number}</option>`)}
    </select></div>`;
}

function useModel(engine) {
  const [state, setState] = useState({ facts: null, problem: null, progress: "" });
  const [tries, setTries] = useState(0);
  useEffect(() => {
    const onProgress = (loaded, total) => setState((before) => ({ ...before, progress: `${mebibytes(loaded)} of ${mebibytes(total)} MiB` }));
    engine.load(onProgress).then(
      (facts) => {
        SCOPES.forEach((scope) => parse(facts.masks[scope]));
        setState({ facts, problem: null, progress: "" });
      },
    ).catch((error) =>
      setState({ facts: null, problem: error instanceof EngineError ? error.message : `The model could not be loaded: ${error.message}`, progress: "" }),
    );
  }, [tries]);
  return { ...state, retry: () => setTries(tries + 1) };
}

/** The tokens of the sentence; those of the last one that the model can read stay while another is wrong. */
function useSource(engine, facts, text, tries) {
  const [state, setState] = useState({ source: null, problem: null });
  useEffect(() => {
    if (!facts) return undefined;
    const controller = new AbortController();
    const timer = setTimeout(async () => {
      try {
        const tokens = await engine.source(text, controller.signal);
        if (!controller.signal.aborted) setState({ source: { text, tokens }, problem: null });
      } catch (error) {
        if (controller.signal.aborted) return;
        setState((before) => ({ ...before, problem: error }));
        if (!(error instanceof EngineError)) throw error;
      }
    }, DELAY);
    return () => {
      clearTimeout(timer);
      controller.abort();
    };
  }, [engine, facts, text, tries]);
  return state;
}

const mebibytes = (bytes) => (bytes / 2 ** 20).toFixed(0);

/** A sentence and masks from the address, so that what is seen can be passed on as a link. */
function readAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  const read = (prefix) => Object.fromEntries(SCOPES.map((scope) => [scope, given.get(`${prefix}${scope}`) ?? EVERYTHING[scope]]));
  const hidden = (given.get("hidden") ?? "").split(",").filter((number) => /^\d{1,3}$/.test(number)).map(Number);
  return {
    text: given.get("text"),
    hidden,
    panels: given.has("compare") ? [read(""), read("b-")] : [read("")],
  };
}

function writeAddress({ text, panels, hidden }) {
  const given = new URLSearchParams();
  if (text !== null) given.set("text", text);
  if (hidden.length) given.set("hidden", hidden.join(","));
  panels.forEach((texts, index) => {
    if (index) given.set("compare", "1");
    for (const scope of SCOPES) {
      if (texts[scope] !== EVERYTHING[scope]) given.set(`${index ? "b-" : ""}${scope}`, texts[scope]);
    }
  });
  history.replaceState(null, "", given.size ? `#${given}` : location.pathname + location.search);
}

const root = document.getElementById("app");
const engine = await chooseEngine();
root.replaceChildren();
render(html`<${App} engine=${engine} />`, root);

// Three masks as text, with the part at fault lit, and a gallery to pick from.

import { html, useId, useMemo } from "./preact-bundle.js";
import { SCOPES } from "./effective.js";
import { GALLERY } from "./gallery.js";
import { grid, parse } from "./masks.js";

const ABOUT = {
  cross: "Cross mask: target reads source",
  encoder: "Encoder mask: source reads source",
  decoder: "Decoder mask: target reads target",
};
const SIZE = 8;
const STEP = 5;

export function MasksEditor({ texts, errors, own, onChange, name }) {
  return html`
    <${Gallery} texts=${texts} onPick=${onChange} name=${name} />
    <div class="fields">${SCOPES.map(
      (scope) => html`<${MaskField}
        key=${scope}
        label=${ABOUT[scope]}
        text=${texts[scope]}
        error=${errors[scope]}
        own=${own?.[scope]}
        onInput=${(text) => onChange({ ...texts, [scope]: text })}
      />`,
    )}</div>
  `;
}

function MaskField({ label, text, error, own, onInput }) {
  const id = useId();
  const lit = error && [text.slice(0, error.start), text.slice(error.start, error.end), text.slice(error.end)];
  return html`
    <div class="field">
      <label for=${id}>${label}</label>
      <div class="mask-input">
        <pre aria-hidden="true">${lit ? html`${lit[0]}<mark>${lit[1] || " "}</mark>${lit[2]}` : text}${"\u200b"}</pre>
        <textarea
          id=${id}
          rows="1"
          value=${text}
          spellcheck="false"
          autocapitalize="off"
          autocomplete="off"
          aria-invalid=${error ? "true" : "false"}
          aria-describedby=${`${id}-note`}
          onInput=${(event) => onInput(event.currentTarget.value.replaceAll("\n", " "))}
        ></textarea>
      </div>
      <p id=${`${id}-note`} class=${error ? "error" : "hint"} aria-live="polite">
        ${error
          ? html`${sentence(error.message)} <span class="kept">The last mask that could be read stays.</span>`
          : own && own !== "full()" ? html`the model's own mask also holds: <code>${own}</code>` : ""}
      </p>
    </div>
  `;
}

/** With a full stop, unless it is a question. */
function sentence(text) {
  return text.endsWith("?") ? text : `${text}.`;
}

function Gallery({ texts, onPick, name }) {
  const buttons = useMemo(() => GALLERY.map((entry) => ({ ...entry, cells: thumbnail(entry.masks[entry.shown]) })), []);
  return html`
    <div class="gallery" role="group" aria-label=${`Gallery of masks${name}`}>
      ${buttons.map(
        ({ name: title, what, masks, cells }) => html`
          <button
            type="button"
            key=${title}
            aria-pressed=${SCOPES.every((scope) => masks[scope] === texts[scope]) ? "true" : "false"}
            onClick=${() => onPick(masks)}
          >
            <svg viewBox=${`0 0 ${SIZE * STEP} ${SIZE * STEP}`} aria-hidden="true">
              <path class="all" d=${path(cells.map(() => 1))} /><path class="allowed" d=${path(cells)} />
            </svg>
            <span>${title}</span><small>${what}</small>
          </button>
        `,
      )}
    </div>
  `;
}

function thumbnail(text) {
  return [...grid(parse(text), { rows: SIZE, columns: SIZE, heads: 2, layers: 2 })];
}

function path(cells) {
  return cells
    .map((cell, index) => cell && `M${(index % SIZE) * STEP} ${Math.floor(index / SIZE) * STEP}h4v4h-4z`)
    .filter(Boolean)
    .join("");
}

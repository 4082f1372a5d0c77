// The alignment: lines from target tokens to the source tokens that they attend to most.

import { html, useMemo } from "./preact-bundle.js";
import { shown } from "./grid.js";

const STEP = 22;
const WIDTH = 320;
const [LEFT, RIGHT] = [118, 202];
const FAINTEST = 0.12;

export function Alignment({ source, target, weights, hover, onHover }) {
  const lines = useMemo(
    () =>
      target.flatMap((_, row) =>
        source.map((_, column) => ({ row, column, weight: weights(row, column) })).filter(({ weight }) => weight > FAINTEST),
      ),
    [source, target, weights],
  );
  const best = useMemo(
    () =>
      target.map((_, row) => {
        const own = lines.filter((line) => line.row === row);
        return own.reduce((a, b) => (b.weight > a.weight ? b : a), { column: null, weight: 0 });
      }),
    [lines, target],
  );
  const height = STEP * Math.max(source.length, target.length) + 8;
  const isLit = ({ row, column }) => hover && (hover.row === row || hover.column === column);
  const y = (index) => STEP * index + STEP / 2 + 4;
  return html`
    <svg class=${`alignment${hover ? " hovering" : ""}`} viewBox=${`0 0 ${WIDTH} ${height}`} role="img"
      aria-label="Lines from source tokens, left, to the target tokens that attend to them, right; the list below has them as text">
      ${lines.map(
        (line) => html`<line
          x1=${LEFT + 6} y1=${y(line.column)} x2=${RIGHT - 6} y2=${y(line.row)}
          class=${isLit(line) ? "lit" : ""} style=${{ "--weight": line.weight.toFixed(2) }}
        />`,
      )}
      ${source.map(
        (token, column) => html`<text x=${LEFT} y=${y(column)} text-anchor="end" class=${hover?.column === column ? "lit" : ""}
          onPointerEnter=${() => onHover({ row: null, column })} onPointerLeave=${() => onHover(null)}>${shown(token)}</text>`,
      )}
      ${target.map(
        (token, row) => html`<text x=${RIGHT} y=${y(row)} class=${hover?.row === row ? "lit" : ""}
          onPointerEnter=${() => onHover({ row, column: null })} onPointerLeave=${() => onHover(null)}>${shown(token)}</text>`,
      )}
    </svg>
    <details>
      <summary>As a list</summary>
      <ol class="pairs">
        ${target.map(
          (token, row) => html`<li>
            <b>${shown(token)}</b> ${best[row].column === null ? "attends to nothing much" : html`← ${shown(source[best[row].column])} <small>${best[row].weight.toFixed(2)}</small>`}
          </li>`,
        )}
      </ol>
    </details>
  `;
}

// A mask as a grid: rows are queries, columns are keys, tokens on both axes. Hover and focus light a row and a column.

import { html, useEffect, useMemo, useRef } from "./preact-bundle.js";

const MOVES = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

/**
 * @param {{title: string, rows: string[], columns: string[], allowed: Float32Array,
 *   weights: ((row: number, column: number) => number) | null,
 *   hover: {row: number | null, column: number | null} | null,
 *   onHover: (cell: {row: number, column: number} | null) => void}} props allowed: of each pair, from 0 to 1.
 */
export function Grid({ title, rows, columns, allowed, weights, hover, onHover }) {
  const table = useRef();
  const place = (event) => {
    const cell = event.target.closest?.("td");
    return cell && { row: cell.parentElement.rowIndex - 1, column: cell.cellIndex - 1 };
  };
  const cellAt = (row, column) => table.current?.rows[row + 1]?.cells[column + 1];

  const onKeyDown = (event) => {
    const at = place(event);
    if (!at) return;
    let { row, column } = at;
    if (MOVES[event.key]) [row, column] = [row + MOVES[event.key][0], column + MOVES[event.key][1]];
    else if (event.key === "Home") [row, column] = [event.ctrlKey ? 0 : row, 0];
    else if (event.key === "End") [row, column] = [event.ctrlKey ? rows.length - 1 : row, columns.length - 1];
    else return;
    event.preventDefault();
    cellAt(row, column)?.focus();
  };

  const onFocus = (event) => {
    const at = place(event);
    if (!at) return;
    for (const cell of table.current.querySelectorAll('td[tabindex="0"]')) cell.tabIndex = -1;
    event.target.tabIndex = 0;
    onHover(at);
  };

  useEffect(() => {
    if (!hover) return undefined;
    const lit = [];
    const light = (element) => element && lit.push(element) && element.classList.add("lit");
    if (hover.column !== null) for (let row = -1; row < rows.length; row += 1) light(cellAt(row, hover.column));
    if (hover.row !== null) light(table.current?.rows[hover.row + 1]);
    return () => lit.forEach((element) => element.classList.remove("lit"));
  }, [hover, rows, columns, allowed]);

  // The same object as long as nothing but the hover changes, so that Preact leaves its cells alone.
  const body = useMemo(
    () => html`
      <thead>
        <tr>
          <td class="corner" aria-hidden="true"></td>
          ${columns.map((token) => html`<th scope="col"><span>${shown(token)}</span></th>`)}
        </tr>
      </thead>
      <tbody>
        ${rows.map(
          (token, row) => html`<tr>
            <th scope="row"><span>${shown(token)}</span></th>
            ${columns.map((_, column) => {
              const share = allowed[row * columns.length + column];
              const weight = weights ? weights(row, column) : null;
              return html`<td
                role="gridcell"
                tabindex=${row + column === 0 ? 0 : -1}
                class=${share === 0 ? "no" : share < 1 ? "some" : "yes"}
                style=${weight ? { "--weight": Math.sqrt(weight).toFixed(3) } : undefined}
                aria-label=${label(share, weight)}
              ></td>`;
            })}
          </tr>`,
        )}
      </tbody>
    `,
    [rows, columns, allowed, weights],
  );

  return html`
    <div class="grid-scroll">
      <table
        ref=${table}
        role="grid"
        class="mask-grid"
        aria-label=${title}
        aria-readonly="true"
        onPointerOver=${(event) => onHover(place(event))}
        onPointerLeave=${() => onHover(null)}
        onKeyDown=${onKeyDown}
        onFocusIn=${onFocus}
        onFocusOut=${() => onHover(null)}
      >
        ${body}
      </table>
    </div>
  `;
}

/** A token as an axis shows it: with a sign for spaces, and shortened. */
export function shown(token) {
  const text = token.trim() ? token : "␣";
  return text.length > 14 ? `${text.slice(0, 13)}…` : text;
}

export function label(share, weight) {
  const state = share === 0 ? "hidden" : share < 1 ? `allowed in ${Math.round(100 * share)} percent` : "allowed";
  return weight === null || share === 0 ? state : `${state}, weight ${weight.toFixed(2)}`;
}

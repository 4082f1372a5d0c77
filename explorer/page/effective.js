// The masks that hold: the model's own, what the reader writes, and the words that are hidden.

import { grid, MaskError, parse } from "./masks.js";

export const SCOPES = ["cross", "encoder", "decoder"];
export const EVERYTHING = { encoder: "full()", decoder: "full()", cross: "full()" };

/** Ascending positions as spans, each [first, one past the last]. */
export function spansOf(positions) {
  const spans = [];
  for (const position of [...positions].sort((a, b) => a - b)) {
    if (spans.at(-1)?.[1] === position) spans.at(-1)[1] += 1;
    else spans.push([position, position + 1]);
  }
  return spans;
}

/** Read the three texts: the masks of those that can be read, and the errors of the others. */
export function readMasks(texts) {
  const [masks, errors] = [{}, {}];
  for (const scope of SCOPES) {
    try {
      masks[scope] = parse(texts[scope]);
    } catch (error) {
      if (!(error instanceof MaskError)) throw error;
      errors[scope] = error;
    }
  }
  return { masks, errors };
}

/**
 * What a scope allows, for chosen layers and heads: of each pair the share of these that allow it, from 0 to 1.
 *
 * @param {object} own the model's mask of the scope. @param {object} mask the reader's.
 * @param {number[]} hidden positions of source tokens, blind in the encoder and in cross-attention.
 * @param {{rows: number, columns: number, layers: number, heads: number}} sizes
 * @param {{layer: number | null, head: number | null}} chosen null is all of them.
 */
export function share(scope, own, mask, hidden, sizes, { layer, head }) {
  const total = new Float32Array(sizes.rows * sizes.columns);
  let count = 0;
  for (const cells of grids(scope, own, mask, hidden, sizes, layer, head)) {
    count += 1;
    for (let index = 0; index < total.length; index += 1) total[index] += cells[index];
  }
  return total.map((sum) => sum / count);
}

/** The grids of all layers and heads, layer by layer, for the graphs: one byte for each pair. */
export function allGrids(scope, own, mask, hidden, sizes) {
  const size = sizes.rows * sizes.columns;
  const result = new Uint8Array(sizes.layers * sizes.heads * size);
  let index = 0;
  for (const cells of grids(scope, own, mask, hidden, sizes, null, null)) result.set(cells, size * index++);
  return result;
}

/**
 * Whether a mask allows any pair of the given sizes, in any layer or head.
 *
 * @param {{rows: number, columns: number, layers: number, heads: number}} sizes the largest that there can be.
 */
export function allowsSomething(mask, sizes) {
  return range(sizes.layers).some((layer) => range(sizes.heads).some((head) => grid(mask, { ...sizes, layer, head }).includes(1)));
}

function* grids(scope, own, mask, hidden, sizes, chosenLayer, chosenHead) {
  const isHidden = new Uint8Array(sizes.columns);
  if (scope !== "decoder") for (const position of hidden) isHidden[position] = 1;
  for (const layer of chosenLayer === null ? range(sizes.layers) : [chosenLayer]) {
    for (const head of chosenHead === null ? range(sizes.heads) : [chosenHead]) {
      const cells = grid(mask, { ...sizes, layer, head });
      const ofModel = grid(own, { ...sizes, layer, head });
      for (let index = 0; index < cells.length; index += 1) {
        cells[index] &= ofModel[index] & (1 - isHidden[index % sizes.columns]);
      }
      yield cells;
    }
  }
}

export function range(count) {
  return Array.from({ length: count }, (_, index) => index);
}

// What runs the model: the server, or this browser. Both have the same methods.

/** Something that a reader can do something about; the message says what. */
export class EngineError extends Error {
  /** @param {boolean} canRetry whether the same question may be answered later. */
  constructor(message, canRetry = false) {
    super(message);
    this.canRetry = canRetry;
  }
}

/** The weights of cross-attention, 0 to 1. */
export class Attention {
  constructor({ layers, heads, rows, columns }, values) {
    Object.assign(this, { layers, heads, rows, columns, values });
  }

  /** The weight of a pair, averaged over all layers or heads where these are null. */
  at(row, column, layer = null, head = null) {
    const [firstLayer, lastLayer] = layer === null ? [0, this.layers] : [layer, layer + 1];
    const [firstHead, lastHead] = head === null ? [0, this.heads] : [head, head + 1];
    let sum = 0;
    for (let l = firstLayer; l < lastLayer; l += 1) {
      for (let h = firstHead; h < lastHead; h += 1) {
        sum += this.values[((l * this.heads + h) * this.rows + row) * this.columns + column];
      }
    }
    return sum / ((lastLayer - firstLayer) * (lastHead - firstHead));
  }
}

/** The engine that the page is made for, before its model is loaded. */
export async function chooseEngine() {
  const kind = document.querySelector('meta[name="engine"]').content;
  const module = await import(kind === "browser" ? "./browser-engine.js" : "./server-engine.js");
  return new module.Engine();
}

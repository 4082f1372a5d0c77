// What `npm run vendor` bundles into page/vendor/preact.js.
import { h, render } from "preact";
import htm from "htm";

export { h, render };
export * from "preact/hooks";
export const html = htm.bind(h);

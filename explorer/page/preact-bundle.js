// The one place that names the bundle of Preact and htm.

export * from "./vendor/preact.js";

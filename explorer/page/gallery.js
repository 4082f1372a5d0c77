// Masks to pick from. Each is what docs/masks.md says of its rules, small enough for a sentence.

import { EVERYTHING } from "./effective.js";

const of = (name, what, shown, masks) => ({ name, what, shown, masks: { ...EVERYTHING, ...masks } });

export const GALLERY = [
  of("Everything", "the default", "cross", {}),
  of("Wait-k", "writes while it reads", "cross", { encoder: "causal()", cross: "wait_k(3)" }),
  of("Wait-k, near", "the same, and forgets what is far back", "cross", { encoder: "causal()", cross: "wait_k(3) & window(6)" }),
  of("Band", "near the diagonal", "cross", { cross: "monotonic(slope=1.0, width=3)" }),
  of("Prefix", "the first tokens", "cross", { cross: "prefix(4)" }),
  of("Without a part", "tokens 2 to 4 left out", "cross", { cross: "drop((2, 5))" }),
  of("Heads", "one head looks near", "cross", { cross: "heads({0: window(1), 'rest': full()})" }),
  of("Layers", "near below, far above", "cross", { cross: "layers({0: window(2), 'rest': full()})" }),
  of("Dilated", "every second token", "cross", { cross: "dilated(2)" }),
  of("Near encoder", "a window of source", "encoder", { encoder: "window(2) | prefix(1)" }),
  of("Blocks", "the source in parts", "encoder", { encoder: "blocks(4)" }),
  of("Chunks", "the source as it comes", "encoder", { encoder: "chunked(4)", cross: "wait_k(4)" }),
  of("Short memory", "the last target tokens", "decoder", { decoder: "window(left=2, right=0)" }),
];

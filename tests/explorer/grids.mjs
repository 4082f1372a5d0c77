// Read cases as JSON from standard input, and print for each the grid that the page's mask language gives, or null.
//
//     node grids.mjs MASKS.js < cases.json
//
// A case is [text, sizes], as `grid` of explorer/page/masks.js takes them; without sizes the text is only read.
import fs from "node:fs";
import { pathToFileURL } from "node:url";

const { grid, MaskError, parse } = await import(pathToFileURL(process.argv[2]));
const outputs = JSON.parse(fs.readFileSync(0)).map(([text, sizes]) => {
  try {
    const mask = parse(text);
    return { cells: sizes ? [...grid(mask, sizes)].join("") : "" };
  } catch (error) {
    if (!(error instanceof MaskError)) throw error;
    return { error: error.message, part: text.slice(error.start, error.end) };
  }
});
console.log(JSON.stringify(outputs));

"""The costs in docs/scaling.md are those that its formula gives for the speeds in docs/serving.md."""

import math
import os
import re
from pathlib import Path

from crossmask.inference.files import PORTION

DOCS = Path(__file__).parents[1] / "docs"
ENGINES = (
    "crossmask `generate()`, float32",
    "CTranslate2, float32",
    "CTranslate2, int8",
    "ONNX, float32",
    "ONNX, int8",
)
WORKERS = (1, 8, 64, 256)
SENTENCES, START_UP, PRICE = 1_000_000, 30, 0.04


def rates() -> dict[str, float]:
    """Sentences a second at batch 64 with beams, by the names of rows in the table of speeds."""
    table = (DOCS / "serving.md").read_text(encoding="utf-8").split("## Speed")[1]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if "|" in line]
    assert rows[0][-1] == "batch 64, beam 5"
    return {row[0]: float(row[-1].split()[0]) for row in rows[2:]}


def seconds(rate: float, workers: int) -> float:
    """To translate all sentences."""
    rounds = math.ceil(math.ceil(SENTENCES / PORTION) / workers)
    return START_UP + rounds * PORTION / rate


def duration(value: float) -> str:
    return f"{value / 3600:.1f} h" if value >= 3600 else f"{value / 60:.1f} min"


def costs() -> str:
    """The table of the page."""
    header = ["", "sentences/s", *(f"{count} worker{'s' * (count > 1)}" for count in WORKERS)]
    lines = [header, ["---", *["---:"] * (len(header) - 1)]]
    for engine in ENGINES:
        rate = rates()[engine]
        times = {count: seconds(rate, count) for count in WORKERS}
        cells = (f"{duration(time)}, ${count * time / 3600 * PRICE:.3f}" for count, time in times.items())
        lines.append([engine, f"{rate:.1f}", *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def test_the_costs_are_what_the_formula_gives():
    path = DOCS / "scaling.md"
    page = path.read_text(encoding="utf-8")
    pattern = re.compile(r"(<!-- costs: [^\n]*-->\n)(.*?)(<!-- /costs -->)", flags=re.S)
    written = pattern.sub(lambda match: f"{match[1]}\n{costs()}\n\n{match[3]}", page)
    if os.environ.get("CROSSMASK_WRITE_DOCS"):
        path.write_text(written, encoding="utf-8")
        page = written
    assert page == written
    for assumption in (f"portions of {PORTION:,} lines", f"{START_UP} seconds until", f"{PRICE} dollars for an hour"):
        assert assumption in page
    assert f"ceil({math.ceil(SENTENCES / PORTION)} / workers) * {PORTION} / rate" in page


def test_costs_of_known_cases():
    assert seconds(100.0, 1) == START_UP + 977 * 10.24
    assert seconds(100.0, 977) == seconds(100.0, 1000) == START_UP + 10.24
    assert duration(90) == "1.5 min"
    assert duration(7200) == "2.0 h"

"""Every causal language model and every text encoder of Transformers: joined and right, or refused with a reason."""

import os
from collections import Counter
from pathlib import Path

import pytest
from bridge_walk import families, isolated

DOCS = Path(__file__).resolve().parents[2] / "docs" / "bridge-families.md"
CHECKS = {
    "decoder": ("closed", "cached", "beams", "padded", "decoder_mask", "packed", "trains"),
    "encoder": ("closed", "cached", "padded", "encoder_mask", "packed", "trains"),
}
# Not built by the common fields, or not run by themselves in these sizes; the table has the reasons.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600), pytest.mark.filterwarnings("ignore")]


def cell(found: str) -> str:
    return {"y": "yes", "r": "refused", "W": "**wrong**", "E": "error"}[found[0]]


def clean(text: str) -> str:
    return text.removeprefix("refused: ").removeprefix("ERROR ").split("; take")[0].replace("|", "\\|")


def table(side: str, rows: dict[str, dict[str, str]]) -> str:
    names = CHECKS[side]
    lines = [
        f"| family | {' | '.join(f'`{n}`' if 'mask' in n else n for n in names)} | why not |",
        "|---|" * 1 + "---|" * (len(names) + 1),
    ]
    for family, row in rows.items():
        stop = row.get("built") or (row["joined"] if row.get("joined") != "yes" else None)
        if stop:
            state = "not built here" if "built" in row else "refused" if stop.startswith("refused") else "error"
            lines.append(f"| {family} | {state} |{' |' * (len(names) - 1)} {clean(stop)} |")
            continue
        reasons = dict.fromkeys(clean(row[n]) for n in names if row[n] != "yes")
        lines.append(f"| {family} | {' | '.join(cell(row[n]) for n in names)} | {'; '.join(reasons)} |")
    return "\n".join(lines)


@pytest.mark.parametrize("side", ["decoder", "encoder"])
def test_no_family_is_wrong(side):
    """Writes the table of the docs with CROSSMASK_WRITE_DOCS=1; its rows change with the versions of Transformers."""
    rows = {family: isolated(side, family) for family in families(side)}
    if os.environ.get("CROSSMASK_WRITE_DOCS"):
        before, _, rest = DOCS.read_text().partition(f"<!-- {side}s -->\n")
        _, _, after = rest.partition(f"\n<!-- end of {side}s -->")
        DOCS.write_text(f"{before}<!-- {side}s -->\n{table(side, rows)}\n<!-- end of {side}s -->{after}")
    wrong = {f: {k: v for k, v in row.items() if v.startswith("WRONG")} for f, row in rows.items()}
    assert not {family: found for family, found in wrong.items() if found}
    failed = {f: {k: v for k, v in row.items() if k != "built" and v.startswith("ERROR")} for f, row in rows.items()}
    assert not {family: found for family, found in failed.items() if found}
    assert Counter(row.get("joined") for row in rows.values())["yes"] > (120 if side == "decoder" else 60)

"""Every causal language model and every text encoder of Transformers: joined and right, or refused with a reason."""

from collections import Counter
from pathlib import Path

import pytest
from bridge_walk import families, row_of
from family_walk import isolated, outcomes, table, write_table

DOCS = Path(__file__).resolve().parents[2] / "docs" / "bridge-families.md"
CHECKS = {
    "decoder": ("closed", "cached", "beams", "padded", "decoder_mask", "packed", "trains"),
    "encoder": ("closed", "cached", "padded", "encoder_mask", "packed", "trains"),
}
# Not built by the common fields, or not run by themselves in these sizes; the table has the reasons.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600), pytest.mark.filterwarnings("ignore")]


@pytest.mark.parametrize("side", ["decoder", "encoder"])
def test_no_family_is_wrong(side):
    """Writes the table of the docs with CROSSMASK_WRITE_DOCS=1; its rows change with the versions of Transformers."""
    rows = {family: isolated(row_of, side, family) for family in families(side)}
    write_table(DOCS, f"{side}s", table(rows, CHECKS[side], joined="joined"))
    assert not outcomes(rows, "WRONG")
    assert not outcomes(rows, "ERROR")
    assert Counter(row.get("joined") for row in rows.values())["yes"] > (120 if side == "decoder" else 60)

"""Every encoder-decoder of Transformers for text and for speech: masks on it are right, or refused with a reason."""

from collections import Counter
from pathlib import Path

import pytest
from attached_walk import CHECKS, MAPPINGS, families, row_of
from family_walk import isolated, outcomes, table, write_table

DOCS = Path(__file__).resolve().parents[2] / "docs" / "attached-families.md"
pytestmark = [pytest.mark.filterwarnings("ignore")]


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", MAPPINGS)
def test_no_family_is_wrong(kind):
    """Writes the table of the docs with CROSSMASK_WRITE_DOCS=1; its rows change with the versions of Transformers."""
    rows = {family: isolated(row_of, kind, family) for family in families(kind)}
    write_table(DOCS, kind, table(rows, ["attention", *CHECKS], joined="attached"))
    assert not outcomes(rows, "WRONG")
    assert not outcomes(rows, "ERROR")
    assert Counter(row.get("attached") for row in rows.values())["yes"] >= (23 if kind == "text" else 9)


@pytest.mark.slow
def test_an_encoder_that_convolves_between_its_layers_takes_no_masks():
    row = isolated(row_of, "speech", "speech-encoder-decoder (wav2vec2-conformer, bert)")
    assert row["encoder_mask"].startswith("refused: encoder_mask must be full() on this model"), row
    assert row["cross_mask"] == "yes"

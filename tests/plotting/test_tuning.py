import pytest

plots = pytest.importorskip("crossmask.plotting.tuning", reason="needs matplotlib", exc_type=ImportError)

VALUES = {
    "learning_rate": [1e-4, 1e-3, 5e-3],
    "model.cross_mask": ["full()", "wait_k(3)", "full()"],
    "freeze": [None, 1, 2],
}


@pytest.mark.parametrize("importances", [{}, {"learning_rate": 0.8, "model.cross_mask": 0.2}])
def test_the_figure_is_drawn(tmp_path, importances):
    path = plots.search_result(importances, VALUES, [1.0, 2.0, 3.0], "chrf", tmp_path / "a.png", log={"learning_rate"})
    assert path.read_bytes().startswith(b"\x89PNG")


def test_unequal_numbers_are_refused(tmp_path):
    with pytest.raises(ValueError, match="one value for each of 2 trials, got"):
        plots.search_result({}, VALUES, [1.0, 2.0], "chrf", tmp_path / "a.png")

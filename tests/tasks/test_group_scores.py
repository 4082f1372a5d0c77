import pytest

from crossmask.tasks import Example, get_task
from crossmask.tasks.group_scores import score_groups
from crossmask.tasks.sequence_classification import Classified

TASK = get_task("text-classification", labels=["a", "b"])


def cases(*groups):
    """Examples and predictions: for each group how many are right and how many wrong."""
    examples, predictions = [], []
    for name, right, wrong in groups:
        for label in ["a"] * right + ["b"] * wrong:
            examples.append(Example("x", "a", ("a",), name))
            predictions.append(Classified(label, 0.5))
    return predictions, examples


def test_each_group_has_its_score_its_interval_and_the_worst_is_named():
    found = score_groups(TASK, *cases(("y", 30, 10), ("x", 9, 1), ("z", 5, 0)), resamples=50)
    assert [(one.name, one.size, one.value) for one in found.groups] == [("x", 10, 90), ("y", 40, 75), ("z", 5, 100)]
    assert (found.worst.name, found.spread, found.metric) == ("y", 25, "accuracy")
    assert all(one.low <= one.value <= one.high for one in found.groups)
    # The standard error of 30 of 40 is 6.8: an interval of 95% is about 27 wide.
    assert 20 < found.groups[1].high - found.groups[1].low < 34
    assert (found.groups[2].low, found.groups[2].high) == (100, 100)
    assert found.as_dict()["of"]["y"]["examples"] == 40


def test_the_same_seed_draws_the_same():
    first, second, other = (
        score_groups(TASK, *cases(("x", 20, 17), ("y", 3, 2)), resamples=20, seed=seed) for seed in (1, 1, 2)
    )
    assert first == second
    assert first != other


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([("x", 1, 0)], "groups to compare must be two or more, got x alone"),
        ([("x", 1, 0), (None, 1, 0)], "example 1 must have a group, as all others"),
    ],
)
def test_groups_that_cannot_be_compared(groups, message):
    with pytest.raises(ValueError, match=message):
        score_groups(TASK, *cases(*groups))
    with pytest.raises(ValueError, match="predictions must be one for each of 1 examples, got 0"):
        score_groups(TASK, [], cases(*groups)[1][:1])

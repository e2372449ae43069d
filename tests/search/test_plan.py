"""What can be had before training: whatever needs no accuracy."""

import pytest

from ofa_deploy.cost import AdditiveModel, macs_model
from ofa_deploy.errors import InputError
from ofa_deploy.search import parse_constraint, plan
from ofa_deploy.space import SearchSpace


@pytest.fixture(scope="module")
def latency(tiny_space: SearchSpace) -> AdditiveModel:
    return AdditiveModel.from_blocks(tiny_space, lambda block: block.macs / 1e6)


@pytest.mark.parametrize("text", ["top1 >= 75", "top1 <= 80 %"])
def test_accuracy_is_not_known(tiny_space: SearchSpace, latency: AdditiveModel, text: str) -> None:
    asked = [parse_constraint("latency <= 1 s"), parse_constraint(text)]
    with pytest.raises(InputError) as caught:
        plan(tiny_space, {"latency": latency}, asked)
    assert str(caught.value) == f"accuracy is not known before training; leave {text!r} out"


def test_the_largest_network_within_a_budget(
    tiny_space: SearchSpace, latency: AdditiveModel
) -> None:
    limit = round(sum(latency.bounds()) / 2, 6)
    found = plan(tiny_space, {"latency": latency}, [parse_constraint(f"latency <= {limit} ms")])
    reach = {each.metric: each for each in found.reach}
    assert "top1" not in reach
    assert (reach["macs"].least, reach["macs"].greatest) == macs_model(tiny_space).bounds()
    assert found.best is not None
    assert 0.9 * limit < found.best.predicted["latency"] <= limit

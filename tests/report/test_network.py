"""The drawing of a network: its shapes, labels and colours follow its blocks; any text is text."""

from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest

from ofa_deploy.errors import MismatchError
from ofa_deploy.pareto import Candidate, ParetoFront
from ofa_deploy.report import Context, Series, network_svg, shares
from ofa_deploy.report.network import HALF, RAMP, glyph, shade, stage_of, widest
from ofa_deploy.report.store import Store
from ofa_deploy.space import Block, SearchSpace, get_space, space_names
from tests.tables import table_of

SVG = "{http://www.w3.org/2000/svg}"


def test_shares_are_of_latency_with_a_table_and_of_macs_without(tiny_space: SearchSpace) -> None:
    arch = tiny_space.largest
    blocks = tiny_space.lower_named(arch)
    table = table_of(tiny_space, lambda block: 2.0 if block.kind == "mbconv" else 0.5)
    timed = shares(tiny_space, arch, table)
    assert [(each.place, each.block) for each in timed] == list(blocks)
    assert sum(each.share for each in timed) == pytest.approx(1.0)
    slow = sum(block.kind == "mbconv" for _, block in blocks)
    total = 2.0 * slow + 0.5 * (len(blocks) - slow)
    assert [each.share for each in timed] == pytest.approx([each.ms / total for each in timed])
    plain = shares(tiny_space, arch)
    assert {each.ms for each in plain} == {None}
    macs = tiny_space.cost(arch).macs
    assert [e.share for e in plain] == pytest.approx([e.block.macs / macs for e in plain])


def test_table_of_another_space_is_refused(tiny_space: SearchSpace) -> None:
    table = table_of(tiny_space.with_classes(9), lambda block: 1.0)
    with pytest.raises(MismatchError, match=r"with 9 classes .* with 4 .*\.with_classes\(9\)"):
        shares(tiny_space, tiny_space.largest, table)


@pytest.mark.parametrize("name", space_names())
def test_every_space_can_be_drawn(name: str) -> None:
    space = get_space(name)
    blocks = shares(space, space.largest)
    root = ElementTree.fromstring(network_svg(space, blocks, title=name))
    drawn = root.findall(f".//{SVG}polygon")
    assert len(drawn) == len(blocks)
    width, height = (float(v) for v in root.attrib["viewBox"].split()[2:])
    for each in root.iter(f"{SVG}text"):
        assert 0 <= float(each.attrib["x"]) <= width
        assert 0 <= float(each.attrib["y"]) <= height
    darkest = max(range(len(blocks)), key=lambda i: blocks[i].share)
    assert drawn[darkest].attrib["fill"] == RAMP[-1]
    stages = dict.fromkeys(stage_of(each.place) for each in blocks)
    bold = [e.text for e in root.iter(f"{SVG}text") if e.attrib.get("font-weight") == "600"]
    assert bold == list(stages)


def test_glyph_is_as_high_as_the_root_of_its_channels() -> None:
    block = Block(kind="mbconv", in_channels=16, mid_channels=64, out_channels=36, size=8, kernel=5)
    drawn = glyph(block, 64)
    heights = [2 * -y for _, y in drawn.outline[: len(drawn.outline) // 2]]
    assert heights == pytest.approx([HALF, 2 * HALF, 2 * HALF, 1.5 * HALF], abs=0.2)
    assert drawn.labels == ("k5", "e4", "", "36")
    assert "16 to 36 channels over 64" in drawn.about
    assert "SE" in glyph(replace(block, se=8), 64).labels


def test_shade_rises_with_the_share() -> None:
    found = [shade(share, 0.3) for share in (0.0, 0.05, 0.15, 0.3)]
    assert found[0] == RAMP[0] and found[-1] == RAMP[-1]
    assert [RAMP.index(each) for each in found] == sorted(RAMP.index(each) for each in found)
    light = [sum(int(colour[i : i + 2], 16) for i in (1, 3, 5)) for colour in RAMP]
    assert light == sorted(light, reverse=True)


def test_title_stays_text(tiny_space: SearchSpace) -> None:
    hostile = '</title><script>alert(1)</script><img src="x">'
    text = network_svg(tiny_space, shares(tiny_space, tiny_space.smallest), title=hostile)
    root = ElementTree.fromstring(text)
    assert root.findtext(f"{SVG}title") == hostile
    assert not root.findall(f".//{SVG}script")


def test_page_is_given_the_blocks_that_the_space_lowers_to(tiny_space: SearchSpace) -> None:
    archs = tiny_space.decode(tiny_space.sample(np.random.default_rng(0), 40))
    front = ParetoFront(tuple(Candidate(a, {"latency": 1.0, "top1": 1.0}) for a in archs))
    table = table_of(tiny_space, lambda block: 1e-3 + block.macs / 1e6)
    series = Series("x", front, "predicted", context=Context(space=tiny_space, table=table))
    store = Store()
    store.add(series)
    data = store.to_dict([series])
    most = widest(tiny_space)
    for arch, indices in zip(archs, data["blocks"], strict=True):
        named = tiny_space.lower_named(arch)
        made = [data["glyphs"][0][i] for i in indices]
        assert [(each["place"], each["key"]) for each in made] == [(p, b.key) for p, b in named]
        assert made[-1]["outline"] == glyph(named[-1][1], most).to_dict()["outline"]
        times = [data["groups"][0]["ms"][i] for i in indices]
        assert times == pytest.approx([table.value(block) for _, block in named])

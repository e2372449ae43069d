"""``compare``: devices side by side, runs before and after, points from elsewhere, every file."""

import csv
import json
import re
import shlex
import shutil
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from ofa_deploy.hardware import Conditions
from ofa_deploy.pareto import Candidate, ParetoFront
from ofa_deploy.report.html import page_data
from ofa_deploy.search import FrontFile
from ofa_deploy.space import SearchSpace
from tests.tables import SOMEWHERE, table_of

Cli = Callable[..., Any]


@pytest.fixture
def front(tiny_space: SearchSpace, here: Path) -> Callable[..., Path]:
    """Write a front of networks, the i-th takes ``factor`` times i ms."""
    drawn = tiny_space.decode(tiny_space.sample(np.random.default_rng(4), 40))
    every = list(dict.fromkeys(drawn))

    def make(
        name: str,
        factor: float = 1.0,
        conditions: Conditions | None = SOMEWHERE,
        metrics: tuple[str, ...] = ("latency",),
        kind: Any = "measured",
        networks: int = 8,
    ) -> Path:
        candidates = []
        for i, arch in enumerate(every[:networks]):
            values = {"top1": 60.0 + 2 * i}
            values |= {m: factor * (1 + i) * (1 + k) for k, m in enumerate(metrics)}
            told = {m: 1.1 * v for m, v in values.items()}
            measured = values if kind == "measured" else {}
            candidates.append(Candidate(arch, told, {}, measured))
        objectives = {"top1": "max"} | {metric: "min" for metric in metrics}
        made = FrontFile.build(
            "label",
            kind,
            tiny_space,
            ParetoFront(tuple(candidates), objectives),
            conditions=conditions,
            budgets=(4.5,) if metrics == ("latency",) else (),
        )
        return made.save(here / f"{name}.front.json")

    return make


def changed(**changes: Any) -> Conditions:
    return SOMEWHERE.model_copy(update=changes)


def test_writes_every_file(front: Callable[..., Path], here: Path, cli: Cli) -> None:
    made = cli(
        *("compare", front("one"), front("two", 1.1), "--out", "p.html", "--png", "p.png"),
        *("--svg", "p.svg", "--csv", "tables", "--json", "p.json"),
    )
    assert made.code == 0, made.stderr
    assert len(page_data((here / "p.html").read_text())["networks"]["arch"]) == 16
    with Image.open(here / "p.png") as picture:
        assert min(picture.size) > 200
    assert (here / "p.svg").read_text().startswith("<?xml")
    names = ["agreement", "changes", "equal-accuracy", "equal-latency", "fronts", "networks"]
    assert sorted(path.stem for path in (here / "tables").iterdir()) == names
    assert json.loads((here / "p.json").read_text())["schema"] == "report/1"
    written = ["p.html", "p.png", "p.svg", "p.json", *(f"tables/{name}.csv" for name in names)]
    assert all(f"wrote {name}\n" in made.stderr for name in written)


def test_of_what_is_only_predicted_it_prints_a_few(
    front: Callable[..., Path], here: Path, cli: Cli
) -> None:
    measured, guessed = front("m"), front("p", 1.3, kind="predicted", networks=30)
    made = cli("compare", measured, guessed, "--csv", "n.csv")
    assert made.code == 0, made.stderr
    assert len((here / "n.csv").read_text().splitlines()) == 1 + 8 + 30
    lines = made.stdout.partition("Hypervolume")[0].splitlines()
    assert [line.split()[1] for line in lines if line.startswith(" * ")][1:] == ["m", "p"]
    assert "*: the most accurate of its front that keeps its budget" in made.stdout
    printed = [line.removeprefix(" * ").split() for line in lines]
    predicted = [float(words[1]) for words in printed if words[:1] == ["p"]]
    assert len(predicted) == 12 and "20 of 38 networks shown; all are in n.csv\n" in made.stderr
    assert (predicted[0], predicted[-1]) == pytest.approx((1.1 * 1.3, 1.1 * 1.3 * 30), rel=0.01)
    assert sum(words[:1] == ["m"] for words in printed) == 8


def test_of_fronts_that_are_alike_it_prints_a_few_changes(
    front: Callable[..., Path], here: Path, cli: Cli
) -> None:
    made = cli("compare", front("old", networks=35), front("new", 1.2, networks=35))
    assert made.code == 0, made.stderr
    tables = made.stdout.partition("Hypervolume")[::2]
    assert [sum(" r1" in line for line in each.splitlines()) for each in tables] == [0, 12]
    assert "35 networks in both" in made.stdout and "12 of them shown." in made.stdout
    assert "24 of 70 networks shown; all go into --csv FOLDER and --out FILE" in made.stderr
    assert cli("compare", here / "old.front.json", here / "new.front.json", "--csv", "t").code == 0
    assert len((here / "t" / "changes.csv").read_text().splitlines()) == 1 + 35


def test_tells_gain_and_hypervolume_with_a_stated_reference(
    front: Callable[..., Path], here: Path, cli: Cli
) -> None:
    paths = front("one"), front("two", 2.0)
    made = cli("compare", *paths, "--reference", "20,50", "--json", "p.json")
    assert made.code == 0, made.stderr
    assert "Hypervolume up to latency 20.0 ms, top1 50.00 %" in made.stdout
    (comparison,) = json.loads((here / "p.json").read_text())["comparisons"]
    first, second = comparison["fronts"]
    # From 1 ms on 10 points, and 2 more from each further ms.
    assert first["hypervolume"] == pytest.approx(19 * 10 + 2 * sum(20 - ms for ms in range(2, 9)))
    assert second["covered_by"] == {"one (measured)": 1.0}
    (at,) = comparison["at_latency"]
    assert (at["at"], at["value"]) == (4.5, {"one (measured)": 66.0, "two (measured)": 62.0})
    assert at["gain"]["two (measured)"]["value"] == pytest.approx(-4.0)
    for each in comparison["at_accuracy"]:
        assert each["gain"]["two (measured)"]["value"] == pytest.approx(100.0)


def test_devices_have_panels_of_their_own(front: Callable[..., Path], here: Path, cli: Cli) -> None:
    pi = front("pi", 9.0, changed(device="pi", processor="A72"))
    made = cli("compare", front("here"), pi, "--out", "p.html", "--json", "p.json")
    assert made.code == 0, made.stderr
    comparisons = json.loads((here / "p.json").read_text())["comparisons"]
    assert [each["panel"] for each in comparisons] == ["bench · made up", "pi · A72"]
    assert all(len(each["fronts"]) == 1 for each in comparisons), "none across devices"
    kinds = [chart["kind"] for chart in page_data((here / "p.html").read_text())["charts"]]
    assert kinds[:3] == ["front", "front", "relative"]
    chosen = cli("compare", here / "here.front.json", pi, "--device", "pi", "--json", "q.json")
    assert chosen.code == 0, chosen.stderr
    (only,) = json.loads((here / "q.json").read_text())["comparisons"]
    assert only["panel"] == "pi · A72"
    assert "known: bench" in cli("compare", here / "here.front.json", "--device", "x").error(1)


def test_front_of_several_devices_is_shown_on_each(
    front: Callable[..., Path], here: Path, cli: Cli
) -> None:
    both = front("both", conditions=None, metrics=("latency[pi]", "latency[nano]"))
    made = cli("compare", both, "--out", "p.html", "--png", "p.png", "--relative")
    assert made.code == 0, made.stderr
    data = page_data((here / "p.html").read_text())
    pi, nano = data["charts"][:2]
    assert [pi["title"], nano["title"]] == ["pi", "nano"]
    assert nano["series"][0]["x"] == [2 * x for x in pi["series"][0]["x"]]
    groups = [data["networks"]["group"][c["series"][0]["net"][0]] for c in (pi, nano)]
    assert [data["networks"]["groups"][g]["panel"] for g in groups] == ["pi", "nano"]


def written(path: Path) -> str:
    """What an SVG file says, lines of one text joined."""
    texts = ElementTree.parse(path).iter("{http://www.w3.org/2000/svg}text")
    return " ".join(" ".join(each.itertext()) for each in texts)


def test_a_picture_says_device_runtime_and_precision(
    front: Callable[..., Path], here: Path, cli: Cli
) -> None:
    paths = front("one"), front("pi", 9.0, changed(device="pi", processor="A72", threads=4))
    assert cli("compare", paths[0], "--svg", "one.svg", "--out", "one.html").code == 0
    of_one = "Pareto fronts on bench · made up, onnxruntime fp32"
    assert written(here / "one.svg").count(of_one) == 1
    assert f"<title>{of_one}</title>" in (here / "one.html").read_text()
    assert cli("compare", *paths, "--svg", "two.svg").code == 0
    of_two = written(here / "two.svg")
    assert "bench · made up, onnxruntime fp32" in of_two
    assert "pi · A72, onnxruntime fp32 4 threads" in of_two
    assert cli("compare", *paths, "--svg", "two.svg", "--relative").code == 0
    assert "pi (measured), pi · A72, onnxruntime fp32 4 threads" in written(here / "two.svg")


def test_precisions_share_a_panel_and_are_named(
    front: Callable[..., Path], here: Path, cli: Cli
) -> None:
    int8 = front("int8", 0.5, changed(precision="int8"))
    made = cli("compare", front("fp32"), int8, "--svg", "p.svg")
    assert made.code == 0, made.stderr
    drawn = written(here / "p.svg")
    assert "Pareto fronts on bench · made up" in drawn
    assert "fp32 (measured), onnxruntime fp32" in drawn
    assert "int8 (measured), onnxruntime int8" in drawn
    assert "precision differs on bench · made up: fp32, int8" in made.stderr
    assert "Latency at equal top-1 on bench" in made.stdout


def test_before_and_after_name_what_changed(
    front: Callable[..., Path], here: Path, cli: Cli
) -> None:
    old = front("old")
    new = front("new", 1.25, changed(runtime_version="2"))
    made = cli("compare", "--before", old, "--after", new, "--json", "p.json")
    assert made.code == 0, made.stderr
    assert "runtime_version (1, 2)" in " ".join(made.stdout.split())
    (told,) = json.loads((here / "p.json").read_text())["changes"]
    assert [each["latency"]["change"] for each in told["archs"]] == pytest.approx([25.0] * 8)
    assert told["latency"] == pytest.approx([25.0, 25.0, 25.0])
    elsewhere = front("pi", 1.0, changed(device="pi"))
    assert "one device" in cli("compare", "--before", old, "--after", elsewhere).error(1)
    assert "together" in cli("compare", old, "--before", old).error(1)


def test_external_points_are_marked(front: Callable[..., Path], here: Path, cli: Cli) -> None:
    (here / "timm.csv").write_text("name,latency_ms,accuracy\nresnet,3,50\n")
    made = cli("compare", front("one"), "--points", "timm.csv", "--out", "p.html")
    assert made.code == 0, made.stderr
    assert "External points" in made.stdout and "resnet" in made.stdout
    external = page_data((here / "p.html").read_text())["charts"][0]["series"][-1]
    assert external["external"] == ["resnet (external, from timm.csv)"]
    (here / "bad.csv").write_text("name,latency_ms,accuracy\nresnet,-3,50\n")
    said = cli("compare", here / "one.front.json", "--points", "bad.csv").error(1)
    assert "bad.csv: line 2: latency_ms: expected a positive number" in said


def test_block_times_come_from_the_table_named(
    front: Callable[..., Path], here: Path, cli: Cli, tiny_space: SearchSpace
) -> None:
    table_of(tiny_space, lambda block: 0.25).save(here / "t.json")
    made = cli("compare", front("one"), "--table", "t.json", "--out", "p.html")
    assert made.code == 0, made.stderr
    (group,) = page_data((here / "p.html").read_text())["networks"]["groups"]
    assert set(group["ms"]) == {0.25}
    other = changed(threads=4)
    table_of(tiny_space, lambda block: 1.0, conditions=other).save(here / "u.json")
    said = cli("compare", here / "one.front.json", "--table", "u.json").error(1)
    assert "is of no front shown" in said


def test_fronts_of_two_runs_are_told_apart_by_their_folders(
    front: Callable[..., Path], here: Path, cli: Cli
) -> None:
    for run in ("a", "b"):
        (here / run / "fronts").mkdir(parents=True)
        shutil.copy(front("best"), here / run / "fronts" / "best.front.json")
    made = cli("compare", *(here / run / "fronts" / "best.front.json" for run in "ab"),
               "--csv", "p.csv")  # fmt: skip
    assert made.code == 0, made.stderr
    rows = list(csv.DictReader((here / "p.csv").read_text().splitlines()))
    assert list(dict.fromkeys(row["series"] for row in rows)) == ["a/best", "b/best"]


def test_page_knows_run_and_subnets(front: Callable[..., Path], here: Path, cli: Cli) -> None:
    run = Path("runs/my run")
    for name in ("fronts", "subnets"):
        (here / run / name).mkdir(parents=True)
    path = Path(shutil.move(front("one"), run / "fronts" / "one.front.json"))
    (run / "run.json").write_text("{}")
    candidates = FrontFile.load(path).pareto
    kept = {"candidate": {"arch": candidates[3].arch.to_dict()}}
    (run / "subnets" / "good.subnet.json").write_text(json.dumps(kept))
    (run / "subnets" / "torn.subnet.json").write_text('{"candidate"')
    made = cli("compare", path, "--out", "p.html")
    assert made.code == 0, made.stderr
    data = page_data((here / "p.html").read_text())["networks"]
    assert data["groups"][0]["run"] == "'runs/my run'"
    command = "ofa-deploy export 'runs/my run/subnets/good.subnet.json' --out bundles/good"
    assert data["kept"] == {"3": command}
    # The middle, and only, budget is 4.5 ms, which the fourth network keeps.
    page = unescape((here / "p.html").read_text())
    assert f"<code>{command}</code>" in page
    assert "<code>ofa-deploy show 'runs/my run/subnets/good.subnet.json'</code>" in page
    assert "<dt>top-1</dt><dd>on the validation split</dd>" in page
    assert "ofa-deploy search" not in page, "no table of that device is at hand"


def test_page_says_what_its_run_says_and_proposes_what_can_be_run(
    job: Any, here: Path, cli: Cli
) -> None:
    table = here / "latency_tables" / "local" / "mine.json"
    table.parent.mkdir(parents=True)
    shutil.copy(job.table, table)
    assert cli("compare", *job.fronts, "--out", "p.html").code == 0
    page = unescape((here / "p.html").read_text())
    facts = dict(re.findall("<dt>(.*?)</dt><dd>(.*?)</dd>", page))
    measured = [c.measured for path in job.fronts for c in FrontFile.load(path).pareto]
    (images,) = {each["top1.images"] for each in measured if each}
    assert facts["top-1"] == f"on the validation split, {images:,.0f} images"
    assert facts["accuracy model"].startswith("accuracy model from ")
    assert "latency model" in facts
    assert (
        facts["supernet SHA-256"]
        == json.loads((job.run / "run.json").read_text())["weights_sha256"]
    )
    commands = [shlex.split(each) for each in re.findall("<code>(ofa-deploy .*?)</code>", page)]
    assert [each[1] for each in commands] == ["export", "show", "search", "compare"]
    assert commands[2][4:6] == ["--table", "latency_tables/local/mine.json"]
    assert cli(*commands[1][1:]).code == 0
    assert cli(*commands[0][1:], "--quiet").code == 0
    shutil.rmtree(commands[0][commands[0].index("--out") + 1])


def test_command_on_the_page_exports_the_network(job: Any, here: Path, cli: Cli) -> None:
    """What the page puts together for a network without a file, run piece by piece."""
    cli("compare", job.fronts[0], "--out", "p.html")
    data = page_data((here / "p.html").read_text())["networks"]
    net = next(i for i in range(len(data["arch"])) if str(i) not in data["kept"])
    name = data["name"][net]
    (here / f"{name}.json").write_text(json.dumps(data["fields"][net]))
    made = cli("export", "--run", data["groups"][0]["run"], "--arch", f"{name}.json",
               "--out", f"bundles/{name}", "--quiet")  # fmt: skip
    assert made.code == 0, made.stderr
    manifest = json.loads((here / "bundles" / name / "manifest.json").read_text())
    assert manifest["subnet"]["arch"] == data["fields"][net]
    (job.run / "subnets" / f"{name}.subnet.json").unlink()
    (job.run / "subnets" / f"{name}.safetensors").unlink()


def test_fronts_of_other_images_are_warned_of(
    job: Any, here: Path, cli: Cli, front: Callable[..., Path]
) -> None:
    assert "different images" not in cli("compare", *job.fronts).stderr
    other = here / "other"
    (other / "fronts").mkdir(parents=True)
    shutil.copy(job.fronts[1], other / "fronts" / "b.front.json")
    record = json.loads((job.run / "run.json").read_text())
    record |= {"data": "/somewhere/digits", "data_digest": "0123456789abcdef"}
    (other / "run.json").write_text(json.dumps(record))
    told = cli("compare", job.fronts[1], other / "fronts" / "b.front.json").stderr
    assert "warning: top-1 of these fronts was judged on different images: " in told
    assert "on digits (0123456789abcdef); gains in points" in told
    among = cli("compare", job.fronts[1], front("plain")).stderr  # which knows no run
    assert "among 3, plain among 4 classes; gains in points" in among


def test_folder_in_place_of_a_file_names_what_is_in_it(job: Any, here: Path, cli: Cli) -> None:
    made = cli("compare", job.run).error(1)
    assert f"{job.run}: a folder; give one of its fronts: " in made
    assert all(str(path) in made for path in job.fronts)
    assert f"a folder; give one of its subnets: {job.subnet}" in cli("show", job.run).error(1)
    (here / "empty").mkdir()
    assert "empty: a folder without subnets; expected a file" in cli("show", "empty").error(1)


def test_names_fronts_as_asked(job: Any, cli: Cli) -> None:
    made = cli("compare", *job.fronts, "--label", "guessed", "--label", "seen")
    assert made.code == 0, made.stderr
    assert "guessed" in made.stdout and "seen" in made.stdout
    assert cli("compare", *job.fronts, "--csv", "figures/p.csv").code == 0
    rows = list(csv.DictReader(Path("figures/p.csv").read_text().splitlines()))
    archs = {str(each.arch) for path in job.fronts for each in FrontFile.load(path).pareto}
    assert {row["arch"] for row in rows} == archs
    assert "expected 2 labels, found 1" in cli("compare", *job.fronts, "--label", "a").error(1)


@pytest.mark.parametrize("text", ["5", "a,b", "1,2,3"])
def test_reference_that_is_no_point_is_one_line(
    front: Callable[..., Path], cli: Cli, text: str
) -> None:
    said = cli("compare", front("one"), "--reference", text).error(1)
    assert "expected MS,PERCENT, two numbers" in said


def test_front_of_no_network_is_named(front: Callable[..., Path], cli: Cli) -> None:
    said = cli("compare", front("none", networks=0)).error(1)
    assert "none.front.json: a front of no network; search again" in said


def test_nothing_to_compare_is_a_usage_error(cli: Cli) -> None:
    made = cli("compare")
    assert made.code == 2
    assert "expected at least one, or --before and --after" in " ".join(made.stderr.split())

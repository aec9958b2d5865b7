"""Any path that a file system allows works wherever a command takes one, without quotes."""

import os
import shutil

import numpy as np
import pytest
import yaml
from conftest import TINY, results_of, write_pair
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from segtrain.cli.paths import KEYS, WHOLE_KEYS, with_literal_paths
from segtrain.configuration.folder import conf_dir

ODD = """it's "odd" (v2), [a]={b} #größe $x %s"""
NAMES = [
    ODD, "a b", "a,b", "a=b", "[a]", "{a}", "it's", "'", "a\\b", "a\\", "a\\'b", "#a", "$HOME",
    "1e3", "true", "2024-01-01", "~a", "a:b", "*", "a\nb", "日本", "choice(a,b)", "-a", "a'", '"a',
    "@", "!",
]  # fmt: skip


def value_of(override: str):
    """The value as Hydra hands it on."""
    parsed = OverridesParser.create().parse_override(override)
    assert not parsed.is_sweep_override()
    return OmegaConf.create({"value": parsed.value()}).value


@pytest.mark.parametrize("is_sweep", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_any_name_is_read_as_it_is(name, is_sweep):
    os.mkdir(name)
    for key in ("run", "dataset.source.root", "+architecture.backbone.weights"):
        (override,) = with_literal_paths([f"{key}={name}"], is_sweep)
        assert value_of(override) == name


@pytest.mark.parametrize("name", [name for name in NAMES if name != "[a]"])
def test_names_of_what_is_not_there_yet(name):
    assert value_of(with_literal_paths([f"output={name}"], False)[0]) == name


@pytest.mark.parametrize(
    "file", sorted(conf_dir().rglob("*.yaml")), ids=lambda file: str(file.relative_to(conf_dir()))
)
def test_only_keys_of_texts_take_paths(file):
    """A number is one, whatever its key is called."""
    group = file.parent.relative_to(conf_dir()).as_posix().replace("/", ".").removeprefix(".")
    whole = file.parent == conf_dir() or "_global_" in file.read_text()[:100]

    def check(node, key):
        for name, value in node.items():
            inner = f"{key}.{name}" if key else str(name)
            if isinstance(value, dict):
                check(value, inner)
            elif inner.rpartition(".")[2] in KEYS or inner in WHOLE_KEYS:
                assert value is None or isinstance(value, str | list), inner

    if file.name != "published.yaml":  # is no configuration
        check(yaml.safe_load(file.read_text()) or {}, "" if whole else group)


def test_what_looks_like_a_reference_is_a_name_where_it_exists():
    os.mkdir("a${b}")
    assert value_of(with_literal_paths(["run=a${b}"], False)[0]) == "a${b}"
    os.environ["SOME_FOLDER"] = "elsewhere"
    (override,) = with_literal_paths(["run=${oc.env:SOME_FOLDER}/a b"], False)
    assert value_of(override) == "elsewhere/a b"


def test_several_paths_and_the_home_folder():
    assert value_of(with_literal_paths(["input=[a b,it's]"], False)[0]) == ["a b", "it's"]
    assert value_of(with_literal_paths(["run=~/a b"], False)[0]) == os.path.expanduser("~/a b")
    assert value_of(with_literal_paths(["run='a b'"], False)[0]) == "a b"
    os.mkdir("a,b")
    (override,) = with_literal_paths(["input=[c, a,b, d,a,b/e]"], False)
    assert value_of(override) == ["c", "a,b", "d", "a,b/e"]
    (override,) = with_literal_paths(["dataset.source.annotations={train: a, val: b}"], False)
    assert value_of(override) == {"train": "a", "val": "b"}
    assert with_literal_paths(["run=null", "optimizer.lr=1", "-m"], False) == [
        "run=null", "optimizer.lr=1", "-m"
    ]  # fmt: skip
    assert with_literal_paths(["weights=choice(a,b)", "run=a b,c"], True) == [
        "weights=choice(a,b)", "run='a b','c'"
    ]  # fmt: skip


@pytest.mark.filterwarnings("ignore")
def test_every_command_in_an_odd_folder(tmp_path, monkeypatch, segtrain):
    """Data, runs, an experiment's file, inputs and outputs all lie there."""
    place = tmp_path / ODD
    place.mkdir()
    monkeypatch.setenv("SEGTRAIN_CACHE", str(place / "cache, (1)"))
    rng = np.random.default_rng(0)
    data = place / "own data"
    for index in range(6):
        write_pair(data, f"p {index}, (1)", rng.integers(0, 3, (64, 64), dtype=np.uint8))
    (data / "classes.txt").write_text("sky\nroad\ncar\n")
    recipe = place / "my, recipe (1).yaml"
    shutil.copy(conf_dir() / "experiment/quickstart.yaml", recipe)
    own = ["dataset=folder", f"dataset.source.root={data}", "dataset.num_workers=0"]
    tiny = [o for o in TINY if not o.startswith(("experiment", "dataset.source"))]
    run = place / "run"

    def done(*arguments):
        code, out, err = segtrain(*map(str, arguments))
        assert code == 0, err
        return out

    done(f"experiment={recipe}", *tiny, *own, "trainer.max_steps=1", f"hydra.run.dir={run}")
    assert results_of(run)["experiment"] == "my_recipe_1"
    moved = place / "run moved"
    run.rename(moved)
    done(f"resume={moved}", "trainer.max_steps=2")
    assert results_of(moved)["global_step"] == 2
    done("evaluate", f"run={moved}", f"ensemble=[{moved}]")
    done("evaluate", f"checkpoint={moved}/checkpoints/best.ckpt", *own[:2])
    done("predict", f"run={moved}", f"input={data}/images", f"output={place}/found")
    assert len(list((place / "found").rglob("p 0, (1)*"))) > 0
    done("export", f"run={moved}", "format=safetensors", f"output={place}/exported")
    done("predict", f"model={place}/exported", f"input={data}/images/p 0, (1).jpg",
         f"output={place}/found by model")  # fmt: skip
    done("report", f"run={moved}")
    done("table", "layout=runs", f"runs=[{place}]", f"output={place}/table.md")
    assert "recipe" in (place / "table.md").read_text()
    done("prepare", "dataset=folder", f"dataset.source.root={data}")
    done("-m", f"experiment={recipe}", *tiny, *own, "trainer.max_steps=1", "seed=1,2",
         f"weights={moved}/checkpoints/last.ckpt", f"hydra.sweep.dir={place}/sweep")  # fmt: skip
    assert len(list((place / "sweep").glob("*/results.json"))) == 2
    shutil.rmtree(place / "sweep" / "1")
    done("sweep", f"resume={place}/sweep", "trust_code=true")
    assert len(list((place / "sweep").glob("*/results.json"))) == 2


def test_a_command_to_go_on_with_can_be_typed_as_it_is_printed(segtrain, tmp_path):
    run = tmp_path / "a run (1)"
    arguments = [*TINY, "trainer.max_steps=1", f"hydra.run.dir={run}"]
    assert segtrain(*arguments)[0] == 0
    _, out, _ = segtrain(f"resume={run}")
    assert f"segtrain 'resume={run}'" in out

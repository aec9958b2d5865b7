"""Every command and code block of README.md and docs/ runs as it stands there, or composes."""

import ast
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import TINY, architectures, composed
from documented import (
    NEEDS,
    PAGES,
    ROOT,
    blocks,
    commands,
    compose_line,
    full_keys,
    tiny,
)
from PIL import Image
from predicting import COMMAND, picture, write_video

from segtrain.cli.main import COMMANDS, split_command
from segtrain.cli.tensorboard import find_folder

OWN_PAGES = [page for page in PAGES if page.name.startswith("own-")]


def folder_of(placeholder: re.Match) -> str:
    """The newest folder that `<date_time>` may stand for."""
    found = sorted(Path().glob(f"{placeholder[1]}*/"))
    return str(found[-1]) if found else f"{placeholder[1]}1"


def filled(text: str) -> str:
    return re.sub(r"([\w./-]*)<date_time>", folder_of, text)


@pytest.fixture(scope="session")
def quickstart(tmp_path_factory):
    """A quickstart of a few steps, in the folder where readers have theirs."""
    from segtrain.cli.main import main

    folder = tmp_path_factory.mktemp("quickstart") / "run"
    assert main([*TINY, f"hydra.run.dir={folder}"]) == 0
    return folder


def write_pairs(images: str, masks: str, names: list[str], ending: str, step: int) -> None:
    """Pictures, and masks of the values 0, `step` and twice that."""
    Path(masks).mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(names):
        picture(f"{images}/{name}.jpg", seed=seed)
        classes = np.random.default_rng(seed).integers(0, 3, (48, 64), dtype=np.uint8)
        Image.fromarray(classes * step).save(f"{masks}/{name}{ending}.png")


@pytest.fixture
def readers_folder(quickstart, tmp_path, monkeypatch):
    """What a reader has: the quickstart's run, photos, a video and two data sets."""
    monkeypatch.syspath_prepend(str(tmp_path))  # as python -m does
    shutil.copytree(quickstart, "outputs/quickstart/1")
    picture("docs/images/scene.jpg")
    picture("photos/a.jpg")
    picture("photos/b.png", seed=3)
    write_video("drive.mp4", count=2)
    write_pairs("data/mine/images", "data/mine/masks", [f"p{n}" for n in range(10)], "", 1)
    Path("data/mine/classes.txt").write_text("sky\nroad\ncar\n")
    for split, count in (("train", 6), ("val", 2)):
        folder = f"data/leaves/{split}"
        write_pairs(folder, folder, [f"p{n}" for n in range(count)], "_mask", 100)
    yield tmp_path
    for name in [name for name in sys.modules if name.split(".")[0] == "mine"]:
        del sys.modules[name]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_blocks_of_a_page(page, segtrain, readers_folder, monkeypatch):
    for block in blocks(page):
        assert block.needs <= NEEDS
        assert block.language, f"{page}: a block without a language"
        if block.title:
            Path(block.title).parent.mkdir(parents=True, exist_ok=True)
            Path(block.title).write_text(block.code)
        if block.language == "bash":
            for line in commands(block.code):
                run_line(line, bool(block.needs), segtrain, monkeypatch)
        elif block.language == "python" and not block.title:
            code = filled(block.code)
            compile(code, str(page), "exec")
            if not block.needs:
                run_python(code)
        elif block.language == "yaml":
            yaml.safe_load(block.code)


def run_line(line, needs_more: bool, segtrain, monkeypatch) -> None:
    arguments = [filled(argument) for argument in line.arguments]
    composed_jobs = compose_line(arguments)
    if needs_more:
        return
    assert composed_jobs <= 4, f"too long for a test, mark it: {arguments}"
    command, overrides = full_keys(arguments)
    for name, value in line.environment.items():
        monkeypatch.setenv(name, value)
    if command == "tensorboard":
        given = dict(override.partition("=")[::2] for override in overrides)
        assert find_folder(given.get("run", "outputs")).is_dir()
        return
    added = [] if "--cfg" in overrides else tiny(command, overrides)
    code, _, err = segtrain(command, *overrides, *added)
    assert code == 0, (arguments, err)


def run_python(code: str) -> None:
    names: dict = {}
    exec(code, names)
    if "several" in names:
        assert names["prediction"].probabilities.shape[1:] == (48, 64)
        assert len(names["several"]) == 2
        assert np.array_equal(names["several"][0].labels, names["prediction"].labels)
    if "labels" in names:
        assert names["labels"].shape == (48, 64)


def test_every_command_is_shown():
    shown = {split_command(list(line.arguments))[0] for page in PAGES for block in blocks(page)
             if block.language == "bash" for line in commands(block.code)}  # fmt: skip
    assert shown == set(COMMANDS)


def test_the_classic_tutorial_is_shown():
    lines = [line.arguments for block in blocks(ROOT / "docs" / "predict.md")
             if block.language == "bash" for line in commands(block.code)]  # fmt: skip
    assert COMMAND in lines


def test_every_semantic_architecture_is_in_the_table_of_exports():
    text = (ROOT / "docs" / "export.md").read_text()
    for name in architectures("semantic") + architectures("mask_classification"):
        assert text.count(f"| `{name}` |") == 2, name


@pytest.mark.parametrize("page", OWN_PAGES, ids=lambda page: page.name)
def test_own_parts_take_fewer_than_forty_lines(page):
    files = [block for block in blocks(page) if block.title]
    assert {block.language for block in files} == {"python", "yaml"}
    for block in files:
        assert len(block.code.splitlines()) < 40, block.title


def test_names_in_running_text_exist():
    """Experiments, choices of groups and keys that the text names beside the blocks."""
    groups = ("dataset", "architecture", "loss", "optimizer", "inference", "experiment", "callback")
    for page in PAGES:
        text = re.sub(r"```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
        for group, name in re.findall(r"`(\w+)=([a-z0-9_]+)`", text):
            if group in groups:
                composed(f"{group}={name}")


def templates() -> list[str]:
    """Every constant text of the package, parts of one message joined."""
    found = []
    for file in sorted((ROOT / "segtrain").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            found.append(constant_parts(node))
    return [text for text in found if text]


def constant_parts(node: ast.AST) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(constant_parts(part) or "<>" for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return constant_parts(node.left) + constant_parts(node.right)
    return ""


def test_messages_in_troubleshooting_are_those_of_the_code():
    text = (ROOT / "docs" / "troubleshooting.md").read_text()
    messages = re.findall(r"^\| `(.+?)` \|", text, re.MULTILINE)
    assert len(messages) > 60
    known = templates()
    for message in messages:
        parts = [re.escape(part.strip()) for part in re.split(r"<[^>]*>", message)]
        pattern = re.compile(".*?".join(parts))
        assert any(pattern.search(template) for template in known), message

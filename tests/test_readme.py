"""README's examples of predictions run as they stand there."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from predicting import COMMAND, picture, write_run, write_video

NETWORK = "<!-- needs the network -->\n"
README = (Path(__file__).parents[1] / "README.md").read_text()
SECTION = README.partition("## Predict\n")[2].partition("\n## ")[0]


def blocks(language: str, network: bool = False) -> list[str]:
    """The section's code of a language; with or without what has to be fetched first."""
    fence = "`" * 3
    found = re.findall(
        f"({re.escape(NETWORK)})?{fence}{language}\n(.*?){fence}", SECTION, re.DOTALL
    )
    return [code for mark, code in found if bool(mark) == network]


def commands(code: str) -> list[list[str]]:
    lines = code.replace("\\\n", " ").splitlines()
    return [shlex.split(line.replace("<date_time>", "1"), comments=True)[1:] for line in lines]


@pytest.fixture
def readers_folder(tmp_path, monkeypatch):
    """What a reader has: the quickstart's run, photos and a video."""
    write_run(tmp_path / "outputs" / "quickstart" / "1")
    picture("photos/a.jpg")
    picture("photos/b.png", seed=3)
    write_video("drive.mp4", count=2)


def test_commands(segtrain, readers_folder):
    found = [command for code in blocks("bash") for command in commands(code)]
    assert len(found) >= 3
    for command in found:
        code, _, err = segtrain(*command)
        assert code == 0, (command, err)
    assert len(list(Path("labels").iterdir())) == 6


def test_python(readers_folder):
    found = blocks("python")
    assert len(found) == 2
    for code in found:
        names: dict = {}
        exec(code.replace("<date_time>", "1"), names)
        assert names["segtrain"].__name__ == "segtrain"
        if "prediction" in names:
            assert names["prediction"].probabilities.shape[1:] == (48, 64)
            assert len(names["several"]) == 2
            assert np.array_equal(names["several"][0].labels, names["prediction"].labels)


def test_what_needs_the_network_is_tested_elsewhere(segtrain, readers_folder):
    found = [command for code in blocks("bash", network=True) for command in commands(code)]
    assert COMMAND in found
    for command in found:
        assert command[0] == "predict"
        assert command[1].startswith("weights=torchvision/")

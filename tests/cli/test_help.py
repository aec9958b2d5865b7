"""`--help` of all and of each command."""

import re
import signal
import subprocess
import sys

import pytest
import yaml
from documented import WITHOUT_CONFIG

from segtrain.cli.help import EXAMPLES, LEFT, OPTIONS, WIDTH, command_help
from segtrain.cli.main import COMMANDS, SHORT, split_command
from segtrain.cli.shorthand import expand
from segtrain.configuration import comments
from segtrain.configuration.aliases import ALIASES
from segtrain.configuration.folder import conf_dir, options
from segtrain.prepare import recognition


@pytest.mark.parametrize("command", COMMANDS)
def test_every_key_group_and_short_form_of_a_command_is_there(command):
    text = command_help(command)
    assert max(map(len, text.splitlines())) <= WIDTH
    words = text.replace(",", " ").split()
    file = conf_dir() / f"{command}.yaml"
    if file.is_file():
        content = yaml.safe_load(file.read_text())
        groups = {name for entry in content["defaults"] if isinstance(entry, dict)
                  for name in entry if "hydra" not in name}  # fmt: skip
        for key in content:
            if key not in ("defaults", "hydra"):
                assert re.search(rf"\n  {key}[.=]", text), key
        for group in groups - {"experiment"}:
            assert f"\n  {group}=" in text
            assert set(options(group)) <= set(words)
    else:
        assert OPTIONS[command]
        assert all(f"\n  {key}=" in text for key in OPTIONS[command])
    for alias, keys in ALIASES.items():
        shown = f"\n  {alias}={'':<{LEFT - len(alias)}}{keys.get(command)}"
        assert (shown in text) == (command in keys)


def test_keys_come_with_defaults_and_meanings():
    lines = command_help("predict").splitlines()
    assert "  batch_size=1                   pictures that a process looks at at a time; those of equal size go" in lines  # noqa: E501  fmt: skip
    assert "                                 through the network together" in lines


@pytest.mark.parametrize("command", sorted(WITHOUT_CONFIG))
def test_options_of_commands_without_configuration(command):
    assert OPTIONS[command].keys() == WITHOUT_CONFIG[command]


@pytest.mark.parametrize("command", COMMANDS)
def test_examples_can_be_typed(command, monkeypatch):
    """Each key is one of the command, or of a group that it has."""
    found = recognition.Recognised(["dataset=folder"], "a folder")
    monkeypatch.setattr(recognition, "recognise", lambda *given: found)
    monkeypatch.setattr("segtrain.named_runs.find_run", lambda given, unfinished=False: given)
    assert len(EXAMPLES[command]) == 2
    file = conf_dir() / f"{command if command not in OPTIONS else 'train'}.yaml"
    known = {key.name for key in comments.keys(file, "")} | comments.choices(file).keys()
    known |= OPTIONS.get(command, {}).keys() | {"hydra"}
    if command in ("plan", "reproduce"):  # hand others on
        known |= comments.choices(conf_dir() / "train.yaml").keys()
    for example in EXAMPLES[command]:
        typed = [argument.strip("'") for argument in example.split()]
        for override in expand(command, typed):
            key = override.partition("=")[0].rpartition(":")[2]
            assert {key, key.partition(".")[0]} & known, override


@pytest.mark.parametrize(
    "arguments", [["help", "predict"], ["predict", "-h"], ["predict", "run=x", "--help"]]
)
def test_ways_to_ask(segtrain, arguments):
    assert segtrain(*arguments) == (0, f"{command_help('predict')}\n", "")


def test_help_of_all(segtrain):
    code, out, _ = segtrain("--help")
    assert (code, segtrain("help")[1]) == (0, out)
    for alias, keys in ALIASES.items():
        assert f"{alias}={'|'.join(dict.fromkeys(keys.values()))}" in out
    for short, command in SHORT.items():
        assert f"{short} for {command}" in out
        assert split_command([short, "run=x"]) == (command, ["run=x"])
        assert segtrain("help", short)[1] == f"{command_help(command)}\n"


def test_help_of_an_unknown_command(segtrain):
    code, _, err = segtrain("help", "predct")
    assert code == 2
    assert "did you mean 'predict'" in err


def test_nothing_heavy_is_imported():
    code = "import sys; from segtrain.cli.main import main; main(['train', '--help']); " \
           "print({'torch', 'hydra', 'cv2', 'numpy', 'rich'} & set(sys.modules))"  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


@pytest.mark.parametrize("arguments", ["--help", "predict --help"])
def test_a_reader_that_leaves_is_no_error(arguments):
    """As `head` does."""
    words = [sys.executable, "-m", "segtrain", *arguments.split()]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 128 + signal.SIGPIPE

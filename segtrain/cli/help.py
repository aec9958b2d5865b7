"""`segtrain <command> --help`: keys, groups, short forms and examples of a command.

Made from the comments in `conf/`, without composing anything.
"""

import re
import textwrap
from collections.abc import Iterator

from segtrain.cli.main import COMMANDS
from segtrain.configuration import comments
from segtrain.configuration.aliases import ALIASES, MEANINGS
from segtrain.configuration.folder import conf_dir, options

WIDTH = 100
LEFT = 30  # columns of keys with their defaults, before what they mean
# Of commands that are no configuration: what they read, and what it means.
OPTIONS = {
    "chain": {
        "experiment": "an experiment, which is trained after those that it starts from; or",
        "resume": "folder of a chain, to go on with",
        "<experiment>:<key>": "a key of `segtrain train` for one of them; without it, for all",
    },
    "sweep": {
        "resume": "folder of a sweep: what is left or failed is run; with other values of keys; or",
        "show": "folder of a sweep: prints where it stands",
    },
    "tensorboard": {
        "run": "folder of a run or sweep, or a run's name; latest: what wrote last; null: outputs",
        "port": "6006; 0: any that is free",
        "host": "localhost",
    },
    "zoo": {
        "name": "pattern of names, such as *resnet50*",
        "zoo": "one of the zoos alone",
        "system": "such as PSPNet",
        "dataset": "such as voc",
        "output": "also write these files: zoo.md, zoo.json; one or a list",
        "check": "names to evaluate: published, measured, difference; with keys of evaluate",
        "resume": "folder of checks, to go on with",
        "folder": "where checks go",
    },
}
EXAMPLES = {
    "train": ("data=photos/ model=deeplabv3plus epochs=30 size=512 name=leaves",
              "experiment=deeplabv3_voc batch=8 devices=4"),
    "chain": ("experiment=fcn8s_voc fcn32s_voc:steps=100", "resume=outputs/fcn8s_voc/<date_time>"),
    "sweep": ("resume=outputs/multirun/leaves/<date_time>",
              "show=outputs/multirun/leaves/<date_time>"),
    "evaluate": ("run=latest split=val", "run=leaves data=other/ inference=multiscale"),
    "predict": ("run=latest source=photos/ output=labels",
                "weights=torchvision/deeplabv3_resnet101 source=dog.jpg 'classes=[dog]'"),
    "demo": ("run=latest", "weights=torchvision/deeplabv3_resnet101 port=8000"),
    "export": ("run=latest format=onnx", "run=leaves format=torch_export 'size=[512,512]'"),
    "report": ("run=latest", "run=leaves examples=8"),
    "prepare": ("data=photos/", "dataset=voc preview=true"),
    "table": ("layout=runs sort=-miou", "output=[table.md,table.html]"),
    "zoo": ("dataset=voc", "check=torchvision/*"),
    "plan": ("'experiments=[deeplabv3_voc,*_shapes]' devices=4", "seeds=[1,2,3] gpus=[1,8]"),
    "reproduce": ("'experiments=[*_shapes]' seeds=[1,2,3]",
                  "resume=outputs/reproduce/<date_time>"),
    "benchmark": ("model=pspnet backbone=resnet50 batch=8", "measure=loader data=voc workers=4"),
    "tensorboard": ("run=latest", "port=0"),
}  # fmt: skip


def command_help(command: str) -> str:
    """The help of one command, at most `WIDTH` columns wide."""
    file = conf_dir() / f"{command}.yaml"
    more = " [-m]" if file.is_file() else ""
    lines = [f"usage: segtrain {command} [key=value ...]{more}", ""]
    if file.is_file():
        told = re.sub(r"^`segtrain .*?`: ", "", " ".join(comments.header(file)))
        lines += textwrap.wrap(told[:1].upper() + told[1:], WIDTH)
        lines += ["", "keys, with their defaults:"]
        lines += _rows((f"{key.name}={key.value}", key.comment) for key in comments.keys(file, ""))
        lines += _groups(comments.choices(file))
    else:
        told = COMMANDS[command]
        lines += [*textwrap.wrap(told[:1].upper() + told[1:], WIDTH), "", "keys:"]
        lines += _rows((f"{key}=", text) for key, text in OPTIONS.get(command, {}).items())
    forms = {alias: keys[command] for alias, keys in ALIASES.items() if command in keys}
    if forms:
        lines += ["", "short forms:"]
        lines += _rows(
            (f"{alias}=", key + (f": {MEANINGS[alias]}" if alias in MEANINGS else ""))
            for alias, key in forms.items()
        )
    lines += ["", "examples:"]
    lines += [f"  segtrain {command} {example}" for example in EXAMPLES.get(command, ())]
    return "\n".join(lines)


def _groups(chosen: dict[str, str]) -> list[str]:
    """The options of groups, and of those inside them."""
    if not chosen:
        return []
    lines = ["", "groups, with what is chosen; --cfg job shows the keys inside, group.key=value:"]
    for group, option in chosen.items():
        if group == "experiment":
            lines += _rows([(f"{group}={option}", "`segtrain --help` lists them")])
            continue
        lines += _rows([(f"{group}={option}", ", ".join(options(group)))])
        for folder in sorted((conf_dir() / group).glob("*/")):
            inner = f"{group}/{folder.name}"
            lines += _rows([(f"{inner}=", ", ".join(options(inner)))])
    return lines


def _rows(pairs: Iterator[tuple[str, str]] | list[tuple[str, str]]) -> list[str]:
    """Two columns, the second wrapped; below a first that is too wide for its own."""
    lines = []
    for left, right in pairs:
        wrapped = textwrap.wrap(right, WIDTH - LEFT - 3, break_on_hyphens=False) or [""]
        if len(left) > LEFT:
            lines += textwrap.wrap(left, WIDTH, initial_indent="  ", subsequent_indent="    ")
        else:
            lines.append(f"  {left:<{LEFT}} {wrapped.pop(0)}".rstrip())
        lines += [f"{'':<{LEFT + 3}}{line}" for line in wrapped if line]
    return lines

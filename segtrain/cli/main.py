"""`segtrain [COMMAND] [overrides]`: finds the command, and turns every user error into exit code 2.

Nothing heavy is imported here, so that --help answers at once.
"""

import difflib
import os
import signal
import sys
import time
import traceback

from segtrain.configuration.folder import options
from segtrain.errors import RunStopped, UserError

# A thread that waits for the others must soon sleep, not spin on the core that a loader worker or
# another process needs: two trainings on two cores ran four times as fast. Read when PyTorch loads.
os.environ.setdefault("GOMP_SPINCOUNT", "20000")

COMMANDS = {
    "train": "train, then evaluate the best checkpoint (the default command)",
    "chain": "train an experiment after those it starts from; resume=<folder> goes on",
    "sweep": "resume=<folder of a sweep (-m)> goes on with what is left or failed; show=<folder>",
    "evaluate": "evaluate run=<run folder>, checkpoint=<file> or weights=<zoo>/<name> on any split",
    "predict": "label maps, overlays, cut-outs of input=<pictures, video>; run=<run folder>",
    "demo": "a page on this machine to try run=<run folder> in a browser",
    "export": "run=<run folder> format=onnx|torch_export|safetensors|hub; compares the numbers",
    "report": "report.html of run=<run folder> anew: scores, curves, confusion, images",
    "prepare": "download, verify dataset=<name>; preview=true; from=<tool's export> to=<folder>",
    "table": "results beside the papers', or layout=runs of any; output=table.md|.csv|.html",
    "zoo": "published networks; check=<names> evaluates: published, measured, difference",
    "plan": "what the whole table, or experiments=[...], costs in time, data and disk",
    "reproduce": "runs that plan, one training after the other; resume=<folder> goes on",
    "benchmark": "measure=<what>: speed, memory and FLOPs of networks, loaders, metrics",
    "tensorboard": "opens TensorBoard on outputs, or run=<folder of a run or sweep>",
}
SHORT = {"val": "evaluate"}
GROUPS = (
    "dataset", "dataset/mix", "dataset/transform/colours", "dataset/transform/scale_jitter",
    "architecture", "loss", "optimizer", "inference", "inference/window", "inference/crf",
    "trainer", "callback", "logger", "sweep", "measure",
)  # fmt: skip
IN_HELP_OF_COMMANDS = (
    "dataset/mix", "dataset/transform/colours", "dataset/transform/scale_jitter",
    "inference/window", "inference/crf", "measure",
)  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: command line without the program's name; sys.argv's by default.

    Returns:
        The exit code: 0, 1 (a run failed), 2 (the user can mend it), 128 + n (signal n).
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["--version"]:
        from segtrain import __version__

        print(__version__)
        return 0
    try:
        if arguments[:1] == ["help"]:
            arguments = [*arguments[1:2], "--help"]
        if any(argument in ("-h", "--help") for argument in arguments):
            print(help_of(arguments[0]), flush=True)
            return 0
        for argument in arguments:
            if not argument.strip() or argument.startswith("="):
                raise UserError(f"the argument {argument!r} has no key: expected key=value; is a "
                                "variable of the shell empty?")  # fmt: skip
        command, overrides = split_command(arguments)
        if int(os.environ.get("RANK", "0")) == 0:  # the others get what that one composes
            from segtrain.cli import shorthand

            overrides = shorthand.expand(command, overrides)
        if command == "zoo":  # its list answers at once
            from segtrain.cli import zoo

            return zoo.run(overrides)
        from segtrain.cli import app

        return app.run(command, overrides)
    except BaseException as error:
        return report(error)


def help_of(first: str) -> str:
    """The help of the command that the first argument names; of all where it is another's.

    Raises:
        UserError: there is no such command.
    """
    if "=" in first or first[:1] in ("-", "+", "~", ""):
        return help_text()
    from segtrain.cli.help import command_help

    return command_help(split_command([first])[0])


def split_command(arguments: list[str]) -> tuple[str, list[str]]:
    """Command and overrides; `train` where none is named."""
    if not arguments or "=" in arguments[0] or arguments[0][0] in "-+~":
        return "train", arguments
    name = SHORT.get(arguments[0], arguments[0])
    if name not in COMMANDS:
        near = difflib.get_close_matches(arguments[0], COMMANDS, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"commands: {', '.join(COMMANDS)}"
        raise UserError(f"unknown command '{arguments[0]}'; {hint}")
    return name, arguments[1:]


def report(error: BaseException) -> int:
    """Prints what the user needs to know of an error and returns the exit code."""
    if isinstance(error, SystemExit) and isinstance(error.__context__, KeyboardInterrupt):
        error = error.__context__  # Lightning's exit, before the first step
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1
    from segtrain.cli.explain import explain, lost_process
    from segtrain.text import visible

    # Where all processes fail alike, rank zero's message is the only one: the others are ended
    # before theirs. Where one fails, its exit comes before those that are its consequences.
    if lost_process(error):
        time.sleep(1)
    elif int(os.environ.get("RANK", "0")) > 0:
        time.sleep(3)
    explained = explain(error)
    if explained is None and isinstance(error, BrokenPipeError):  # as `segtrain ... | head` has it
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # for what is left to be written
        return 128 + signal.SIGPIPE
    if os.environ.get("SEGTRAIN_TRACEBACK") or explained is None:
        traceback.print_exception(error)
        return 1
    message, code = explained
    prefix = "" if isinstance(error, RunStopped) else "error: "
    if code >= 128 and int(os.environ.get("RANK", "0")) > 0:
        return code  # a signal, which all processes have taken together; rank zero says so
    print(visible(f"segtrain: {prefix}{message}"), file=sys.stderr, flush=True)
    return code


def experiments() -> list[str]:
    """The experiments as a shell writes several words: `fcn8s_{camvid,voc}`."""
    by_start: dict[str, list[str]] = {}
    for name in options("experiment"):
        starts = [f"{a}_" for a in options("architecture") if name.startswith(f"{a}_")]
        start = max(starts, key=len, default="")
        by_start.setdefault(start or name, []).append(name.removeprefix(start) if start else "")
    return [
        start + (ends[0] if len(ends) == 1 else "{" + ",".join(ends) + "}")
        for start, ends in by_start.items()
    ]


def short_forms() -> list[str]:
    """Every short form of a key with the full keys that it stands for."""
    from segtrain.configuration.aliases import ALIASES

    return [f"{alias}={'|'.join(dict.fromkeys(keys.values()))}" for alias, keys in ALIASES.items()]


def help_text() -> str:
    """Commands, groups and experiments on one screen."""
    import textwrap

    lines = ["usage: segtrain [COMMAND] [key=value ...] [-m]", "", "commands:"]
    lines += [f"  {name:<11} {text}" for name, text in COMMANDS.items()]
    lines += ["", "config groups (group=choice), every key inside is group.key=value:"]
    for group in GROUPS:
        if group in IN_HELP_OF_COMMANDS:
            continue
        lines += textwrap.wrap(", ".join(options(group)), 118, initial_indent=f"  {group:<21} ",
                               subsequent_indent=24 * " ")  # fmt: skip
    lines += ["", "experiments (experiment=NAME, {a,b} for one of them):"]
    lines += textwrap.wrap(" ".join(experiments()), 118, initial_indent="  ",
                           subsequent_indent="  ")  # fmt: skip
    shorts = ", ".join(f"{short} for {command}" for short, command in SHORT.items())
    lines += ["", f"short forms, printed as what they stand for; {shorts}; run=latest or a name:"]
    lines += textwrap.wrap(", ".join(short_forms()), 118, initial_indent="  ",
                           subsequent_indent="  ")  # fmt: skip
    lines += [
        "",
        "examples:",
        "  segtrain                                 the quickstart: embedded data, CPU, minutes",
        "  segtrain data=photos/ model=deeplabv3plus epochs=30 size=512 batch=8 name=leaves",
        "  segtrain predict run=latest source=photos output=labels",
        "  segtrain -m experiment=quickstart lr=0.01,0.02",
        "  segtrain <command> --help                its keys with their defaults, groups, examples",
        "  segtrain --cfg job                       print the composed configuration",
        "Data: below $SEGTRAIN_DATA (default: data/). SEGTRAIN_TRACEBACK=1: tracebacks of errors.",
    ]
    return "\n".join(lines)

"""Where conf/ is, and what can be chosen there."""

from pathlib import Path


def conf_dir() -> Path:
    """`conf/`: inside the package in a wheel, beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def options(group: str) -> list[str]:
    """The choices of one configuration group."""
    return sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))

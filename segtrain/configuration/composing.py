"""Configurations composed from conf/ by Python code, also inside other Hydra programs."""

from collections.abc import Sequence

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from segtrain.configuration.checking import checked
from segtrain.configuration.folder import conf_dir
from segtrain.configuration.messages import explain_config
from segtrain.errors import UserError
from segtrain.values import Node


def compose_config(overrides: Sequence[str]) -> dict:
    """What `segtrain train` would get from these overrides; works inside other Hydra programs.

    Raises:
        UserError: there is no such choice or key, or a value cannot be.
    """
    return compose_choices(overrides)[0]


def compose_choices(overrides: Sequence[str]) -> tuple[dict, dict[str, str | None]]:
    """As `compose_config`, and the option of each group that was chosen.

    Raises:
        UserError: there is no such choice or key.
    """
    running = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            config = compose("train", list(overrides), return_hydra_config=True)
        with open_dict(config):
            choices = dict(config.pop("hydra").runtime.choices)
        return checked("train", OmegaConf.to_container(config, resolve=True)), choices
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(explain_config(error)) from None
    finally:
        GlobalHydra.instance().hydra = running


def changed(node: Node, overrides: Sequence[str], group: str) -> dict:
    """A configuration node with other values, `<group>.<key>=<value>` each.

    Raises:
        UserError: an override names no key of the node.
    """
    config = OmegaConf.create({group: node})
    OmegaConf.set_struct(config, True)
    try:
        for override in OverridesParser.create().parse_overrides(list(overrides)):
            OmegaConf.update(config, override.key_or_group, override.value(), merge=False)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise UserError(f"{' '.join(overrides)}: {explain_config(error)}") from None
    return OmegaConf.to_container(config, resolve=True)[group]

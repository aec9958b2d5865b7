"""Whether a backbone's ImageNet weights can be had here."""

import os
import threading
import urllib.error
import urllib.request

import timm
from huggingface_hub import try_to_load_from_cache

from segtrain.architecture.imagenet import FLAVOURS, flavour_file
from segtrain.zoo.hub import hub

PATIENCE = 4.0  # seconds after which a server counts as out of reach


def can_fetch(name: str) -> bool:
    """Whether a backbone's ImageNet weights are on the disk, or their server answers."""
    if name in FLAVOURS:
        return flavour_file(name).is_file() or answers(FLAVOURS[name].url)
    place = timm.get_pretrained_cfg(name)
    if place is None:
        return False
    for file in ("model.safetensors", "pytorch_model.bin"):
        if place.hf_hub_id and isinstance(try_to_load_from_cache(place.hf_hub_id, file), str):
            return True
    is_offline = os.environ.get("HF_HUB_OFFLINE", "0").lower() in ("1", "true", "yes", "on")
    return not is_offline and answers(hub())


def answers(address: str) -> bool:
    """Whether a server can be reached; whatever it answers, and however long its name takes."""
    answered = threading.Event()

    def ask() -> None:
        try:
            with urllib.request.urlopen(address, timeout=PATIENCE):
                answered.set()
        except urllib.error.HTTPError:  # it speaks
            answered.set()
        except (OSError, ValueError):
            pass

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(PATIENCE)
    return answered.is_set()

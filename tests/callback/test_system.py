"""Figures for the log, where drivers and containers do not tell them."""

import logging
import os

import pytest
import torch

from segtrain.callback.system import SystemFigures

GPU = torch.device("cuda")
FIGURES = {
    "system/host_memory_gib": (os, "sysconf"),
    "system/device_memory_gib": (torch.cuda, "memory_reserved"),
    "system/device_memory_peak_gib": (torch.cuda, "max_memory_allocated"),
    "system/device_utilisation": (torch.cuda, "utilization"),
}


class NVMLError(Exception):
    """Of the driver's library: no RuntimeError."""


@pytest.fixture
def gpu(monkeypatch):
    """A stand-in that tells all."""
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 3 * 2**30)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 2 * 2**30)
    monkeypatch.setattr(torch.cuda, "utilization", lambda device: 80)


@pytest.mark.usefixtures("gpu")
def test_figures_of_a_gpu():
    found = SystemFigures().read(GPU)
    assert found.keys() == FIGURES.keys()
    assert found["system/host_memory_gib"] > 0.01
    assert found["system/device_memory_gib"] == 3
    assert found["system/device_memory_peak_gib"] == 2
    assert found["system/device_utilisation"] == 0.8


def test_a_cpu_has_host_memory_only():
    assert SystemFigures().read(torch.device("cpu")).keys() == {"system/host_memory_gib"}


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize("error", [NVMLError("Not Supported"), ImportError("no pynvml")])
def test_a_figure_that_fails_is_left_out_and_not_asked_for_again(name, error, monkeypatch, caplog):
    asked = []

    def fail(*arguments):
        asked.append(arguments)
        raise error

    monkeypatch.setattr(*FIGURES[name], fail)
    figures = SystemFigures()
    with caplog.at_level(logging.INFO, logger="segtrain"):
        for _ in range(3):
            assert figures.read(GPU).keys() == FIGURES.keys() - {name}
    assert len(asked) == 1
    (record,) = caplog.records  # says so once
    assert name in record.getMessage()
    assert str(error) in record.getMessage()

"""A part of one cell that takes three seconds."""

from stand_ins import slow

from benchmarks.gpu.cell import Cell, Setting


def cells(setting: Setting) -> list[Cell]:
    return [Cell("slow", 1, slow)]

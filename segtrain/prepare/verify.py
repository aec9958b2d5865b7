"""Every file of a data set looked at: counts, pairs, sizes, values, class frequencies."""

import glob
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from torch.utils.data import DataLoader, Dataset

from segtrain.contracts import Listing, Source
from segtrain.dataset.counts import count_labels
from segtrain.dataset.preflight import image_orientation, require_classes
from segtrain.dataset.transforms import SemanticPreset
from segtrain.dataset.workers import one_thread
from segtrain.errors import UserError
from segtrain.label_set import LabelSet
from segtrain.terminal import track

if TYPE_CHECKING:
    from segtrain.dataset.datamodule import SegmentationData


@dataclass
class SplitReport:
    """What was found in one split.

    Args:
        split: its official name.
        expected: images of the complete set, None where none is published or asked for.
        images: images found.
        smallest, largest: (height, width) of the images with the fewest and most pixels.
        counts: (K + 1,) pixels, or instances, per class; last, void pixels, or crowds.
        images_with: (K,) images that show the class.
        turned: EXIF orientations of the images that were turned upright, by name.
        faults: one message each, naming the file.
        notes: what was left out of the annotations though nothing is wrong.
        absent: why an optional split was passed over.
    """

    split: str
    expected: int | None
    counts: np.ndarray
    images_with: np.ndarray
    images: int = 0
    smallest: tuple[int, int] = (0, 0)
    largest: tuple[int, int] = (0, 0)
    turned: dict[str, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    absent: str | None = None


class _Checked(Dataset):
    """Samples -> what is wrong with them, size, EXIF orientation and label counts."""

    def __init__(self, source: Source, labels: LabelSet) -> None:
        self.source = source
        self.labels = labels

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[str | None, tuple[int, int], int, np.ndarray]:
        try:
            image, label = self.source.read(index)
        except Exception as error:  # whatever a damaged file raises is what is looked for
            known = isinstance(error, UserError)
            fault = str(error) if known else f"{self.source.name(index)}: {error!r}"
            return fault, (0, 0), 1, np.zeros(self.labels.num_classes + 1, np.int64)
        orientation = image_orientation(self.source, index)
        return None, image.shape[:2], orientation, count_labels(label, self.labels)


def verify(
    data: "SegmentationData",
    counts: dict[str, int | None],
    optional: list[str],
    num_workers: int,
) -> list[SplitReport]:
    """Checks every sample of the splits named in `counts`.

    Args:
        data: the data set.
        counts: expected images per split; None where any number is right.
        optional: splits that may be absent.
        num_workers: processes that read.

    Returns:
        One report a split. Files that no split lists are faults of the last one.
    """
    reports, listed, patterns, labelled = [], set(), set(), {}
    for split, expected in counts.items():
        report = _empty_report(split, expected, data.labels)
        reports.append(report)
        try:
            source = data.source(split)
        except UserError as error:
            if split in optional:
                report.absent = str(error)
            else:
                report.faults.append(str(error))
            continue
        listing = source.listing()
        listed.update(listing.files)
        patterns.update(listing.patterns)
        check_listing(report, len(source), listing)
        check_samples(report, source, data.labels, num_workers)
        labelled[split] = source.labelled
    check_classes(reports, data, labelled)
    strays = {path for pattern in patterns for path in glob.glob(pattern)} - listed
    reports[-1].faults += [f"{path}: extra file, in no list of the set" for path in sorted(strays)]
    return reports


def check_listing(report: SplitReport, images: int, listing: Listing) -> None:
    """Adds what can be told without reading a sample: the count, and what is listed twice."""
    report.images = images
    if report.expected not in (None, images):
        report.faults.append(
            f"split '{report.split}' has {images} images, expected {report.expected}"
        )
    twice = (item for item in Counter(listing.files).items() if item[1] > 1)
    report.faults += [f"{path}: listed {count} times" for path, count in twice]
    report.faults += listing.faults
    report.notes += listing.notes


def check_classes(
    reports: list[SplitReport], data: "SegmentationData", labelled: dict[str, bool]
) -> None:
    """Adds that a split shows too few classes, where training would refuse it for that."""
    by_split = {report.split: report for report in reports}
    semantic = isinstance(data.transform, SemanticPreset) and not data.labels.overlapping
    for split in dict.fromkeys(data.splits.values()):
        parts = split.split("+")
        if not all(labelled.get(part) for part in parts):
            continue
        found = [by_split[part] for part in parts]
        if not any(report.smallest[0] for report in found):
            continue  # not one sample could be read
        counts = sum(report.counts for report in found)
        images = sum(report.images for report in found)
        try:
            trained_on = split == data.splits["train"]
            require_classes(counts, images, split, data.labels, semantic, trained_on)
        except UserError as error:
            found[-1].faults.append(str(error))


def check_samples(report: SplitReport, source: Source, labels: LabelSet, num_workers: int) -> None:
    """Reads every sample; adds faults, sizes, orientations and label counts."""
    loader = DataLoader(
        _Checked(source, labels),
        batch_size=None,
        num_workers=num_workers,
        worker_init_fn=one_thread,
    )
    sizes = []
    found = track(loader, len(source), report.split)
    for index, (fault, size, orientation, counts) in enumerate(found):
        if fault:
            report.faults.append(fault)
            continue
        if orientation > 1:
            report.turned[source.name(index)] = orientation
        sizes.append(tuple(size))
        counts = np.asarray(counts)
        report.counts += counts
        report.images_with += counts[:-1] > 0
    if sizes:
        report.smallest = min(sizes, key=lambda size: size[0] * size[1])
        report.largest = max(sizes, key=lambda size: size[0] * size[1])


def _empty_report(split: str, expected: int | None, labels: LabelSet) -> SplitReport:
    zeros = np.zeros(labels.num_classes + 1, np.int64)
    return SplitReport(split, expected, zeros, zeros[:-1].copy())

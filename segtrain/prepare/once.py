"""A data set is verified once: again only when one of its files has changed."""

import glob
import logging
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from segtrain.dataset.cache import cached_folder, fingerprint
from segtrain.dataset.preflight import describe_turned, report_left_out
from segtrain.errors import UserError
from segtrain.prepare.summary import print_summary, write_summary
from segtrain.prepare.verify import verify

if TYPE_CHECKING:
    from segtrain.dataset.datamodule import SegmentationData

logger = logging.getLogger("segtrain")


def splits_to_verify(
    data: "SegmentationData", complete: bool
) -> tuple[dict[str, int | None], list[str]]:
    """The splits to verify, with how many images each should have, and which may be absent.

    Those that training and evaluation use are among them, and may not be absent.
    """
    used = [part for split in data.splits.values() for part in split.split("+")]
    if data.preparation is None:
        return dict.fromkeys(used), []
    counts = dict(data.preparation.counts) if complete else dict.fromkeys(data.preparation.counts)
    optional = [split for split in data.preparation.optional if split not in used]
    return dict.fromkeys(used) | counts, optional


def verify_once(
    data: "SegmentationData",
    counts: dict[str, int | None],
    optional: list[str],
    again: bool | None,
    run_dir: Path,
) -> None:
    """Verifies the data set unless the same files were found right before.

    Args:
        data: the data set.
        counts: see `verify`, as for `optional`.
        optional: see there.
        again: whether to look at files that were found right before, too.
        run_dir: gets `verify.json`.

    Raises:
        UserError: there is a fault.
    """

    def build(folder: Path) -> None:
        reports = verify(data, counts, optional, data.num_workers)
        print_summary(reports, data.labels, data.name)
        write_summary(run_dir / "verify.json", reports, data.labels)
        for report in reports:
            report_left_out(report.notes, report.split)
            if report.turned:
                told = describe_turned(report.turned, report.images, report.split)
                logger.info("orientation %s", told)
        logger.info("report      %s", run_dir / "verify.json")
        faults = [fault for report in reports for fault in report.faults]
        if faults:
            shown = "\n".join(f"  {fault}" for fault in faults[:20])
            more = f"\n  ... and {len(faults) - 20} more, see the report" if faults[20:] else ""
            raise UserError(f"{data.name}: {len(faults)} faults\n{shown}{more}")
        logger.info("verified    %s: no fault", data.name)
        write_summary(folder / "verify.json", reports, data.labels)

    if again:
        build(run_dir)
        return
    key = state_of(data, counts, optional)
    if key is None:
        build(run_dir)  # and so names the fault
        return
    looked = []
    cached_folder(f"verified/{data.name}", key, lambda folder: (looked.append(1), build(folder)))
    if not looked:
        logger.info("verified    %s: unchanged since it was verified; verify=true looks at every "
                    "file again", data.name)  # fmt: skip


def is_readable(data: "SegmentationData", split: str) -> bool:
    """Whether a split's lists and files are there, as far as listing them tells."""
    try:
        return len(data.source(split)) > 0
    except UserError:
        return False


def state_of(
    data: "SegmentationData", counts: dict[str, int | None], optional: list[str]
) -> str | None:
    """Changes with every file that verification looks at; None where a needed split is missing."""
    parts = [str(counts), str(data.splits)]
    for split in counts:
        try:
            listing = data.source(split).listing()
        except UserError as error:
            if split not in optional:
                return None
            parts.append(str(error))
            continue
        parts.append(fingerprint(listing))
        parts += [str(sorted(glob.glob(pattern))) for pattern in listing.patterns]
    return sha256("\n".join(parts).encode()).hexdigest()

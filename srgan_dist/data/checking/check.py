"""`srgan-dist check`: reports everything that is wrong with shards in one run, member by member."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from srgan_dist.data.checking.held_out import digest_pixels, read_held_out
from srgan_dist.data.checking.index import Duplicates, ShardIndex, load_index, shard_faults
from srgan_dist.data.checking.inputs import ShardFolder, find_shards
from srgan_dist.data.checking.report import Finding, Summary
from srgan_dist.data.checking.sample import InspectedSample, Remark, kind_remarks, pair_remarks, read_sample_image
from srgan_dist.data.checking.samples import SampleMembers, list_samples, read_samples, vote_scale
from srgan_dist.data.checking.sheet import PairSheet
from srgan_dist.data.checking.third_party import ThirdPartyIndex
from srgan_dist.data.shard_format.index_rows import INDEX_NAME
from srgan_dist.data.shard_format.manifest import MANIFEST_NAME, ShardEntry
from srgan_dist.data.shard_format.tar import member_at, walk_tar
from srgan_dist.errors import UserError


def check_shards(
    paths: Sequence[str | Path],
    *,
    on_finding: Callable[[Finding], None],
    sample: int | None = None,
    scale: int | None = None,
    any_kernel: bool = False,
    contact_sheet: Path | None = None,
    write_index: bool = False,
    created_by: str = "srgan-dist",
    on_progress: Callable[[int, int], None] | None = None,
) -> Summary:
    """Check shards, and on request draw some pairs and write the index of third-party shards.

    Args:
        paths: What to check, see `find_shards`.
        on_finding: Called with each finding.
        sample: Samples of each shard whose pixels are inspected, chosen at random; None inspects all.
        scale: HR pixels per LR pixel, where there is no manifest; None derives it from the first pairs.
        any_kernel: LR was degraded on purpose; see `pairs.compare`.
        contact_sheet: Image file to write, see `PairSheet`; None draws none.
        write_index: Write index.npy and manifest.json beside the shards, unless there are faults.
        created_by: Program and version, for the manifest.
        on_progress: Called after each sample with (MiB done, MiB in all).

    Returns:
        The summary.

    Raises:
        UserError: A path, a number or an option is unusable.
    """
    for name, value in (("--sample", sample), ("--scale", scale)):
        if value is not None and value < 1:
            raise UserError(f"{name} is {value}, allowed are whole numbers of 1 or more")
    folders = find_shards(paths)
    total = sum(shard.stat().st_size for folder in folders for shard in folder.shards if shard.is_file())
    index = ThirdPartyIndex(folders) if write_index else None
    sheet = _sheet(contact_sheet) if contact_sheet else None

    def on_sample(inspected: InspectedSample) -> None:
        for collector in (index, sheet):
            if collector:
                collector.add(inspected)

    checker = Checker(
        on_finding=on_finding,
        sample=sample,
        scale=scale,
        any_kernel=any_kernel,
        on_sample=on_sample,
        on_bytes=lambda done: on_progress(done >> 20, total >> 20) if on_progress else None,
    )
    summary = checker.run(folders)
    if sheet and contact_sheet and sheet.num_seen:
        try:
            sheet.draw().save(contact_sheet)
        except OSError as error:
            raise UserError(
                f"{contact_sheet}: cannot be written ({error.strerror or error}): choose another"
            ) from error
    if index and not summary.num_faults:
        index.write(created_by=created_by)
    return summary


def _sheet(path: Path) -> PairSheet:
    # Reported before the work, not after it.
    if not path.parent.is_dir():
        raise UserError(f"--contact-sheet is {path}, which cannot be written: there is no folder {path.parent}")
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise UserError(f"--contact-sheet is {path}, expected a name ending in .png, .jpg or .webp")
    return PairSheet()


class _Job(NamedTuple):
    shard: Path
    scale: int | None
    encoding: str | None = None
    entry: ShardEntry | None = None
    rows: ShardIndex | None = None


class Checker:
    """Checks shards with one sample in memory at a time, and continues after each fault.

    Args:
        on_finding: Called with each finding.
        sample: Samples of each shard whose pixels are inspected, chosen at random; None inspects all.
        scale: HR pixels per LR pixel, where there is no manifest; None derives it from the first pairs.
        any_kernel: LR was degraded on purpose; see `pairs.compare`.
        on_sample: Called with each sample that can be read.
        on_bytes: Called with the number of bytes checked so far, of all shards.

    Attributes:
        summary: Counts so far.
    """

    def __init__(
        self,
        *,
        on_finding: Callable[[Finding], None],
        sample: int | None = None,
        scale: int | None = None,
        any_kernel: bool = False,
        on_sample: Callable[[InspectedSample], None] | None = None,
        on_bytes: Callable[[int], None] | None = None,
    ) -> None:
        self.summary = Summary()
        self._on_finding, self._on_sample, self._on_bytes = on_finding, on_sample, on_bytes
        self._sample, self._any_kernel, self._scale = sample, any_kernel, scale
        self._shards: list[tuple[Path, Path]] = []  # (folder, shard); Duplicates refer to shards by their place here
        self._images, self._keys = Duplicates(), Duplicates()
        self._notes: Counter[str] = Counter()

    def run(self, folders: Sequence[ShardFolder]) -> Summary:
        """Check folders one after another, and then look for duplicates across all of them.

        An image under two keys is a note only: it is trained on twice as often. An image that is both trained on and
        held out for validation is a fault.

        Args:
            folders: From `find_shards`.

        Returns:
            The summary.
        """
        started = time.perf_counter()
        for folder in folders:
            for job in self._jobs(folder):
                self._check_shard(folder.path, job)
        self._report_duplicates()
        for folder in folders:
            self._report_held_out(folder)
        self.summary.seconds = time.perf_counter() - started
        return self.summary

    def _jobs(self, folder: ShardFolder) -> list[_Job]:
        manifest = folder.manifest
        if manifest is None:
            if folder.problem:
                self._report(folder.path / MANIFEST_NAME, "", None, folder.problem)
            scale = self._scale or vote_scale(folder.shards)
            return [_Job(shard, scale) for shard in folder.shards]
        index = load_index(folder.path, manifest, lambda what: self._report(folder.path / INDEX_NAME, "", None, what))
        entries = {entry.name: (number, entry) for number, entry in enumerate(manifest.shards)}
        jobs = []
        for shard in folder.shards:
            number, entry = entries.get(shard.name, (0, None))
            if entry is None:
                self._report(shard, "", None, f"is not in {MANIFEST_NAME}: it is never read", is_fault=False)
            rows = None if index is None or entry is None else ShardIndex(index, number, scale=manifest.scale)
            jobs.append(_Job(shard, manifest.scale, manifest.encoding, entry, rows))
        return jobs

    def _check_shard(self, folder: Path, job: _Job) -> None:
        self._shards.append((folder, job.shard))
        if job.shard.exists() and not job.shard.is_file():  # opening a pipe would wait for its writer
            self._report(job.shard, "", None, "is no plain file")
            return
        try:
            for what in shard_faults(job.shard, job.entry) if job.entry else ():
                self._report(job.shard, "", None, what)
            with open(job.shard, "rb") as file:
                self._check_samples(file, job)
                size = file.seek(0, os.SEEK_END)
        except OSError as error:
            self._report(job.shard, "", None, f"cannot be read ({error.strerror or error})")
            return
        for kind, count in self._notes.items():
            if count > 1:
                self._on_finding(Finding(job.shard, "", None, f"{count - 1} more such notes: {kind}", False))
        self._notes.clear()
        self.summary.num_shards += 1
        self.summary.num_bytes += size
        self._done(0)

    def _check_samples(self, file: BinaryIO, job: _Job) -> None:
        def report(member: str, offset: int | None, what: str) -> None:
            self._report(job.shard, member, offset, what)

        def note(member: str, offset: int, what: str) -> None:
            self._report(job.shard, member, offset, what, is_fault=False)

        chosen, found = _choose(file, self._sample, seed=len(self._shards)), 0
        for sample in read_samples(walk_tar(file, report), report, note):
            self._check_sample(file, job, sample, inspect=chosen is None or found in chosen)
            found += 1
            self._done(sample.hr.member.offset)
        if job.rows and (unmatched := job.rows.unmatched()):
            report("", *unmatched)
        if job.entry and found != job.entry.samples:
            report("", None, f"has {found} samples, the manifest says {job.entry.samples}")

    def _check_sample(self, file: BinaryIO, job: _Job, sample: SampleMembers, *, inspect: bool) -> None:
        def report(remark: Remark) -> None:
            self._report(job.shard, remark.member.name, remark.member.offset, remark.what, is_fault=remark.is_fault)

        place = (len(self._shards) - 1, sample.hr.member.header)
        key = f"{self._shards[-1][0]}\0{sample.hr.key}".encode(errors="surrogateescape")
        self._keys.add(hashlib.blake2b(key, digest_size=8).digest(), *place)
        hr = read_sample_image(file, sample.hr, inspect=inspect, report=report)
        lr = read_sample_image(file, sample.lr, inspect=inspect, report=report) if sample.lr else None
        for remark in job.rows.remarks(sample, hr, lr) if job.rows else ():
            report(remark)
        if isinstance(hr, int) or isinstance(lr, int):
            return
        self.summary.count(hr.header, lr.header if lr else None, inspected=hr.pixels is not None)
        if hr.pixels is not None and (digest := digest_pixels(hr.pixels)):
            self._images.add(digest, *place)
        for remark in kind_remarks(hr, lr, job.encoding) if job.encoding else ():
            report(remark)
        for remark in pair_remarks(hr, lr, scale=job.scale, any_kernel=self._any_kernel):
            report(remark)
        if self._on_sample:
            self._on_sample(InspectedSample(job.shard, sample.hr.key, hr, lr, job.scale))

    def _report_duplicates(self) -> None:
        for repeats, same in ((self._keys, "key"), (self._images, "pixels")):
            for (shard, header), (first, first_header) in repeats.found():
                if same == "key" and shard == first:
                    continue  # reported when it was read
                name, offset = _member(self._shards[shard][1], header)
                what = f"has the same {same} as {self._where(first, first_header)}"
                self._report(self._shards[shard][1], name, offset, what, is_fault=same == "key")
                self._notes.clear()  # report each one

    def _report_held_out(self, folder: ShardFolder) -> None:
        for image in read_held_out(folder.path, folder.manifest) if folder.manifest else ():
            if image.problem:
                self._report(image.path, "", None, image.problem)
            for place in islice(self._images.places(image.digests), 1):
                what = f"is for validation, and has the same pixels as {self._where(*place)}, which is trained on"
                self._report(image.path, "", None, what)

    def _where(self, shard: int, header: int) -> str:
        path = self._shards[shard][1]
        name, offset = _member(path, header)
        return f"{name!r} at offset {offset} of {path}"

    def _report(self, shard: Path, member: str, offset: int | None, what: str, *, is_fault: bool = True) -> None:
        self.summary.num_faults += is_fault
        self.summary.num_notes += not is_fault
        if not is_fault:  # one line per file of a million JSON files would hide the faults
            kind = re.sub(r"[-+]?[\d.]+|inf", "N", what)
            self._notes[kind] += 1
            if self._notes[kind] > 1:
                return
        self._on_finding(Finding(shard, member, offset, what, is_fault))

    def _done(self, in_shard: int) -> None:
        if self._on_bytes:
            self._on_bytes(self.summary.num_bytes + in_shard)


def _choose(file: BinaryIO, count: int | None, *, seed: int) -> set[int] | None:
    if count is None:
        return None
    there = sum(1 for _ in list_samples(file))
    return set(np.random.default_rng(seed).permutation(there)[:count].tolist())


def _member(shard: Path, header: int) -> tuple[str, int]:
    with open(shard, "rb") as file:
        member = member_at(file, header)
    return (member.name, member.offset) if member else ("(gone)", header)

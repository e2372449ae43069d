"""A bundle, read with suspicion: nothing in it is loaded before its hash was checked.

``Bundle.read`` sees that the manifest validates and that every file it names lies right in the
folder, is no link and has its SHA-256. ``Bundle.rerun`` runs the gate again on this machine: on the
probe that travels with the bundle, and on the test set where it is at hand.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ofa_deploy.data import Images, in_proportion
from ofa_deploy.errors import (
    DeviceError,
    FileFormatError,
    InputError,
    OfaDeployError,
    UnknownNameError,
)
from ofa_deploy.export.classify import feed, run_in_batches, top1_allowance, top1_of
from ofa_deploy.export.manifest import (
    MANIFEST,
    Manifest,
    Preprocessing,
    TargetRecord,
    load_manifest,
)
from ofa_deploy.export.not_a_bundle import not_a_bundle
from ofa_deploy.export.options import MAX_BATCH
from ofa_deploy.export.probe import PROBE, Probe
from ofa_deploy.export.sensitivity import sqnr_db
from ofa_deploy.export.targets import TARGETS, get_target, preferred
from ofa_deploy.files import read_bytes
from ofa_deploy.runtimes import Session

__all__ = ["Bundle", "OpenFile", "Rerun"]

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Verdict = Literal["holds", "differs", "fails", "not verified here"]

_MAX_BYTES = 2**31
_INT8_DB = 6.0  # that INT8 logits may be noisier than where the bundle was made


@dataclass(frozen=True)
class OpenFile:
    """A target's file, loaded.

    Attributes:
        record: what the manifest says of it.
        wanted: what is done to an image before the network sees it.
    """

    session: Session
    record: TargetRecord
    wanted: Preprocessing

    @property
    def batch(self) -> int | None:
        """The batch size that it takes; None for any."""
        count = self.record.input.shape[0]
        return count if isinstance(count, int) else None

    def prepare(self, images: Pixels) -> npt.NDArray[Any]:
        """Images, uint8 (n, 3, height, width), squares, as the file takes them."""
        from ofa_deploy.export.gate import prepared

        return prepared(images, self.record.input.preprocessing, self.wanted.size)

    def feed(self, images: Sequence[Pixels]) -> npt.NDArray[Any]:
        """Images, each uint8 (height, width, 3), as the file takes them; without torch."""
        return feed(images, self.wanted, self.record.input.preprocessing)

    def logits(self, inputs: npt.NDArray[Any]) -> Floats:
        """Logits, shape (n, classes), of any number of prepared images."""
        found = run_in_batches(self.session, inputs, self.batch)
        if not isinstance(found, np.ndarray) or found.dtype != np.float32 or found.ndim != 2:
            raise DeviceError("expected float32 logits of each image, the file gives others")
        return found


@dataclass(frozen=True)
class Rerun:
    """What the gate says of one target on this machine.

    Attributes:
        verdict: whether the file does what it did where the bundle was made; ``fails`` if its
            engine, which is here, refuses it.
        reasons: if not, or if it cannot run here.
        max_difference: from PyTorch's logits on the probe, relative to the greatest.
        sqnr_db, sqnr_db_then: on the probe, against PyTorch's logits, here and there.
        limit: that one of these keeps to, in words.
        top1, top1_then: on the test set, in percent, here and there.
    """

    verdict: Verdict
    reasons: tuple[str, ...] = ()
    max_difference: float | None = None
    sqnr_db: float | None = None
    sqnr_db_then: float | None = None
    limit: str = ""
    top1: float | None = None
    top1_then: float | None = None


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files are the ones that its manifest names.

    Attributes:
        unnamed: what else lies in the folder; nothing here looks at it.
    """

    folder: Path
    manifest: Manifest
    unnamed: tuple[str, ...]

    @classmethod
    def read(cls, folder: Path) -> "Bundle":
        """Read a bundle and check all its files.

        Raises:
            InputError: if it is something else, saying what, or a file is missing.
            FileFormatError: if the manifest is damaged, or a file is a link or was changed.
        """
        manifest_file = folder / MANIFEST
        if not (manifest_file.exists() or manifest_file.is_symlink()):
            raise not_a_bundle(folder)
        _check_plain(manifest_file)
        manifest = load_manifest(manifest_file)
        known = {MANIFEST, *manifest.files}
        unnamed = sorted(path.name for path in folder.iterdir() if path.name not in known)
        bundle = cls(folder, manifest, tuple(unnamed))
        for name in manifest.files:
            bundle.file(name)
        _check_targets(manifest_file, manifest)
        return bundle

    def file(self, name: str) -> bytes:
        """The bytes of a file, which are those that the manifest means.

        Raises:
            InputError, FileFormatError: as ``read``.
        """
        path = self.folder / name
        if not path.exists() and not path.is_symlink():
            raise InputError(
                f"{path}: missing, though {MANIFEST} names it; copy or export the bundle again"
            )
        _check_plain(path)
        data = read_bytes(path, limit=_MAX_BYTES)
        if hashlib.sha256(data).hexdigest() != self.manifest.files[name]:
            raise FileFormatError(
                f"{path}: not the file that the manifest names (SHA-256 differs); it was changed "
                "or damaged, copy or export the bundle again"
            )
        return data

    def record(self, name: str) -> TargetRecord:
        """What the manifest says of a target.

        Raises:
            UnknownNameError: listing the bundle's targets.
        """
        if name not in self.manifest.targets:
            raise UnknownNameError("target", name, self.manifest.targets, hint="of this bundle")
        return self.manifest.targets[name]

    @property
    def size(self) -> int:
        """Height and width that the network sees, in pixels."""
        return self.manifest.preprocessing.size

    @property
    def default(self) -> str:
        """The best target; where none is the best, the one that is offered first."""
        return self.manifest.best or preferred(self.manifest.targets)[0]

    def open(self, name: str | None = None, *, threads: int = 1) -> OpenFile:
        """Load a target; ``default`` when none is named.

        Raises:
            UnknownNameError: if the bundle has no such target.
            MissingDependencyError: if its engine is not installed.
            InputError, DeviceError: if it cannot be loaded on this machine.
            FileFormatError: if it is not what its target loads.
        """
        name = name or self.default
        artefact = self.artefact(name)
        try:
            session = get_target(name).load(artefact, threads=threads)
        except FileFormatError as error:
            raise FileFormatError(f"{self.folder / self.record(name).files[0]}: {error}") from None
        return OpenFile(session, self.record(name), self.manifest.preprocessing)

    def artefact(self, name: str) -> bytes:
        """What the engine of a target loads.

        Raises:
            UnknownNameError: if the bundle has no such target.
            InputError: if its files are not to be loaded on this machine.
        """
        files = self.record(name).files
        return get_target(name).artefact({file: self.file(file) for file in files})

    def probe(self) -> Probe:
        """The images and logits that travel with the bundle.

        Raises:
            InputError: if there are none.
        """
        if PROBE not in self.manifest.files:
            raise InputError(f"{self.folder}: expected {PROBE} among its files; export it again")
        return Probe.parse(
            self.file(PROBE),
            str(self.folder / PROBE),
            classes=len(self.manifest.labels),
            size=self.size,
        )

    def rerun(self, test: Images | None = None, *, threads: int = 1) -> dict[str, Rerun]:
        """The gate again, for every target.

        Args:
            test: the test set of ``manifest.data_digest``, where it is at hand.
        """
        probe = self.probe()
        found: dict[str, Rerun] = {}
        for name in self.manifest.targets:
            try:
                file = self.open(name, threads=threads)
                found[name] = self._compare(name, file, probe, test)
            except FileFormatError:
                raise
            except OfaDeployError as error:
                refused = isinstance(error, DeviceError) and get_target(name).portable
                found[name] = Rerun("fails" if refused else "not verified here", (str(error),))
        return found

    def _compare(self, name: str, file: OpenFile, probe: Probe, test: Images | None) -> Rerun:
        from ofa_deploy.export.gate import tolerance

        logits = file.logits(file.prepare(probe.pixels))
        if logits.shape != probe.expected.shape or not np.isfinite(logits).all():
            return Rerun("differs", ("gives no finite logits of the right shape",))
        greatest = max(float(np.abs(probe.expected).max()), 1e-30)
        off = float(np.abs(logits.astype(np.float64) - probe.expected).max()) / greatest
        here = sqnr_db(probe.expected, logits)
        there = sqnr_db(probe.expected, probe.found[name]) if name in probe.found else None
        reasons = []
        limit = tolerance(file.record.precision, file.record.input.preprocessing)
        held = "" if limit is None else f"difference <= {limit:g}"
        if limit is not None and off > limit:
            reasons.append(f"logits differ from PyTorch's by {off:.2g}, more than {limit:g}")
        if limit is None and there is not None:
            held = f"SQNR >= {there - _INT8_DB:.1f} dB"
            if here < there - _INT8_DB:
                reasons.append(
                    f"logits are noisier here ({here:.1f} dB SQNR) than where it was made "
                    f"({there:.1f} dB)"
                )
        top1, then = None, None
        if test is not None and file.record.accuracy is not None:
            then = file.record.accuracy.top1
            same = in_proportion(test, file.record.accuracy.images)
            top1 = top1_of(lambda images: file.logits(file.prepare(images)), same)
            exact = file.record.precision == "fp32"
            allowed = top1_allowance(len(same)) if exact else self.manifest.allowed_loss
            if top1 < then - allowed:
                reasons.append(f"top-1 is {top1:.2f} %, was {then:.2f} %")
        verdict: Verdict = "differs" if reasons else "holds"
        return Rerun(verdict, tuple(reasons), off, here, there, held, top1, then)


def _check_targets(path: Path, manifest: Manifest) -> None:
    """See that every target is what its name says, and takes what files of its kind do.

    Raises:
        FileFormatError: naming the first that does not.
    """
    wanted = manifest.preprocessing
    for name, record in manifest.targets.items():
        if name not in TARGETS:
            continue  # of a later version, perhaps; opening it says that it is unknown
        target, found = TARGETS[name], record.input
        if (record.runtime, record.precision) != (target.runtime, target.precision):
            raise FileFormatError(
                f"{path}: targets.{name}: expected {target.runtime} in {target.precision}, found "
                f"{record.runtime[:60]!r} in {record.precision}"
            )
        batch = found.shape[0] if found.shape and isinstance(found.shape[0], int) else None
        takes = target.input(wanted.size, batch=batch, preprocessing=wanted.inside)
        if found != takes or (batch or 1) > MAX_BATCH:
            raise FileFormatError(
                f"{path}: targets.{name}.input: expected {takes.name} {takes.shape}, found "
                f"{found.name[:60]!r} {found.shape[:4]}"
            )


def _check_plain(path: Path) -> None:
    """See that a path is a file itself, not a link to one.

    Raises:
        FileFormatError: otherwise.
    """
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise FileFormatError(
            f"{path}: expected a file of the bundle's own, found a link or folder"
        )

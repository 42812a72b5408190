"""The images of an experiment as they lie on the disk today, beside those that its run was trained on and scored."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ood_lab.config import Experiment, RequestError
from ood_lab.config.groups import TRAINED_ON
from ood_lab.config.image_sets import ImageSetUse
from ood_lab.files.fingerprint import Fingerprint, fingerprint
from ood_lab.reader.scope import read_once
from ood_lab.runs.image_record import READ_GB, ImageRecord

WHOLE = "val+test"  # both serve as test images where none are kept for validation
ID_NAMES = ("train", "val", "test", WHOLE)


class RunImages:
    """The images of an experiment as they lie on the disk today, compared with the record of its run.

    Sets are named as in the record: "train", "test" and, where the ID set has such a part of its own, "val" (or both
    together); "auxiliary" and "pictures"; OOD sets by their names. A set without files (embedded, generated) has no
    state.
    """

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self.record = ImageRecord(experiment.run_dir, Path(experiment.paths.cache).absolute())
        if not self.record.states and _was_recorded(experiment.run_dir):
            raise RequestError(
                f"{self.record.path} is not there any more: nothing tells which images the run was made from. "
                f"Put it back, or move {experiment.run_dir} away"
            )

    def source(self, split: str) -> str:
        """The name under which the images of a split of the ID set, or of an OOD set, are recorded."""
        own = "val" in self.experiment.use("id").splits
        if own and split == "test" and not self.experiment.protocol.id_val:
            return WHOLE
        return "test" if split == "val" and not own else split

    @property
    def names(self) -> list[str]:
        """Every set of the experiment."""
        trained = [use.role for use in self.experiment.image_sets if use.role in TRAINED_ON]
        others = [use.name for use in self.experiment.image_sets if use.role not in ("id", *TRAINED_ON)]
        return [*dict.fromkeys(map(self.source, self.experiment.use("id").splits)), *trained, *others]

    @property
    def trained_on(self) -> list[str]:
        """The sets that the weights depend on: those of training, and validation images that choose the weights."""
        chosen_by = [] if self.experiment.trainer.select == "last" else [self.source("val")]
        return [name for name in self.names if name in ("train", *TRAINED_ON, *chosen_by)]

    def _files(self, name: str) -> tuple[Path, ...]:
        if name in ID_NAMES:
            use = self.experiment.use("id")
            return (*use.files("val"), *use.files("test")) if name == WHOLE else use.files(name)
        other: ImageSetUse = self.experiment.use(name)
        return other.files(other.split)

    def _now(self, name: str) -> tuple[tuple[Path, ...], Fingerprint] | None:
        files = self._files(name)
        if not files:
            return None
        use = self.experiment.use("id" if name in ID_NAMES else name)
        asked = json.dumps(["fingerprint", use.node, use.layout, name if use.role == "id" else use.split])
        return files, read_once(asked, lambda: fingerprint(files))

    def enter(self, name: str) -> str:
        """Enter a set's state as it is today; gives its edition."""
        now = self._now(name)
        return "" if now is None else self.record.met(name, *now).edition

    def enter_features(self, name: str, key: str) -> None:
        """Enter that features of this key are of today's images."""
        now = self._now(name)
        if now is not None:
            self.record.features(self.record.met(name, *now), key)

    def are_of(self, name: str, key: str) -> bool:
        """Whether features of this key were taken from the images as they are today."""
        now = self._now(name)
        if now is None:
            return True
        state = self.record.state(name, *now)
        return state is not None and key in state.features

    def complete(self, names: Sequence[str] | None = None, most_gb: float = READ_GB) -> None:
        """Read the bytes of what was not read for its digest yet (all sets, or some), so that a copy is known later."""
        for name in self.names if names is None else names:
            files = self._files(name)
            if files:
                self.record.complete(name, files, most_gb)

    def check_training(self) -> None:
        """Whether the run's training images are those that it began with.

        Raises:
            RequestError: other images lie there now.
        """
        for name in self.trained_on:
            first = self.record.first(name)
            now = self._now(name) if first is not None else None
            if first is None or now is None or self.record.state(name, *now) is first:
                continue
            use = self.experiment.use("id" if name in ID_NAMES else name)
            then, count = f"{first.files:,}", now[1].files
            how = f"{then} files then, {count:,} now" if count != first.files else f"{then} files, not the same ones"
            if first.contents is None and first.names == now[1].names:
                how = (
                    f"{then} files of the same names and sizes whose times differ; the run ended before they were read"
                )
            raise RequestError(
                f"{self.experiment.run_id} began with other {name} images of {use.name} ({how}, in "
                f"{use.node['root']}). To train on today's images, move {self.experiment.run_dir} away, or give the "
                f"set another name ({'dataset' if name in ID_NAMES else name}.name=...); to use the old network, put "
                "the images back."
            )


def _was_recorded(run_dir: Path) -> bool:
    """Whether a run began with a record of its images; runs from before there were records have none."""
    identity = run_dir / "identity.json"
    with suppress(ValueError, AttributeError):  # a damaged one is named where the run is verified
        return bool(identity.is_file() and json.loads(identity.read_text()).get("images"))
    return False

"""The latent space of a run: the embeddings of its training images, from its stored features."""

from __future__ import annotations

from safetensors.torch import load_file

from ood_lab.config.experiment import Experiment
from ood_lab.errors import RunError
from ood_lab.outliers.base import LatentSpace
from ood_lab.runs.claim import with_stored_normalisation
from ood_lab.runs.cost import EMBEDDING, timed
from ood_lab.runs.run_folder import RunFolder
from ood_lab.task.build import class_names
from ood_lab.task.features import Features


def latent_space(encoder: Experiment) -> LatentSpace:
    """What outliers are found in: every training image as it is tested, without augmentation.

    Raises:
        RunError: the encoder's features can't be made.
    """
    folder = RunFolder(encoder.run_dir)
    known = with_stored_normalisation(encoder)
    if known is None:
        raise RunError(f"{folder.path} has no constants of its images; make the run again with task=train")
    with folder.lock(), timed(folder.path, EMBEDDING):
        train = Features(known).of("train").features("embedding")
    assert train.labels is not None
    options = encoder.head.options
    return LatentSpace(
        train.features,
        train.labels,
        load_file(folder.weights)["head.anchors"],
        options["anchors_norm"] == "unit",
        options["temperature"],
        class_names(encoder),
    )

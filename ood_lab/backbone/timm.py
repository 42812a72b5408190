"""Any image network of timm, PyTorch Image Models (Wightman 2019)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ood_lab.backbone.base import Backbone
from ood_lab.config.ranges import Fraction, PositiveInt
from ood_lab.config.timm_names import check_installed
from ood_lab.errors import RequestError


class Timm(Backbone):
    """A network of timm: its pooled features before the classifier, and a linear classifier of ours.

    Args:
        num_classes: rows of the head.
        name: as timm spells it, with or without the tag of published weights (resnet50.a1_in1k).
        side: of the images in pixels; networks of a fixed size (ViT) are built for it.
        pretrained: begin with the weights that timm publishes, from its cache or, where there is a connection, from
            their place. The classifier is taken over where it has as many classes.
        file: begin with weights from a file that timm can read instead.
        own_normalisation: normalise images by the mean and standard deviation of the network's own configuration, not
            by the data set's.
        drop_rate, drop_path_rate: dropout before the classifier, and of whole residual branches.

    Raises:
        RequestError: timm is not installed, has no such network, or gives no pooled features of it.
    """

    files = ("file",)
    named_by = "name"  # in ids and results
    layered = True

    def __init__(
        self,
        num_classes: int,
        *,
        name: str,
        side: PositiveInt,
        pretrained: bool = False,
        file: str | None = None,
        own_normalisation: bool = True,
        drop_rate: Fraction = 0.0,
        drop_path_rate: Fraction = 0.0,
    ) -> None:
        super().__init__()
        self.name, self.side, self.pretrained = name, side, pretrained
        self.file = None if file is None else str(Path(file).expanduser())
        rates = {"drop_rate": drop_rate, "drop_path_rate": drop_path_rate}
        self._options: dict[str, Any] = {key: value for key, value in rates.items() if value}
        if _configuration(name).fixed_input_size:
            self._options["img_size"] = side
        self.network = self._create()
        self._classifier_name = _classifier_name(self.network)
        self.network.reset_classifier(0)
        self.feature_dim = self._width()
        self.fc = nn.Linear(self.feature_dim, num_classes)
        nn.init.trunc_normal_(self.fc.weight, std=0.02)
        nn.init.zeros_(self.fc.bias)

    def features(self, images: Tensor) -> Tensor:
        found: Tensor = self.network(images)
        return found

    def load_published(self) -> None:
        """Take over the weights that `pretrained` or `file` asks for.

        Raises:
            RequestError: they are not there, or don't fit.
        """
        if not self.pretrained and self.file is None:
            return
        overlay = {"pretrained_cfg_overlay": {"file": self.file}} if self.file is not None else {}
        place = f"backbone.file={self.file}" if self.file is not None else "backbone.pretrained=true"
        try:
            source = self._source(overlay)
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            remedy = (
                "fetch them where there is a connection (timm keeps them in its cache), or give backbone.file=FILE"
                if self.file is None
                else f"give weights of {self.name}, as torch.save or safetensors write them"
            )
            raise RequestError(f"{place}: no weights for {self.name} ({_short(error)}); {remedy}") from None
        classifier = source.get_classifier()
        source.reset_classifier(0)
        self.network.load_state_dict(source.state_dict())
        if isinstance(classifier, nn.Linear) and classifier.weight.shape == self.fc.weight.shape:
            with torch.no_grad():
                self.fc.weight.copy_(classifier.weight)
                self.fc.bias.copy_(torch.zeros_like(self.fc.bias) if classifier.bias is None else classifier.bias)

    def _source(self, overlay: dict[str, Any]) -> Any:
        """The network with weights, and the classifier that they have: as published, or of as many classes as ours."""
        try:
            return self._create(pretrained=True, **overlay)
        except RuntimeError:
            if self.file is None:
                raise
            from timm.models import load_checkpoint

            # timm builds the network with as many classes as it published; a file of one's own may have the data set's.
            source = self._create(num_classes=self.fc.out_features)
            load_checkpoint(source, self.file)
            return source

    def freeze_below_last_stage(self) -> None:
        groups = self._groups(coarse=True)
        trained = {max(groups.values())}
        if all(parameter.dim() <= 1 for n, parameter in self.network.named_parameters() if groups[n] in trained):
            trained.add(max(trained) - 1)  # what came last is a norm alone
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad_(groups[name] in trained)

    def layer_depths(self) -> dict[nn.Parameter, int]:
        groups = self._groups(coarse=False)
        last = max(groups.values())
        return {parameter: last - groups[name] + 1 for name, parameter in self.network.named_parameters()}

    def undecayed(self) -> set[nn.Parameter]:
        names = self.network.no_weight_decay() if hasattr(self.network, "no_weight_decay") else set()
        return {parameter for name, parameter in self.network.named_parameters() if name in names}

    def public_names(self) -> dict[str, str]:
        """timm's own names."""
        top = {name for name, _ in self.network.named_children()}
        top |= {name for name, _ in (*self.network.named_parameters(recurse=False),)}
        top |= {name for name, _ in self.network.named_buffers(recurse=False)}
        return {**{name: f"network.{name}" for name in top}, self._classifier_name: "fc"}

    @staticmethod
    def channel_constants(options: Mapping[str, Any]) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of each channel, on 0..1, of the network's own configuration."""
        configuration = _configuration(str(options["name"]))
        return list(configuration.mean), list(configuration.std)

    def _create(self, **options: Any) -> Any:
        import timm

        try:
            return timm.create_model(self.name, **self._options, **options)
        except TypeError as error:
            raise RequestError(
                f"backbone.name={self.name}: timm can't build it with these options ({_short(error)})"
            ) from None

    def _width(self) -> int:
        """The width of the pooled features, of one grey image.

        Raises:
            RequestError: they are maps or tokens, or images of this size are refused.
        """
        training = self.network.training
        try:
            with torch.random.fork_rng([]), torch.no_grad():
                found = self.network.eval()(torch.zeros(1, 3, self.side, self.side))
        except (RuntimeError, AssertionError, ValueError) as error:
            size = _configuration(self.name).input_size[1]
            raise RequestError(
                f"backbone.name={self.name} can't take images of {self.side} pixels ({_short(error)}); it was made for "
                f"{size}: dataset.recipe.side={size} dataset.recipe.resize={size}"
            ) from None
        finally:
            self.network.train(training)
        if not isinstance(found, Tensor) or found.dim() != 2:
            shape = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise RequestError(
                f"backbone.name={self.name}: timm gives no pooled features of it, but {shape}; choose a network that "
                "classifies images"
            )
        return found.shape[1]

    def _groups(self, coarse: bool) -> dict[str, int]:
        """The number of the layer of each parameter, from the image on."""
        from timm.models import group_parameters

        try:
            matcher = self.network.group_matcher(coarse=coarse)
        except (AttributeError, NotImplementedError):  # some networks of timm have none
            raise RequestError(
                f"backbone.name={self.name}: timm does not group its layers; use method.trainable=whole or heads, "
                "and method.optimizer.layer_decay=1"
            ) from None
        found: dict[str, int] = group_parameters(self.network, matcher, reverse=True)
        return found


def _configuration(name: str) -> Any:
    """timm's configuration of a network: sizes, mean, standard deviation, the name of its classifier."""
    check_installed()
    from timm.models import get_pretrained_cfg, is_model, list_pretrained

    architecture, _, tag = name.partition(".")
    if not is_model(architecture):
        raise RequestError(f"backbone.name={name}: timm has no such network")
    tags = sorted(entry.partition(".")[2] for entry in list_pretrained(f"{architecture}.*"))
    if tag and tag not in tags:
        raise RequestError(
            f"backbone.name={name}: {architecture} has no weights {tag!r}; it has {', '.join(tags) or 'none'}"
        )
    return get_pretrained_cfg(name if tag else architecture)


def _classifier_name(network: Any) -> str:
    """What the classifier is called in timm's state."""
    name = (network.pretrained_cfg or {}).get("classifier", "fc")
    return str(name[0] if isinstance(name, tuple | list) else name)


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__

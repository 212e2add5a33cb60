"""What the model says about one picture, and which pixels its loss is sensitive to."""

from __future__ import annotations

from dataclasses import dataclass

from assay.data.dataset import ImageDataset
from assay.diagnostics.saliency import measure_input_gradients
from assay.errors import ModelError
from assay.evaluate import predict
from assay.records.gradients import InputGradientSample
from assay.views.picture import Picture
from assay.views.subject import Subject


@dataclass(frozen=True, eq=False)
class Look:
    """``probabilities`` of every class; ``target`` the class whose cross-entropy ``loss`` was differentiated.

    ``gradient`` holds the map Σ_c |∂ℓ/∂x_c| as a picture, its peak white, and its norm.
    """

    picture: Picture
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]
    target: int
    loss: float
    gradient: InputGradientSample

    @property
    def prediction(self) -> int:
        """The class of the largest probability."""
        return max(range(len(self.probabilities)), key=self.probabilities.__getitem__)


def look(subject: Subject, picture: Picture) -> Look:
    """Ask the model about a picture; without a label, the loss is that of its own answer.

    Raises :class:`ModelError` when the model cannot take it, or answers with numbers that are not finite.
    """
    with subject.alone() as model:
        asked = target_of(subject, picture)
        answer = predict(model, asked)
        found = measure_input_gradients(model, asked, n=1, shown=1).samples
    if not found or not bool(answer.logits.isfinite().all()):
        raise ModelError(picture.name, expected="finite logits and a finite gradient", got="NaN or infinity")
    return Look(
        picture=picture,
        classes=subject.classes,
        probabilities=tuple(answer.logits[0].softmax(dim=0).tolist()),
        target=int(asked.labels[0]),
        loss=float(answer.losses[0]),
        gradient=found[0],
    )


def target_of(subject: Subject, picture: Picture) -> ImageDataset:
    """The picture as a data set of one, under its label or, where it has none, under the model's own answer.

    The caller must have the model to itself (:meth:`Subject.alone`).
    """
    asked = picture.as_dataset(subject.classes, label=picture.label or 0)
    if picture.label is None:
        said = predict(subject.model, asked).classes.clamp_min(0)
        asked = picture.as_dataset(subject.classes, label=int(said[0]))
    return asked

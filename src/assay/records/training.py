"""How a model was trained, and which of its parameters decay."""

from __future__ import annotations

from typing import Literal

from assay.records.base import Frozen, Record


class ParameterGroup(Frozen):
    """One weight-decay group: ``role`` by module type, the tensors in it, and how many numbers they hold."""

    role: Literal["norm", "bias", "weight", "other"]
    names: tuple[str, ...]
    parameters: int
    weight_decay: float | None = None


class OtherParameter(Frozen):
    """A parameter that is no matrix or kernel of a layer: the type of the module that has it, its shape, and why."""

    name: str
    owner: str
    shape: tuple[int, ...]
    why: str


class DecayGroups(Record):
    """The groups of a model, frozen parameters left out, tied weights once.

    Norms, biases and weights; where some of the rest are no matrix or kernel of a layer, these ``other`` ones are a
    fourth group. ``assumed`` names matrices taken for weights although their module is of no known type.
    ``missed_by_name`` names the normalisation parameters that a search for ``"bn"`` in parameter names does not find.
    """

    kind: Literal["decay_groups"] = "decay_groups"
    groups: tuple[ParameterGroup, ...]
    frozen: int
    tied: int
    missed_by_name: tuple[str, ...] = ()
    other: tuple[OtherParameter, ...] = ()
    assumed: tuple[str, ...] = ()


class OptimizerAudit(Record):
    """What an optimizer holds, compared with the trainable parameters of its model; no ``faults``: all is well.

    ``missing`` are never updated, ``repeated`` updated more than once a step, ``decayed_norms`` and
    ``decayed_biases`` shrunk although they should not be, ``undecayed_weights`` spared although other parameters
    decay, ``frozen_held`` held for nothing; ``foreign`` counts tensors that are not the model's. ``decayed_others``,
    slopes, scales, tokens and position embeddings that shrink, is no fault: most recipes spare them, some do not.
    """

    kind: Literal["optimizer_audit"] = "optimizer_audit"
    missing: tuple[str, ...] = ()
    repeated: tuple[str, ...] = ()
    decayed_norms: tuple[str, ...] = ()
    decayed_biases: tuple[str, ...] = ()
    decayed_others: tuple[str, ...] = ()
    undecayed_weights: tuple[str, ...] = ()
    frozen_held: tuple[str, ...] = ()
    foreign: int = 0

    @property
    def faults(self) -> int:
        """How many parameters are held or decayed wrongly."""
        wrong = (self.missing, self.repeated, self.decayed_norms, self.decayed_biases, self.undecayed_weights)
        return sum(len(names) for names in wrong) + self.foreign


class EpochSummary(Frozen):
    """One epoch, means over its steps: ``accuracy`` on augmented batches, ``validation_accuracy`` on held-out ones."""

    epoch: int
    steps: int
    loss: float
    accuracy: float
    learning_rate: float
    gradient_norm: float
    images_per_second: float
    seconds: float
    validation_accuracy: float | None = None


class TimeSplit(Frozen):
    """Seconds of wall time: those of the steps, by part, and those between them.

    ``images``: choosing and augmenting those of a step; ``adversary``: perturbing them; ``network``: the forward and
    backward pass, mixing and clipping; ``update``: the optimizer and the average of the weights. Between epochs,
    ``validation``: predicting the held-out set and watching the adversary; ``saving``: checkpoints in a run folder.
    """

    images: float = 0.0
    adversary: float = 0.0
    network: float = 0.0
    update: float = 0.0
    validation: float = 0.0
    saving: float = 0.0


class TrainingRun(Record):
    """A finished run. ``seconds`` is the wall time of the training loop without evaluation.

    ``precision`` is what convolutions and matrix products were computed in. ``n`` is how many ``samples`` an epoch
    has; the losses are in ``loss_unit``. ``notes`` say what the run made of its data and recipe that neither says.
    """

    kind: Literal["training_run"] = "training_run"
    recipe: str
    model: str
    data: str
    seed: int
    epochs: tuple[EpochSummary, ...]
    seconds: float
    n: int
    groups: DecayGroups | None = None
    time_split: TimeSplit | None = None
    precision: str = "float32"
    modality: Literal["images", "sequences"] = "images"
    loss_unit: str = "nats"
    notes: tuple[str, ...] = ()

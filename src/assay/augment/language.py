"""A policy as one line of text, for recipes and the command line.

    crop(4) + flip() + choose(2, rotate(-30, 30), brightness(0.6, 1.4), equalize()) + cutout(8, p=0.5)

Every operation takes its magnitude, or the two ends it is drawn from, and ``p``. ``randaugment``, ``trivialaugment``
and ``autoaugment("imagenet")`` are the published policies. A name alone stands for its call without arguments.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from typing import Any

from assay.arguments import checked
from assay.augment.operations import OPERATIONS
from assay.augment.policies import Policy, Step, choose, crop, cutout, flip
from assay.augment.published import AutoAugment, RandAugment, TrivialAugmentWide
from assay.errors import OptionError

_FUNCTIONS: dict[str, Callable[..., Policy]] = {
    **{"randaugment": RandAugment, "trivialaugment": TrivialAugmentWide, "autoaugment": AutoAugment},
    **{"choose": choose, "crop": crop, "flip": flip, "cutout": cutout},
}
_OPERATIONS = {operation.name.lower(): operation for operation in OPERATIONS}


@checked
def parse_policy(text: str, *, where: str = "policy") -> Policy:
    """The policy that ``text`` describes; nothing in it is executed, only the names above are known.

    Args:
        text: such as ``"crop(4) + flip() + randaugment"``.
        where: what the text came from; errors begin with it.

    Raises:
        OptionError: a syntax error, an unknown name or a wrong argument.

    Example:
        >>> from assay.augment import parse_policy
        >>> parse_policy("crop(4) + flip()").links
        (Step(operation='Crop', low=4, high=None, p=1.0), Step(operation='Flip', low=0.0, high=None, p=0.5))
    """
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except SyntaxError as error:
        raise OptionError(where, expected="policies joined by +", got=f"{text!r} ({error.msg})") from None
    return _policy(tree.body, where)


def _policy(node: ast.expr, where: str) -> Policy:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _policy(node.left, where) + _policy(node.right, where)
    if isinstance(node, ast.Name):
        return _call(node.id, [], {}, where)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        arguments = [_argument(argument, where) for argument in node.args]
        options = {keyword.arg or "**": _argument(keyword.value, where) for keyword in node.keywords}
        return _call(node.func.id, arguments, options, where)
    raise OptionError(where, expected="policies joined by +", got=ast.unparse(node))


def _argument(node: ast.expr, where: str) -> Any:
    if isinstance(node, ast.Name | ast.BinOp | ast.Call):
        return _policy(node, where)
    try:
        return ast.literal_eval(node)
    except ValueError:
        raise OptionError(where, expected="a number, a word in quotes or a policy", got=ast.unparse(node)) from None


def _call(name: str, arguments: list[Any], options: dict[str, Any], where: str) -> Policy:
    plain = name.replace("_", "").lower()
    place = f"{where}: {name}"
    if plain in _FUNCTIONS:
        function = _FUNCTIONS[plain]
    elif plain in _OPERATIONS:
        function = _operation(_OPERATIONS[plain].name, takes_magnitude=_OPERATIONS[plain].takes_magnitude)
    else:
        known = ", ".join(sorted({*_FUNCTIONS, *_OPERATIONS}))
        raise OptionError(where, expected=f"one of {known}", got=repr(name))
    for value in (*arguments, *options.values()):
        if not isinstance(value, int | float | str | Policy) or isinstance(value, bool):
            raise OptionError(place, expected="numbers, a word in quotes or policies", got=repr(value))
    signature = inspect.signature(function)
    try:
        signature.bind(*arguments, **options)
        return function(*arguments, **options)
    except OptionError as error:
        raise OptionError(f"{where}: {error.where}", expected=error.expected, got=error.got) from None
    except TypeError as error:
        raise OptionError(place, expected=f"arguments {signature}".partition(" ->")[0], got=error) from None


def _operation(name: str, *, takes_magnitude: bool) -> Callable[..., Policy]:
    def with_magnitude(low: float, high: float | None = None, p: float = 1.0) -> Policy:
        return Step(name, low, high, p)

    def without(p: float = 1.0) -> Policy:
        return Step(name, p=p)

    return with_magnitude if takes_magnitude else without

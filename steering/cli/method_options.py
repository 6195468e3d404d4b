"""The options of `steering train` that are settings of training methods, made from the methods' own declarations."""

import argparse
import logging
from collections.abc import Callable
from typing import Any

from steering.training.config import MethodConfig, SettingSpec
from steering.training.registry import Method, method_named, methods

logger = logging.getLogger(__name__)

PREFIX = "setting "
"""Before a setting's name in the parsed options, so that no setting is taken for another option."""


def add_method_options(train: argparse.ArgumentParser) -> None:
    """Add --method, --effort, and an option for each setting of any method."""
    known = methods()
    labels = "; ".join(f"{method.name}, {method.label.partition(': ')[2] or method.label}" for method in known.values())
    train.add_argument("--method", default="bipo", metavar="METHOD", help=_help(f"how to find it: {labels}", "bipo"))
    efforts = dict.fromkeys(effort for method in known.values() for effort in method.presets)
    train.add_argument("--effort", choices=tuple(efforts), help="settings for little work or much; single ones win")
    groups: dict[str, Any] = {}
    for name in dict.fromkeys(spec.name for method in known.values() for spec in method.config_class.specs()):
        knowing = {method.name: spec for method in known.values() if (spec := _spec(method, name))}
        spec = next(iter(knowing.values()))
        if spec.group not in groups:
            groups[spec.group] = train.add_argument_group(spec.group) if spec.group else train
        try:
            _add_option(groups[spec.group], spec, _words(knowing, list(known)))
        except argparse.ArgumentError:
            logger.warning("The setting %s of %s is no option: the command has one of that name.", name, *knowing)


def chosen_config(options: argparse.Namespace) -> tuple[Method, dict[str, Any], MethodConfig]:
    """Return the method, its settings (those of the effort, overridden by single options) and the config they make.

    Raises SteeringError, one sentence, for what the method does not know or take.
    """
    method = method_named(options.method)
    settings = method.preset_settings(options.effort)
    settings |= {key.removeprefix(PREFIX): value for key, value in vars(options).items() if key.startswith(PREFIX)}
    return method, settings, method.config(settings)


def _spec(method: Method, name: str) -> SettingSpec | None:
    return next((spec for spec in method.config_class.specs() if spec.name == name), None)


def _add_option(group: Any, spec: SettingSpec, help: str) -> None:
    option = f"--{spec.name.replace('_', '-')}"
    common = {"dest": f"{PREFIX}{spec.name}", "default": argparse.SUPPRESS, "help": help}
    if spec.kind == "flag":
        group.add_argument(option, action=argparse.BooleanOptionalAction, **common)
        return
    kinds: dict[str, tuple[Callable[[str], Any], str]] = {
        "layers": (_layer, "K"),
        "integer": (int, "N"),
        "number": (float, "F"),
        "choice": (str, "|".join(value for value, _ in spec.choices)),
    }
    convert, metavar = kinds[spec.kind]
    group.add_argument(option, type=convert, metavar=metavar, **common)


def _words(knowing: dict[str, SettingSpec], all_methods: list[str]) -> str:
    """Help of a setting: what it is, its default (most methods', then the others'), and who knows it if not all do."""
    spec = next(iter(knowing.values()))
    if spec.kind == "layers":
        text = f"{spec.help}; several as 10,14; or `sweep`, which finds the best; or `late` or `middle`"
        return _help(text, None)
    of_default: dict[str | None, list[str]] = {}
    for name, own in knowing.items():
        of_default.setdefault(_shown(own.default), []).append(name)
    (default, _), *others = sorted(of_default.items(), key=lambda item: -len(item[1]))
    if others:
        default = "; ".join([str(default), *(f"{', '.join(names)}: {value}" for value, names in others)])
    only = "" if len(knowing) == len(all_methods) else f" [{', '.join(knowing)}]"
    return _help(spec.help + only, default)


def _shown(default: Any) -> str | None:
    return None if default is None else f"{default:g}" if isinstance(default, float) else str(default)


def _help(text: str, default: str | None) -> str:
    text = text if default is None else f"{text} (default: {default})"
    return text.replace("%", "%%")  # argparse fills in what follows a per cent sign


def _layer(text: str) -> int | tuple[int, ...] | str | None:
    """Read `14`, `10,14`, `sweep`, `late`, or `middle`, which is the default."""
    if text in ("sweep", "late", "middle"):
        return text if text != "middle" else None
    try:
        layers = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no layer; give a whole number, several as 10,14, sweep, late or middle"
        ) from None
    return layers if len(layers) > 1 else layers[0]

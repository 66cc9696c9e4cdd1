"""The settings of an analysis: each is stated once, and options, files, checks and provenance come from it.

    @dataclass(frozen=True, kw_only=True)
    class Settings(BaseSettings):
        separation: float = setting(positive, "Distance of the modes [Mahalanobis].", 4.0)
        seed: int = seed_setting()

A file holds settings by the names that the command line gives them.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import tomli_w

import mixture_models
from inference.storage import files
from inference.storage.reading import read_toml
from mixture_models.validation import InputError, increasing_array, integer

#: What every output folder calls the file of its settings.
FILE = "settings.toml"

#: Returns a value that it has checked, from the setting's name and the value.
type Check[T] = Callable[[str, object], T]


class Facts(NamedTuple):
    """What is known of a setting beside its name, its type and its default; see `setting`."""

    check: Check[object]
    text: str
    argument: bool
    option: str | None
    show: str | None
    metavar: str | None
    shown: bool
    stored: bool


def setting[T](
    check: Check[T],
    text: str,
    default: object = MISSING,
    *,
    factory: Callable[[], T] | None = None,
    argument: bool = False,
    option: str | None = None,
    show: str | None = None,
    metavar: str | None = None,
    shown: bool = True,
    stored: bool = True,
) -> T:
    """Return the field of a setting, which has the type of its value, as `dataclasses.field` does.

    Args:
        check: called with the name and the value; what it returns is the setting's value. A setting whose
            default is None may be None unchecked.
        text: one line of help, which names the unit in brackets where there is one.
        default: its value unless it is given; without one it must be given.
        factory: computes the default.
        argument: whether the command line takes it by its place, not by its name.
        option: what the command line and files call it, where that is not the field's name.
        show: what help shows as the default, where that is not the value.
        metavar: what help calls the value.
        shown: whether the command line takes it; one that it does not take can stand in a file.
        stored: whether a number depends on it, so that files and results hold it.
    """
    known = {"setting": Facts(check, text, argument, option, show, metavar, shown, stored)}
    made: Any = field(default=default, metadata=known)
    return made if factory is None else field(default_factory=factory, metadata=known)


class Preset(NamedTuple):
    """Other defaults, which a flag of the command line chooses."""

    text: str
    defaults: Mapping[str, object]


@dataclass(frozen=True, kw_only=True)
class BaseSettings:
    """Checked settings: a subclass is a frozen dataclass itself, and lists them as fields made by `setting`.

    Raises:
        InputError: a value that its check refuses.
    """

    #: By the name of their flag.
    presets: ClassVar[Mapping[str, Preset]] = {}

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if not (value is None and one.default is None):
                object.__setattr__(self, one.name, facts(one).check(one.name, value))

    @classmethod
    def stored_fields(cls) -> dict[str, Field[object]]:
        """Return the fields that a file may hold, by the names that it calls them."""
        return {option(one): one for one in fields(cls) if facts(one).stored}

    @classmethod
    def stored_in(cls, path: Path) -> dict[str, object]:
        """Return the settings that a file holds, by the names of their fields.

        Raises:
            InputError: the file is missing, is not TOML, or holds an unknown setting.
        """
        known = cls.stored_fields()
        return {known[name].name: value for name, value in read(path, known).items()}

    @classmethod
    def read(cls, path: Path, **changes: object) -> Self:
        """Read a file; settings that it leaves out have their defaults, ``changes`` win.

        Raises:
            InputError: the file is missing, is not TOML, or holds an unknown or unusable setting.
        """
        return cls.from_values(cls.stored_in(path) | changes)

    @classmethod
    def from_values(cls, values: Mapping[str, object]) -> Self:
        """Return the settings that have some values, by the names of their fields."""
        return cls(**values)

    def asdict(self) -> dict[str, object]:
        """Return all settings that a number depends on, as results hold them."""
        return {one.name: _plain(getattr(self, one.name)) for one in self.stored_fields().values()}

    def write(self, path: Path) -> None:
        """Write the file from which `read` restores these settings.

        Lists, and what the command line does not take, are left out where they are the default.
        """
        values = {
            name: getattr(self, one.name)
            for name, one in self.stored_fields().items()
            if getattr(self, one.name) != one.default or (facts(one).shown and not is_list(one))
        }
        write(values, path)


def facts(one: "Field[object]") -> Facts:
    """Return what `setting` was told of a field."""
    found: Facts = one.metadata["setting"]
    return found


def option(one: "Field[object]") -> str:
    """Return what the command line and files call a setting."""
    return facts(one).option or one.name


def is_required(one: "Field[object]") -> bool:
    """Return whether a setting must be given."""
    return one.default is MISSING and one.default_factory is MISSING


def is_list(one: "Field[object]") -> bool:
    """Return whether a setting is a list of any length."""
    return Ellipsis in getattr(one.type, "__args__", ())


def read(path: Path, names: Iterable[str]) -> dict[str, object]:
    """Return the settings in a file, which may hold some names.

    Raises:
        InputError: the file is missing, is not TOML, or holds an unknown setting.
    """
    stored = read_toml(path)
    unknown = sorted(set(stored) - set(names))
    if unknown:
        raise InputError(f"{path} may set {', '.join(names)}; got {', '.join(unknown)}")
    return stored


def write(values: Mapping[str, object], path: Path) -> None:
    """Write settings by name, from which `read` returns those that are not None."""
    plain = {name: _plain(value) for name, value in values.items() if value is not None}
    files.write(path, tomli_w.dumps(plain).encode())


def _plain(value: object) -> object:
    """Return a value as TOML can hold it."""
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, Path) else value


def text(name: str, value: object) -> str:
    """Return ``value`` if it is a text, or raise `InputError`."""
    if not isinstance(value, str):
        raise InputError(f"{name} must be a text; got {value!r}")
    return value


def texts(name: str, value: object) -> tuple[str, ...]:
    """Return ``value`` as a tuple if it is a list of texts, or raise `InputError`."""
    if not (isinstance(value, list | tuple) and all(isinstance(one, str) for one in value)):
        raise InputError(f"{name} must be a list of texts; got {value!r}")
    return tuple(value)


def each[T](check: Check[T]) -> Check[tuple[T, ...]]:
    """Return a check of a list, every entry of which ``check`` takes."""

    def checked(name: str, value: object) -> tuple[T, ...]:
        if isinstance(value, str) or not isinstance(value, Iterable):
            raise InputError(f"{name} must be a list; got {value!r}")
        return tuple(check(name, one) for one in value)

    return checked


def increasing(within: str) -> Check[tuple[float, ...]]:
    """Return a check of a list that increases within an interval."""
    return lambda name, value: tuple(increasing_array(name, value, within).tolist())


def separations_setting(
    within: str, default: Iterable[float], *, show: str = "those of the figure"
) -> tuple[float, ...]:
    """Return the setting of the modes' separations, increasing within an interval."""
    words = "Separations of the modes, increasing."
    return setting(increasing(within), words, tuple(map(float, default)), show=show, argument=True)


def objectives_setting(example: str) -> tuple[str, ...]:
    """Return the setting of what is trained, by default all that is registered."""
    return setting(
        texts,
        f"Objectives and their arguments, as {example}",
        factory=lambda: mixture_models.objectives.by_default(),
        show="every registered one and its variants",
        argument=True,
    )


def workers_setting() -> int | None:
    """Return the setting of how many processes sweep, on which no number depends."""
    text = "Processes of a Dask cluster on this machine."
    return setting(integer, text, None, stored=False)


def seed_setting(text: str = "Seed of all random numbers.") -> int:
    """Return the setting that nearly every analysis has."""
    return setting(partial(integer, at_least=0, at_most=2**63 - 1), text, 0)

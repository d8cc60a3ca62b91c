"""The command line: ``transpike <verb>``. The flags of a verb are the fields of its dataclass in ``experiments``."""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
import warnings
from argparse import RawDescriptionHelpFormatter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import is_dataclass
from importlib import import_module
from inspect import getdoc
from pathlib import Path
from typing import Any, TextIO, cast

from jsonargparse import ArgumentParser, DefaultHelpFormatter, set_loader, set_parsing_settings
from yaml import YAMLError

from transpike.arguments import Arguments
from transpike.checks import near
from transpike.errors import ConfigError, TranspikeError, reason
from transpike.experiments.places import NAMED, PLACES, check_network
from transpike.files import check_target
from transpike.files.yaml import load_yaml

__all__ = ["build_parser", "main"]

VERBS = {
    "demo": "train a small network on digits, convert it and write a report",
    "train": "train a network on a data set",
    "distill": "train a student network with a trained teacher and the labels",
    "hybrid": "train a network, copy it into a spiking one, set the thresholds, and train the spiking one (DCT-SNN)",
    "study": "compare methods, settings, networks or data over several seeds, from one file",
    "convert": "convert a trained network into a spiking one, at one or several numbers of steps",
    "finetune": "train the weights of a converted network, so that its layers need fewer silent steps",
    "compare": "compare coding schemes on one trained network",
    "evaluate": "measure a trained or a converted network on test images",
    "export": "write a converted network for other runtimes and chips: ONNX, NIR, whole numbers, or a list of spikes",
    "analyze": "show how a student and its teacher differ: spectra of features and logits, filters, Grad-CAM",
    "report": "turn result folders into one self-contained HTML page",
}

HELP = {
    "_ActionConfigLoad": "A YAML file with the options of this group.",
    "_ActionHelpClassPath": "Show the options of this group and exit.",
    "_ActionPrintConfig": "Print all options as YAML and exit. =skip_default leaves out those with default values.",
}
"""Help in place of jsonargparse's, by the kind of an option."""

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}
"""The system's errors for a disk that fails for any write, also by a library."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    It is 0 for success. It is 2 for bad input, and 1 if nothing meets a goal; both come after one message. It is 130
    after an interruption.
    """
    # Threads that wait in a busy loop block each other on a shared machine. torch reads this when it is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    arguments = [_underscored(argument) for argument in (sys.argv[1:] if argv is None else argv)] or ["--help"]
    with _outliving():
        try:
            _run(arguments[0], arguments[1:])
        except TranspikeError as error:
            # A DataLoader's worker process includes the message in its traceback.
            _complain(
                re.sub(r"(?s)^Caught \w+ in DataLoader worker.*\ntranspike\.errors\.\w+: ", "", str(error)).strip()
            )
            return error.code
        except OSError as error:
            if error.errno not in FULL:
                raise
            _complain(f"cannot write {error.filename or 'a file'}: {reason(error)}")
            return 2
        except KeyboardInterrupt as stop:
            if argv is None:
                signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process ends anyway
            print("\n".join(["transpike: interrupted", *getattr(stop, "__notes__", ())]), file=sys.stderr)
            return 130
    return 0


def _run(verb: str, given: list[str]) -> None:
    if verb not in VERBS:
        if verb not in ("-h", "--help", "--version"):
            what = "option" if verb.startswith("-") else "command"
            names = ["--help", "--version"] if verb.startswith("-") else [*VERBS]
            raise ConfigError(f"no {what} {verb!r}.{near(verb, names)} Choose from {', '.join(names)}.")
        build_parser(verb).parse_args([verb, *given])
    if verb in PLACES and given and not given[0].startswith("-"):
        PLACES[verb](Path(given[0]))
    if verb in NAMED and given and not given[0].startswith("-"):
        check_network(given[0])
    function, kind = _verb(verb)
    words = Arguments(verb, kind, given)
    try:
        options = words.parse(build_parser(verb))
        _check_places(options.get("resume"), options.get("out"))
        if options.get("json") is not None:
            from transpike.results.runs import COPY

            check_target(options["json"], COPY)
        with warnings.catch_warnings():
            warnings.showwarning = _warned
            function(kind(**options))
    except TranspikeError as error:
        raise words.located(error) from error


def _check_places(resume: Path | None, out: Path | None) -> None:
    """Raise an error for a folder beside that of a resumed run, because it would stay empty."""
    if resume is not None and out is not None and os.path.realpath(resume) != os.path.realpath(out):
        raise ConfigError(f"out={out}: the run continues in its own folder, {resume}; omit --out.")


def _complain(message: str) -> None:
    from rich.console import Console
    from rich.text import Text

    text = Text.assemble(("transpike: ", "bold red"), message)
    Console(stderr=True, soft_wrap=True, highlight=False).print(text)


class _Outliving:
    """A stream that ignores writes when nobody reads it any more, so that files are still written to the end."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        self._try(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._try(self._stream.flush)

    def _try(self, call: Callable[[], object]) -> None:
        try:
            call()
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


@contextmanager
def _outliving() -> Iterator[None]:
    out, errors = (cast(TextIO, _Outliving(stream)) for stream in (sys.stdout, sys.stderr))
    with redirect_stdout(out), redirect_stderr(errors):
        try:
            yield
        finally:
            out.flush()
            errors.flush()


def _warned(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print our own warnings in one line. Other warnings keep their place in the source."""
    if not Path(filename).is_relative_to(Path(__file__).parent):
        print(warnings.formatwarning(message, category, filename, lineno, line), end="", file=sys.stderr)
    elif os.environ.get("RANK", "0") == "0":
        print(f"transpike: warning: {message}", file=sys.stderr)


def build_parser(verb: str) -> ArgumentParser:
    """Return the parser of the whole command. Only ``verb`` has its flags, so other verbs' modules are not imported."""
    # Only this loader reads "4,6,8" as a list. jsonargparse uses it for every value that is not plainly a string.
    set_loader("yaml_or_commas", _load, exceptions=(YAMLError,), json_superset=True)
    # An option that is a dataclass has a flag for each of its fields, also if its class has a base class.
    set_parsing_settings(subclasses_disabled=[is_dataclass])
    parser = ArgumentParser(
        prog="transpike",
        description="Convert trained networks into spiking ones, train spiking networks, and measure both. "
        "Start with: transpike demo\n\nIn names of options, - and _ mean the same.",
        version=_version(),
        parser_mode="yaml_or_commas",
        formatter_class=_Formatter,
        exit_on_error=False,
        allow_abbrev=False,
    )
    verbs = parser.add_subcommands(dest="verb", metavar="command", required=True)
    for name, summary in VERBS.items():
        child = ArgumentParser(description=summary, parser_mode="yaml_or_commas", allow_abbrev=False)
        if name == verb:
            _, options = _verb(name)
            child.description = re.split(r"\n+Attributes:\n", getdoc(options) or "")[0]
            child.add_argument("--config", action="config", help="A YAML file with any of the options below.")
            child.add_class_arguments(options, as_group=False, as_positional=True)
            for action in child._actions:  # jsonargparse's own texts
                action.help = HELP.get(type(action).__name__, action.help)
        verbs.add_subcommand(name, child, help=summary)
    return parser


class _Formatter(DefaultHelpFormatter, RawDescriptionHelpFormatter):
    """jsonargparse's help, with the paragraphs and examples of the description unchanged."""


def _verb(verb: str) -> tuple[Callable[[object], object], type]:
    """Return the verb's function, and the dataclass of its options."""
    module = import_module(f"transpike.experiments.{verb}")
    return getattr(module, verb), getattr(module, verb.capitalize())


def _underscored(argument: str) -> str:
    """Return ``--batch-size=8`` as ``--batch_size=8``. A flag is a Python name, and users may write it either way."""
    flag, equals, value = argument.partition("=")
    return flag[:2] + flag[2:].replace("-", "_") + equals + value if flag.startswith("--") else argument


def _load(text: str) -> Any:
    """Read YAML, with ``4,6,8`` as the list ``[4, 6, 8]`` and ``4,`` as ``[4]``."""
    value = load_yaml(text)
    if isinstance(value, str) and "," in value and re.fullmatch(r"{0}(,{0})*,?".format(r"[^\s,:{}\[\]]+"), value):
        return [load_yaml(item) for item in value.removesuffix(",").split(",")]
    return value


def _version() -> str:
    from transpike import __version__

    return __version__

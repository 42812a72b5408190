"""The command line: `python -m ood_lab [overrides]`. The request is checked before torch is imported."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from omegaconf import OmegaConf

from ood_lab import __version__
from ood_lab.command import carry_out
from ood_lab.config import OodLabError, RequestError
from ood_lab.config.check import check_groups, check_values, parse
from ood_lab.config.complete import complete, script
from ood_lab.config.compose import compose
from ood_lab.config.describe import describe_choice, describe_group, describe_groups
from ood_lab.config.experiment import Experiment
from ood_lab.config.groups import config_dir, config_folder, groups
from ood_lab.config.objective import described
from ood_lab.config.prepare import expand_all
from ood_lab.config.quoting import as_typed
from ood_lab.config.suggest import nearest
from ood_lab.sweep.command import read_command

USAGE = """\
usage: python -m ood_lab [group=name ...] [key=value ...] [-m] [--config-dir FOLDER]

  python -m ood_lab                                   a first run on embedded digits, 1.5 minutes
  python -m ood_lab method=hamos                      HamOS on the same digits
  python -m ood_lab method=cider dataset=cifar10 paths.data=FOLDER
  python -m ood_lab -m method=hamos,cider seed=0,1,2  every combination
  python -m ood_lab table=hamos_t17 [scale=tiny] [workers=2] [hydra/launcher=ray]
                                                      a paper's table, ours beside theirs
  python -m ood_lab ... dry_run=true                  what the command would do
  python -m ood_lab task=evaluate features=FILE scorer=all
                                                      detectors on features of any network
  python -m ood_lab --help GROUP=NAME                 a choice and its options; --help GROUP lists its choices
  python -m ood_lab --completion bash                 tab completion of the command ood-lab: bash, zsh, fish
  python -m ood_lab --version
  python -m ood_lab --cfg job [overrides]             print the configuration
"""
PIPE_CLOSED = 141  # what a shell gives for a program that SIGPIPE ended
HYDRA_FLAGS = ("--cfg", "-c", "--info", "-i", "--resolve", "--package", "-p", "--hydra-help")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; gives the exit code: 0, 1 (a run failed) or 2 (the request was wrong)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        if (said := _said(arguments)) is not None:
            print(said, flush=True)
            return 0
        multirun, folder, overrides, rest = _split(arguments)
        if rest:
            _print_config(arguments, overrides, folder, rest)
        else:
            carry_out(overrides, folder, multirun)
    except OodLabError as error:
        print(f"ood_lab: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("ood_lab: interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever read our output has gone (| head)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python flushes at its end
        return PIPE_CLOSED
    except OSError as error:  # a full disk, a file taken away
        print(f"ood_lab: {error}. What was done is kept; the same command goes on from there.", file=sys.stderr)
        return 1
    return 0


def _split(arguments: Sequence[str]) -> tuple[bool, Path | None, list[str], list[str]]:
    """(multirun, --config-dir, overrides, flags that are Hydra's own)."""
    multirun, folder, overrides, rest = False, None, [], []
    words = iter(arguments)
    for word in words:
        if word in ("-m", "--multirun"):
            multirun = True
        elif word in ("--config-dir", "-cd"):
            folder = next(words, "")
        elif word.startswith("--config-dir="):
            folder = word.partition("=")[2]
        elif word.partition("=")[0] in HYDRA_FLAGS:
            rest.append(word)
        elif word.startswith("-") and "=" not in word:
            raise RequestError(f"unknown flag {word}\n{USAGE}")
        elif rest and "=" not in word:
            rest.append(word)
        else:
            overrides.append(word)
    return multirun, config_folder(folder), overrides, rest


def _said(arguments: Sequence[str]) -> str | None:
    """What --help, --version, --completion and --complete print; None for any other command."""
    if "--version" in arguments:
        return f"ood_lab {__version__}"
    if arguments[:1] == ["--complete"]:
        return "\n".join(complete(arguments[1:-1], arguments[-1]) if len(arguments) > 1 else [])
    if arguments[:1] == ["--completion"]:
        return script(arguments[1] if len(arguments) > 1 else "")
    if "--help" not in arguments and "-h" not in arguments:
        return None
    asked = [word for word in arguments if word not in ("--help", "-h")]
    named = [word for word in asked if "=" not in word and word in groups()]
    _, folder, overrides, _ = _split([word for word in asked if word not in named])
    return _help(named, overrides, folder)


def _help(named: Sequence[str], overrides: Sequence[str], folder: Path | None) -> str:
    """The usage and the choices of each group; of GROUP its choices; of GROUP=NAME what that choice is."""
    known = {k: v for k, v in groups(folder).items() if not k.startswith("hydra")}
    texts = [describe_group(group, folder) for group in named]
    for text in overrides:
        if "=" not in text:
            homes = [group for group, names in known.items() if text in names and group != "pictures"]
            meant = f" Did you mean --help {homes[0]}={text}?" if homes else nearest(text, known)
            raise RequestError(f"--help {text}: no such group.{meant}")
    for override in parse(overrides):
        group, value = override.key_or_group, override.value()
        if group not in known:
            raise RequestError(f"--help {override.input_line}: no such group.{nearest(group, known)}")
        if override.is_sweep_override() or value is None:
            raise RequestError(f"--help {override.input_line}: name one choice, or several in brackets: {group}=[a,b]")
        if group == "method":
            check_groups([override], folder)
            composed = compose([str(override.input_line)], folder=folder)
            check_values(composed)
            texts.append(described(Experiment.of(composed.whole, composed.choices, config_dir=folder)))
            continue
        texts += [describe_choice(group, str(name), folder) for name in (value if isinstance(value, list) else [value])]
    if texts:
        return "\n\n".join(texts)
    return f"{USAGE}\n{describe_groups(folder)}"


def _print_config(arguments: Sequence[str], overrides: Sequence[str], folder: Path | None, rest: Sequence[str]) -> None:
    """Hand over to Hydra for flags of its own, which print something and run nothing."""
    typed = {text: expand_all(as_typed(text), folder) for text in overrides}
    command = read_command(list(typed.values()))
    if command.tables:
        raise RequestError(f"{rest[0]} prints one configuration, and a table has many; dry_run=true lists its runs")
    if command.dry_run:
        raise RequestError(f"{rest[0]} prints the configuration and runs nothing; leave dry_run out")
    check_groups(parse(list(typed.values())), folder)
    if rest in (["--cfg", "job"], ["-c", "job"], ["--cfg=job"]):  # complete, with what a recipe says of its parts
        print(OmegaConf.to_yaml(compose(list(typed.values()), folder=folder).cfg), end="")
        return
    import hydra

    sys.argv = [sys.argv[0], *(typed.get(word, word) for word in arguments)]
    hydra.main(config_path=str(config_dir()), config_name="config", version_base="1.3")(lambda _: None)()


if __name__ == "__main__":
    sys.exit(main())

"""The command line: `python -m ood_lab [overrides]`. The request is checked before torch is imported."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from ood_lab.config import OodLabError, RequestError, prepare
from ood_lab.config.check import check_groups, parse
from ood_lab.config.compose import config_dir, in_hydra
from ood_lab.config.request import expand_all, expand_sweep

USAGE = """\
usage: python -m ood_lab [group=name ...] [key=value ...] [-m] [--config-dir FOLDER]

  python -m ood_lab                                   HamOS on the embedded digits
  python -m ood_lab method=cider dataset=cifar10 paths.data=FOLDER
  python -m ood_lab -m method=hamos,cider seed=0,1,2  every combination
  python -m ood_lab --cfg job [overrides]             print the configuration
"""
HYDRA_FLAGS = ("--cfg", "-c", "--info", "-i", "--resolve", "--package", "-p", "--hydra-help", "--version")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; gives the exit code: 0, 1 (a run failed) or 2 (the request was wrong)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if "--help" in arguments or "-h" in arguments:
        print(_help())
        return 0
    try:
        multirun, folder, overrides, rest = _split(arguments)
        arguments = [expand_all(word, folder) for word in arguments]
        overrides = [expand_all(word, folder) for word in overrides]
        if rest:
            check_groups(parse(overrides), folder)
            return _hydra(arguments)
        if multirun:
            for single in expand_sweep(overrides, folder):
                if prepare(single, folder).cfg.trainer.devices > 1:
                    raise RequestError(
                        "trainer.devices above 1 in a sweep: the processes that train together would each start the "
                        "whole sweep again. Run such requests one by one, without -m."
                    )
            return _hydra([_in_sweep(word) for word in arguments])
        request = prepare(overrides, folder)
        from ood_lab.task import execute

        execute(request)
    except OodLabError as error:
        print(f"ood_lab: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("ood_lab: interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130
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
    if folder is not None and not (folder and Path(folder).is_dir()):
        raise RequestError(f"--config-dir={folder}: no such folder; give one that holds YAML files in group folders")
    return multirun, Path(folder).absolute() if folder else None, overrides, rest


def _in_sweep(word: str) -> str:
    """An argument in Hydra's words. Hydra composes once without the swept choices, where these groups are empty."""
    return f"++{word}" if word.startswith(("auxiliary.", "synthesizer.")) else in_hydra(word)


def _help() -> str:
    from ood_lab.config.compose import groups

    names = {k: v for k, v in groups().items() if not k.startswith("hydra")}
    return USAGE + "\ngroups:\n" + "\n".join(f"  {k}: {', '.join(v)}" for k, v in names.items())


def _hydra(arguments: Sequence[str]) -> int:
    """Hand over to Hydra: sweeps and its own flags."""
    import hydra

    from ood_lab.task.job import exit_codes, job

    sys.argv = [sys.argv[0], *arguments]
    hydra.main(config_path=str(config_dir()), config_name="config", version_base="1.3")(job)()
    return max(exit_codes, default=0)


if __name__ == "__main__":
    sys.exit(main())

"""Tab completion of the command `ood-lab`: what may come at the cursor, and the scripts for three shells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from ood_lab.config.check import parse
from ood_lab.config.compose import compose
from ood_lab.config.groups import LIST_GROUPS, OPTIONAL, groups
from ood_lab.config.suggest import nearest
from ood_lab.errors import RequestError

FLAGS = ("--help", "--version", "--config-dir", "--cfg", "--completion", "-m")
BEFORE = ("table=", "scale=", "dry_run=", "workers=", "features=", "run=")  # keys of a command that are no groups
BASH = """\
# eval "$(ood-lab --completion bash)", or a file of this in /etc/bash_completion.d
_ood_lab() {
    local line="${COMP_LINE:0:$COMP_POINT}" word
    word="${line##*[[:space:]]}"
    local IFS=$'\\n'
    local found=($(ood-lab --complete ${line% *} "$word" 2>/dev/null))
    # Readline cuts words at "=", so what comes before it must not be given back.
    local cut=""
    [[ "$word" == *=* ]] && cut="${word%"${word##*=}"}"
    COMPREPLY=("${found[@]#"$cut"}")
}
complete -o nospace -F _ood_lab ood-lab
"""
ZSH = """\
#compdef ood-lab
# eval "$(ood-lab --completion zsh)", or a file _ood-lab of this in a folder of $fpath
_ood_lab() {
    local -a found
    found=("${(@f)$(ood-lab --complete "${(@)words[2,CURRENT-1]}" "${words[CURRENT]}" 2>/dev/null)}")
    compadd -S '' -- $found
}
compdef _ood_lab ood-lab
"""
FISH = """\
# ood-lab --completion fish | source, or a file of this: ~/.config/fish/completions/ood-lab.fish
complete -c ood-lab -f -a '(ood-lab --complete (commandline -opc)[2..-1] (commandline -ct) 2>/dev/null)'
"""
SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}


def script(shell: str) -> str:
    """The script that a shell reads to complete `ood-lab`.

    Raises:
        RequestError: no such shell.
    """
    if shell not in SCRIPTS:
        given = f"--completion {shell}: no such shell." if shell else "--completion: name the shell."
        raise RequestError(f"{given}{nearest(shell, SCRIPTS)}")
    return SCRIPTS[shell].rstrip()


def complete(words: Sequence[str], current: str) -> list[str]:
    """What the word at the cursor may become: flags, groups, their choices, options of what is chosen.

    Args:
        words: those before the cursor; anything that is no override is passed over.
        current: the word at the cursor, as far as it is typed.
    """
    if current.startswith("-"):
        return [flag for flag in FLAGS if flag.startswith(current)]
    key, equals, value = current.partition("=")
    known = {name: names for name, names in groups().items() if not name.startswith("hydra")}
    if equals:
        return [f"{key}={text}" for text in _values(key, value, known) if text.startswith(value)]
    if "." not in current:
        names = [*(f"{name}=" for name in known), *BEFORE, "seed="]
        sections = [f"{name}." for name in _values_chosen(words)]
        return sorted(text for text in {*names, *sections} if text.startswith(current))
    above, _, begun = current.rpartition(".")
    node: Any = _values_chosen(words)
    for part in above.split("."):
        node = node.get(part) if isinstance(node, Mapping) else None
    if not isinstance(node, Mapping):
        return []
    options = [name for name in node if str(name).startswith(begun) and name != "_target_"]
    return [f"{above}.{name}{'.' if isinstance(node[name], Mapping) else '='}" for name in options]


def _values(key: str, value: str, known: Mapping[str, Sequence[str]]) -> list[str]:
    """The values of a group, also within brackets."""
    names = list(known.get(key, ()))
    if key == "table":
        names = list(known["table"])
    if key == "scorer":
        names.append("all")
    if key in OPTIONAL:
        names.append("null")
    if key in LIST_GROUPS and value.startswith("["):
        before = value[: max(value.rfind(","), value.rfind("[")) + 1]
        return [f"{before}{name}" for name in names]
    return names


def _values_chosen(words: Sequence[str]) -> Mapping[str, Any]:
    """The configuration that the words before choose, as far as they are right."""
    overrides = [word for word in words if "=" in word and not word.startswith(("-", *BEFORE))]
    with suppress(RequestError):
        parse(overrides)
        return compose(overrides).whole
    return compose([]).whole

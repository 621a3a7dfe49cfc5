"""Completion of words in a shell: the choices, and the code for each shell.

Each shell's code asks the program and gets a line for each choice: `plain,VALUE`, with a tab and
a description in zsh and fish; `file,` and `dir,` leave it to the shell.
"""

from __future__ import annotations

import os

import rich_click as click
from click import shell_completion
from click.shell_completion import CompletionItem

_BASH = r"""_cowcloop_completion() {
    local line files= cur=${COMP_WORDS[COMP_CWORD]}
    [[ $cur == = ]] && cur=
    COMPREPLY=()
    while IFS= read -r line; do
        case $line in
            dir,*) files=-d; compopt -o dirnames ;;
            file,*) files=-f; compopt -o default ;;
            plain,*) COMPREPLY+=("${line#*,}") ;;
        esac
    done < <(IFS=$'\n'; COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD=$COMP_CWORD \
        _COWCLOOP_COMPLETE=bash_complete "$1")
    # The shell itself looks for files only where there is nothing else to choose.
    if [[ -n $files && ${#COMPREPLY[@]} -gt 0 ]]; then
        mapfile -t -O "${#COMPREPLY[@]}" COMPREPLY < <(compgen "$files" -- "$cur")
    fi
}
complete -o nosort -F _cowcloop_completion cowcloop
"""

_ZSH = r"""#compdef cowcloop
_cowcloop_completion() {
    local line value files
    local -a plain described
    (( $+commands[cowcloop] )) || return 1
    [[ $PREFIX == --*=* ]] && compset -P '*='
    for line in "${(@f)$(COMP_WORDS="${words[*]}" COMP_CWORD=$((CURRENT-1)) \
        _COWCLOOP_COMPLETE=zsh_complete cowcloop)}"; do
        value=${line#*,}
        case $line in
            dir,*) files=-/ ;;
            file,*) files=-f ;;
            plain,*$'\t'*) described+=("${${value%%$'\t'*}//:/\\:}:${value#*$'\t'}") ;;
            plain,*) plain+=("$value") ;;
        esac
    done
    # zsh drops a word for which a path and another choice begin alike.
    [[ -n $files ]] && (( $#plain + $#described == 0 || $#PREFIX == 0 )) && _path_files $files
    (( $#described )) && _describe -V unsorted described
    (( $#plain )) && compadd -V unsorted -a plain
    return 0
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _cowcloop_completion "$@"
else
    compdef _cowcloop_completion cowcloop
fi
"""

_FISH = r"""function _cowcloop_completion
    set -l option (string match -r -- '^--[^=]+=' (commandline -t))
    set -l word (string replace -r -- '^--[^=]+=' '' (commandline -t))
    for line in (env _COWCLOOP_COMPLETE=fish_complete COMP_WORDS=(commandline -cp) \
            COMP_CWORD=(commandline -t) cowcloop)
        set -l choice (string split --max 1 -- , $line)
        switch $choice[1]
            case dir
                for found in (__fish_complete_directories "$word")
                    echo -- "$option$found"
                end
            case file
                for found in (__fish_complete_path "$word")
                    echo -- "$option$found"
                end
            case plain
                echo -- "$option$choice[2]"
        end
    end
end
complete --no-files --command cowcloop --arguments "(_cowcloop_completion)"
"""


def _described(item: CompletionItem[str]) -> str:
    about = " ".join((item.help or "").split())
    return f"{item.type},{item.value}" + (f"\t{about}" if about else "")


class Bash(shell_completion.BashComplete):
    """bash splits --option=value into three words."""

    def source(self) -> str:
        """The code for ~/.bashrc."""
        return _BASH

    def get_completion_args(self) -> tuple[list[str], str]:
        """The words before the one that is completed, and that one."""
        args, word = super().get_completion_args()
        return [arg for arg in args if arg != "="], "" if word == "=" else word


class Zsh(shell_completion.ZshComplete):
    """zsh."""

    def source(self) -> str:
        """The code for ~/.zshrc, or for a file in $fpath."""
        return _ZSH

    def format_completion(self, item: CompletionItem[str]) -> str:
        """A choice as a line."""
        return _described(item)


class Fish(shell_completion.FishComplete):
    """fish."""

    def source(self) -> str:
        """The code for a file in ~/.config/fish/completions."""
        return _FISH

    def format_completion(self, item: CompletionItem[str]) -> str:
        """A choice as a line."""
        return _described(item)


_SHELLS = {"bash": Bash, "zsh": Zsh, "fish": Fish}


def register() -> None:
    """Make click use these classes instead of its own."""
    for name, shell in _SHELLS.items():
        shell_completion.add_completion_class(shell, name)


def source(shell: str, program: click.Command) -> str:
    """The code that completes words in a shell, without the final newline."""
    return _SHELLS[shell](program, {}, "cowcloop", "_COWCLOOP_COMPLETE").source().rstrip("\n")


def served(
    _ctx: click.Context, _param: click.Parameter, incomplete: str
) -> list[CompletionItem[str]]:
    """Devices and sockets; a shell would split an address at its : and ?."""
    from cowcloop import registry

    records = [entry.record for entry in registry.entries() if entry.record is not None]
    return [
        CompletionItem(name, help=os.path.basename(record.image))
        for record in records
        for name in [record.device or record.socket or record.uri]
        if name.startswith(incomplete)
    ]


def served_or_file(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem[str]]:
    """Served devices, and files."""
    return [*served(ctx, param, incomplete), CompletionItem(incomplete, type="file")]


def mounted_or_directory(
    _ctx: click.Context, _param: click.Parameter, incomplete: str
) -> list[CompletionItem[str]]:
    """Where devices are mounted, and directories."""
    from cowcloop import registry

    points = [entry.record.mount for entry in registry.entries() if entry.record is not None]
    found = [CompletionItem(point) for point in points if point and point.startswith(incomplete)]
    return [*found, CompletionItem(incomplete, type="dir")]

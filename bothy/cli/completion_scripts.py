"""The fixed parts of the completion scripts. @TABLES@, @WORDS@, @VALUES@ and @BASH@ are filled in by `completion`."""

from __future__ import annotations

BASH = r"""# bash completion of bothy; made by `bothy completion bash`

_bothy_verb() {
    case "$1" in
@TABLES@
    *) return 1 ;;
    esac
}

_bothy_follow() {
    case "$1" in
@WORDS@
    *) _bothy_next='' ;;
    esac
}

_bothy_value() {
    case "$1" in
@VALUES@
    *) _bothy_choices='' ;;
    esac
}

_bothy_dynamic() {
    case "$1" in
    containers) bothy ps -a --format '{{.Names}}' 2>/dev/null ;;
    running) bothy ps --format '{{.Names}}' 2>/dev/null ;;
    images) bothy images --format '{{.Repository}}:{{.Tag}}' 2>/dev/null ;;
    volumes) bothy volume ls -q 2>/dev/null ;;
    snapshots) bothy volume snapshot ls -q 2>/dev/null ;;
    secrets) bothy secret ls --format '{{.Name}}' 2>/dev/null ;;
    networks) bothy network ls --format '{{.Name}}' 2>/dev/null ;;
    templates) bothy machine template ls -q 2>/dev/null ;;
    esac
}

_bothy() {
    local current=${COMP_WORDS[COMP_CWORD]} previous='' begin='' verb='' word candidate i
    local _bothy_switches='' _bothy_valued='' _bothy_kind='' _bothy_stops='' _bothy_next='' _bothy_choices='' arguments=0
    ((COMP_CWORD > 0)) && previous=${COMP_WORDS[COMP_CWORD - 1]}
    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        if [[ -z $verb ]]; then
            [[ $word == -* ]] && continue
            candidate=${begin:+$begin }$word
            begin=$candidate
            if _bothy_verb "$candidate"; then
                _bothy_follow "$candidate"
                [[ -z $_bothy_next ]] && verb=$candidate
            fi
        elif [[ " $_bothy_valued " == *" $word "* ]]; then
            ((i++))
        elif [[ $word != -* ]]; then
            ((arguments++))
        fi
    done
    if [[ -z $verb ]]; then
        _bothy_follow "$begin"
        COMPREPLY=($(compgen -W "$_bothy_next" -- "$current"))
        return
    fi
    if [[ -n $_bothy_stops && $arguments -gt 0 ]]; then
        COMPREPLY=($(compgen -f -- "$current"))
        return
    fi
    if [[ " $_bothy_valued " == *" $previous "* ]]; then
        _bothy_value "$previous"
        if [[ $_bothy_choices == @files ]]; then
            COMPREPLY=($(compgen -f -- "$current"))
        else
            COMPREPLY=($(compgen -W "$_bothy_choices" -- "$current"))
        fi
        return
    fi
    if [[ $current == -* ]]; then
        COMPREPLY=($(compgen -W "$_bothy_switches $_bothy_valued" -- "$current"))
    elif [[ $_bothy_kind == files ]]; then
        COMPREPLY=($(compgen -f -- "$current"))
    elif [[ $_bothy_kind == copies ]]; then
        COMPREPLY=($(compgen -S : -W "$(_bothy_dynamic containers)" -- "$current") $(compgen -f -- "$current"))
        compopt -o nospace 2>/dev/null
    elif [[ -n $_bothy_kind ]]; then
        COMPREPLY=($(compgen -W "$(_bothy_dynamic "$_bothy_kind")" -- "$current"))
        type __ltrim_colon_completions &>/dev/null && __ltrim_colon_completions "$current"
    fi
}

complete -F _bothy bothy
"""

ZSH = r"""#compdef bothy
# zsh completion of bothy; made by `bothy completion zsh`. It is bash's function under zsh's emulation of it.

autoload -Uz bashcompinit && bashcompinit

@BASH@
"""

FISH_HEAD = r"""# fish completion of bothy; made by `bothy completion fish`

function __bothy_words
    set -l words (commandline -opc)
    set -e words[1]
    for word in $words
        string match -q -- '-*' $word; or echo $word
    end
end

function __bothy_at
    set -l words (__bothy_words)
    test "$words" = "$argv"
end

function __bothy_in
    set -l words (__bothy_words)
    set -l count (count $argv)
    test (count $words) -ge $count; and test "$words[1..$count]" = "$argv"
end

function __bothy_containers
    bothy ps -a --format '{{.Names}}' 2>/dev/null
end

function __bothy_copies
    bothy ps -a --format '{{.Names}}:' 2>/dev/null
end

function __bothy_running
    bothy ps --format '{{.Names}}' 2>/dev/null
end

function __bothy_images
    bothy images --format '{{.Repository}}:{{.Tag}}' 2>/dev/null
end

function __bothy_volumes
    bothy volume ls -q 2>/dev/null
end

function __bothy_snapshots
    bothy volume snapshot ls -q 2>/dev/null
end

function __bothy_secrets
    bothy secret ls --format '{{.Name}}' 2>/dev/null
end

function __bothy_networks
    bothy network ls --format '{{.Name}}' 2>/dev/null
end

function __bothy_templates
    bothy machine template ls -q 2>/dev/null
end

complete -c bothy -f
"""

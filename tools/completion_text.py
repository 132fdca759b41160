"""The lines that read the tables of `completion`, for each shell."""

from typing import Final

ASK: Final = r"""
# Names that the service knows. Where none answers there are none.
_iifuse_names() {
    case $1 in
        @set) timeout 2 iiadm "${@:2}" -l --json | grep -o '"shadow": *"[^"]*"' | cut -d'"' -f4 ;;
        @group) timeout 2 iiadm "${@:2}" -g -L ;;
        @instance)
            local path
            for path in $(ls -d @RUN@/*/control.sock); do
                path=${path%/control.sock}
                echo "${path##*/}"
            done ;;
    esac 2>/dev/null </dev/null
}

# What may stand after these words of the command line, the first of which is the program.
_iifuse_kinds() {
    local program=${1##*/} found word key
    for word in "$@"; do key="$program $word"; done
    found=${_iifuse_after[$key]-}
    if [[ -z $found ]]; then
        found=${_iifuse_words[$program]-}
        for word in "${@:2}"; do
            key="$program $word"
            [[ -z ${_iifuse_words[$key]-} ]] || found=${_iifuse_words[$key]}
        done
    fi
    echo "$found"
}
"""
"""The lines that are the same for both shells."""

BASH: Final = (
    r"""# Completion for iifuse and its tools; made by iitools.completion.

declare -gA _iifuse_options=(
@OPTIONS@
)
declare -gA _iifuse_after=(
@AFTER@
)
declare -gA _iifuse_words=(
@WORDS@
)
"""
    + ASK
    + r"""
_iifuse() {
    local -a tokens where=()
    local kind current cut index key program=${COMP_WORDS[0]##*/}
    # The words as they were typed: readline splits them at = and : as well.
    read -ra tokens <<<"${COMP_LINE:0:COMP_POINT}x"
    current=${tokens[-1]%x}
    unset 'tokens[-1]'
    if [[ $current == --*=* ]]; then
        tokens+=("${current%%=*}")
        current=${current#*=}
    fi
    for index in "${!tokens[@]}"; do
        case ${tokens[index]} in
            --socket | --instance) where=("${tokens[@]:index:2}") ;;
        esac
    done
    COMPREPLY=()
    key="$program ${tokens[-1]}"
    if [[ $current == -* && -z ${_iifuse_after[$key]-} ]]; then
        mapfile -t COMPREPLY < <(compgen -W "${_iifuse_options[$program]}" -- "$current")
        return
    fi
    for kind in $(_iifuse_kinds "${tokens[@]}"); do
        case $kind in
            @nothing) ;;
            @file) compopt -o filenames 2>/dev/null
                mapfile -t -O "${#COMPREPLY[@]}" COMPREPLY < <(compgen -f -- "$current") ;;
            @*) mapfile -t -O "${#COMPREPLY[@]}" COMPREPLY < <(
                    _iifuse_names "$kind" "${where[@]}" | while IFS= read -r kind; do
                        [[ $kind != "$current"* ]] || echo "$kind"
                    done) ;;
            *) [[ $kind != "$current"* ]] || COMPREPLY+=("$kind") ;;
        esac
    done
    [[ ${#COMPREPLY[@]} != 1 || ${COMPREPLY[0]} != *= ]] || compopt -o nospace 2>/dev/null
    # Readline replaces only what stands behind the last = or :.
    cut=${current%"${current##*[=:]}"}
    [[ -z $cut || $COMP_WORDBREAKS != *[=:]* ]] || COMPREPLY=("${COMPREPLY[@]#"$cut"}")
}

complete -F _iifuse @PROGRAMS@
"""
)

ZSH: Final = (
    r"""#compdef @PROGRAMS@
# Completion for iifuse and its tools; made by iitools.completion.

typeset -gA _iifuse_options _iifuse_after _iifuse_words
_iifuse_options=(
@OPTIONS@
)
_iifuse_after=(
@AFTER@
)
_iifuse_words=(
@WORDS@
)
"""
    + ASK
    + r"""
_iifuse() {
    local -a tokens where found
    local kind index key program=${words[1]:t}
    tokens=("${(@)words[1,CURRENT-1]}")
    if [[ $PREFIX == --*=* ]]; then
        tokens+=("${PREFIX%%=*}")
        compset -P '*='
    fi
    for index in {1..$#tokens}; do
        case $tokens[index] in
            --socket | --instance) where=("${(@)tokens[index,index+1]}") ;;
        esac
    done
    key="$program $tokens[-1]"
    if [[ $PREFIX == -* && -z ${_iifuse_after[$key]-} ]]; then
        compadd -- ${=_iifuse_options[$program]}
        return
    fi
    for kind in $(_iifuse_kinds "${tokens[@]}"); do
        case $kind in
            @nothing) ;;
            @file) _files ;;
            @*) found=("${(@f)$(_iifuse_names $kind $where)}")
                compadd -- ${found:#} ;;
            *=) compadd -S '' -- $kind ;;
            *) compadd -- $kind ;;
        esac
    done
}

_iifuse "$@"
"""
)

# Completion of nvmf, nvmf-connect, nvmf-target and nvmf-bench for bash. Verbs and options come from
# the programs' own --help, so that they are always those that there are; names of connections and
# namespaces from `nvmf list`.

# The names of `nvmf list`, unless only those of connections are asked for, and of the connections
# that they belong to.
_nvmf_names() {
  "${1%nvmf*}nvmf" list 2>/dev/null | awk -v only="${2-}" 'NR > 2 && !NF { exit }
    NR > 2 { if (!only) print $1; if (sub(/n[0-9]+$/, "", $1)) print $1 }' | sort -u
}

# What may stand after a verb: most take a connection or a namespace, these connections only.
_nvmf_operands() {
  case "$2" in
    help) _nvmf_verbs "$1" ;;
    explain) ;;
    disconnect | policy | events | stats | trace | reset | ns-rescan | discover | connect-all)
      _nvmf_names "$1" connections ;;
    *) _nvmf_names "$1" ;;
  esac
}

_nvmf_verbs() {
  "$1" --help 2>/dev/null | awk '/^Subcommands:/ { on = 1; next } !NF { on = 0 } on { print $1 }'
}

# Options of a program or verb, each with what stands for its value: "--nqn NQN", "-H ".
_nvmf_options() {
  "$@" --help 2>/dev/null | sed -nE 's/^  (-[^ ]*)( ([A-Z][A-Z:]*))?( .*)?$/\1 \3/p' |
    awk '{ n = split($1, names, ","); for (i = 1; i <= n; i++) print names[i], $2 }'
}

_nvmf() {
  local program=${COMP_WORDS[0]} word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]}
  local command=("$program") options value
  COMPREPLY=()
  if [ "${program##*/}" = nvmf ]; then
    if [ "$COMP_CWORD" -eq 1 ]; then
      # shellcheck disable=SC2207 # one candidate a word
      COMPREPLY=($(compgen -W "$(_nvmf_verbs "$program") --help --version" -- "$word"))
      return
    fi
    command+=("${COMP_WORDS[1]}")
  fi
  options=$(_nvmf_options "${command[@]}")
  value=$(awk -v name="$before" '$1 == name { print $2; exit }' <<<"$options")
  case "$value" in
    "") ;;
    FORMAT) COMPREPLY=($(compgen -W "normal json binary" -- "$word")); return ;;
    FILE | SOCKET | PATH | DIR) COMPREPLY=($(compgen -f -- "$word")); return ;;
    NAME) COMPREPLY=($(compgen -W "$(_nvmf_names "$program")" -- "$word")); return ;;
    *) return ;;  # a number, an address: nothing that could be known
  esac
  case "$word" in
    -*) COMPREPLY=($(compgen -W "$(awk '{ print $1 }' <<<"$options")" -- "$word")) ;;
    *) [ "${program##*/}" = nvmf ] &&
      COMPREPLY=($(compgen -W "$(_nvmf_operands "$program" "${COMP_WORDS[1]}")" -- "$word")) ;;
  esac
}

complete -o default -F _nvmf nvmf nvmf-connect nvmf-target nvmf-bench

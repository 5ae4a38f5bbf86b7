"""Writes the completion of the command line for bash and zsh.

The scripts hold all names themselves, so that completing starts no Python.
"""

from mllm_selector_jax.stages import COMMANDS
from mllm_selector_jax.usage.config_keys import list_shipped, read_keys
from mllm_selector_jax.usage.flag_table import COMMON, OTHERS, Flag, list_flags

SHELLS = ("bash", "zsh")

# COMP_WORDBREAKS usually has `=`, so that bash replaces only what follows it.
_BASH = r"""# Completion of mllm-selector: eval "$(mllm-selector completion bash)"
_mllm_selector() {
  local line="${COMP_LINE:0:COMP_POINT}" command="" part word value
  local flags keys='@KEYS@' switches='@SWITCHES@'
  word="${line##*[[:space:]]}"
  value="${word#*=}"
  local -a parts
  read -ra parts <<< "${line%"$word"}"
  for part in "${parts[@]:1}"; do
    [[ $part == -* ]] || { command="$part"; break; }
  done
  case "$command" in
@FLAGS@
  esac
  COMPREPLY=()
  case "$word" in
    --config=*)
      mapfile -t COMPREPLY < <(compgen -f -W '@CONFIGS@' -- "$value")
      compopt -o filenames 2> /dev/null ;;
    --*=*)
      if [[ " $switches " == *" ${word%%=*} "* ]]; then
        mapfile -t COMPREPLY < <(compgen -W 'True False' -- "$value")
      else
        mapfile -t COMPREPLY < <(compgen -f -- "$value")
        compopt -o filenames 2> /dev/null
      fi ;;
    --config.*) mapfile -t COMPREPLY < <(compgen -W "$keys" -- "$word") ;;
    -*)
      [[ $flags == *--config=* ]] && flags+=" --config."
      mapfile -t COMPREPLY < <(compgen -W "$flags" -- "$word") ;;
    *)
      case "$command" in
        "") mapfile -t COMPREPLY < <(compgen -W '@COMMANDS@' -- "$word") ;;
        completion) mapfile -t COMPREPLY < <(compgen -W '@SHELLS@' -- "$word") ;;
      esac ;;
  esac
  if [[ $word == *=* && $COMP_WORDBREAKS != *=* ]]; then
    COMPREPLY=("${COMPREPLY[@]/#/"${word%%=*}="}")
  fi
  [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *[=.] ]] &&
    compopt -o nospace 2> /dev/null
  return 0
}
complete -F _mllm_selector mllm-selector
"""
_ZSH = r"""#compdef mllm-selector
# Completion of mllm-selector: eval "$(mllm-selector completion zsh)" after compinit
_mllm_selector() {
  local word="${words[CURRENT]}" command="" part
  local -a flags keys=(@KEYS@) switches=(@SWITCHES@)
  for part in "${(@)words[2,CURRENT-1]}"; do
    [[ $part == -* ]] || { command="$part"; break; }
  done
  case "$command" in
@FLAGS@
  esac
  case "$word" in
    --config=*)
      compset -P '*='
      compadd -- @CONFIGS@
      _files ;;
    --*=*)
      compset -P '*='
      if (( ${switches[(Ie)${word%%=*}]} )); then
        compadd -- True False
      else
        _files
      fi ;;
    --config.*) compadd -S '' -- $keys ;;
    -*)
      (( ${flags[(Ie)--config=]} )) && flags+=(--config.)
      compadd -S '' -- $flags ;;
    *)
      case "$command" in
        "") compadd -- @COMMANDS@ ;;
        completion) compadd -- @SHELLS@ ;;
      esac ;;
  esac
}
if [[ ${funcstack[1]} == _mllm-selector ]]; then
  _mllm_selector "$@"  # read as a file of $fpath
else
  compdef _mllm_selector mllm-selector
fi
"""


def write_script(shell: str) -> str:
  """Writes the completion for a shell, one of `SHELLS`."""
  keys = read_keys()
  switches = [f"--config.{key}" for key in keys if isinstance(keys[key].default, bool)]
  words = {
    "KEYS": [f"--config.{key}=" for key in keys],
    "SWITCHES": switches,
    "COMMANDS": [*COMMANDS, *OTHERS],
    "CONFIGS": list_shipped(),
    "SHELLS": SHELLS,
  }
  script = _BASH if shell == "bash" else _ZSH
  for name, values in words.items():
    script = script.replace(f"@{name}@", " ".join(values))
  return script.replace("@FLAGS@", _write_cases(shell)).rstrip()


def _write_cases(shell: str) -> str:
  """Writes the branch of each command, which sets its flags."""
  branches = {"": _name_flags(COMMON), "assemble": _list_assemble_flags()}
  for command in (*COMMANDS, "verify", "push"):
    branches.setdefault(command, _name_flags(list_flags(command)))
  opened, closed = ("'", "'") if shell == "bash" else ("(", ")")
  return "\n".join(
    f'    "{command}") flags={opened}{" ".join([*flags, "--help"])}{closed} ;;'
    for command, flags in branches.items()
  )


def _name_flags(flags: dict[str, Flag]) -> list[str]:
  return [f"--{name}=" if flag.value else f"--{name}" for name, flag in flags.items()]


def _list_assemble_flags() -> list[str]:
  from absl import flags

  from mllm_selector_jax.stages import assemble

  return [f"--{flag.name}=" for flag in flags.FLAGS.get_key_flags_for_module(assemble)]

// SPDX-License-Identifier: BSD-2-Clause
/**
 * `hastctl completion bash`: what bash needs to complete hastctl's arguments, made from the commands
 * themselves: their names, their options, and of their synopses the words in < > and the names of
 * resources and files. Resources are looked up in the hast.conf of the line being typed.
 */
import type { CommandSyntax, FileCommand } from "./command.ts";
import { EX_OK } from "./exit-code.ts";
import { COMMON_OPTIONS } from "./options.ts";

export const completion: FileCommand = {
  name: "completion",
  options: [],
  synopsis: "<bash>",
  refuse: (args) =>
    args.length === 1 && args[0] === "bash" ? null : "bash is the one shell it is for",
  async runAtDesk(_args, _options, { terminal, commands }) {
    terminal.out(bashCompletion(commands));
    return EX_OK;
  },
};

function bashCompletion(commands: readonly CommandSyntax[]): string {
  const firsts = [...new Set(commands.map(({ name }) => name.split(" ")[0]!)), "--version"];
  const seconds = commands.map(({ name }) => name.split(" ")).filter((words) => words.length > 1);
  const groups = [...new Set(seconds.map(([first]) => first!))];
  const groupCases = groups.map((group) => {
    const words = seconds.filter(([first]) => first === group).map(([, second]) => second);
    return `    ${group}) group="${words.join(" ")}" ;;`;
  });
  return `# bash completion for hastctl. Made by "hastctl completion bash": load it with
#   source <(hastctl completion bash)

_hastctl() {
  local word=\${COMP_WORDS[COMP_CWORD]} previous=\${COMP_WORDS[COMP_CWORD-1]}
  local command=\${COMP_WORDS[1]} first=2 config=/etc/hast.conf group='' i n=0
  local options='' choices='' names='' files='' takesfile='' takesword='' all=''
  COMPREPLY=()
  if ((COMP_CWORD == 1)); then
    mapfile -t COMPREPLY < <(compgen -W "${firsts.join(" ")}" -- "$word")
    return
  fi
  case $command in
${groupCases.join("\n")}
  esac
  if [[ -n $group ]]; then
    if ((COMP_CWORD == 2)); then
      mapfile -t COMPREPLY < <(compgen -W "$group" -- "$word")
      return
    fi
    command+=" \${COMP_WORDS[2]}" first=3
  fi
  case $command in
${commands.map(commandCase).join("\n")}
    *) return ;;
  esac
  # n: how many arguments stand before the word.
  for ((i = first; i < COMP_CWORD; i++)); do
    if [[ \${COMP_WORDS[i]} == -c ]]; then config=\${COMP_WORDS[i+1]}; fi
    if [[ " $takesfile $takesword " == *" \${COMP_WORDS[i]} "* ]]; then
      i=$((i + 1))
    elif [[ \${COMP_WORDS[i]} != -* ]]; then
      n=$((n + 1))
    fi
  done
  if [[ " $takesfile " == *" $previous "* ]]; then
    files=1 choices='' names='' n=0
  elif [[ " $takesword " == *" $previous "* ]]; then
    return
  elif [[ $word == -* ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$options" -- "$word")
    return
  fi
  if [[ -n $choices ]]; then
    if ((n == 0)); then
      mapfile -t COMPREPLY < <(compgen -W "$choices" -- "$word")
      return
    fi
    n=$((n - 1))
  fi
  if [[ -n $names ]]; then
    names="$(sed -n 's/^[[:space:]]*resource[[:space:]]\\{1,\\}\\([^[:space:]{#]*\\).*/\\1/p' "$config" 2>/dev/null)"
    if ((n == 0)) && [[ -n $all ]]; then names+=" all"; fi
    mapfile -t COMPREPLY < <(compgen -W "$names" -- "$word")
  elif [[ -n $files ]]; then
    compopt -o filenames 2>/dev/null
    mapfile -t COMPREPLY < <(compgen -f -- "$word")
  fi
}
complete -F _hastctl hastctl
`;
}

/** What can follow one command, as assignments in the shell. */
function commandCase({ name, options, synopsis }: CommandSyntax): string {
  const known = [...COMMON_OPTIONS, ...options];
  const flags = [...known.map(({ flag }) => flag), "-h"];
  const taking = known.filter(({ argument }) => argument !== null);
  const files = taking.filter(({ argument }) => argument === "file" || argument === "config");
  const words = taking.filter((each) => !files.includes(each));
  const join = (list: readonly { readonly flag: string }[]): string =>
    list.map(({ flag }) => flag).join(" ");
  const choices = /<([^>]*)>/.exec(synopsis)?.[1]?.replaceAll(" |", "") ?? "";
  const assigned = [
    `options="${flags.join(" ")}"`,
    `takesfile="${join(files)}"`,
    `takesword="${join(words)}"`,
    `choices="${choices}"`,
    `names=${/\bname\b/.test(synopsis) ? 1 : ""}`,
    `all=${/\ball\b/.test(synopsis) ? 1 : ""}`,
    `files=${/\bfile\b/.test(synopsis) ? 1 : ""}`,
  ];
  return `    "${name}")\n${assigned.map((each) => `      ${each}\n`).join("")}      ;;`;
}

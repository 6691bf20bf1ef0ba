/** Completion scripts: static texts, for to ask this program at every key would take too long. Enclaves' names alone are asked for. */
import type { CompletedOption, CompletedVerb, Kind } from "./completion.ts";

/** Prints names of enclaves, a line each; the program is the one that is being completed. */
const NAMES = "ps --all --quiet 2>/dev/null";
const GLOBAL = ["help", "--help", "--version"];

/** Source: bash(1), "Programmable Completion". An empty reply means files, by `-o default`. */
export function bashScript(verbs: readonly CompletedVerb[]): string {
  return `# Made by \`cloister completion bash\`.
_cloister() {
  local cur=\${COMP_WORDS[COMP_CWORD]} prev=\${COMP_WORDS[COMP_CWORD - 1]} words=
  COMPREPLY=()
  if ((COMP_CWORD == 1)); then
    words=${quoted([...verbs.map(({ name }) => name), ...GLOBAL].join(" "))}
  else
    case \${COMP_WORDS[1]} in
${verbs.map(bashVerb).join("\n")}
    *) return ;;
    esac
  fi
  COMPREPLY=($(compgen -W "$words" -- "$cur"))
}
complete -o bashdefault -o default -F _cloister cloister
`;
}

function bashVerb({ name, options, operand }: CompletedVerb): string {
  const flags = options.flatMap(({ name, short }) => [
    ...(short === undefined ? [] : [`-${short}`]),
    `--${name}`,
  ]);
  const values = options.flatMap((option) => {
    return option.value === undefined
      ? []
      : [`        ${names(option).join(" | ")}) ${bashKind(option.value.kind)} ;;`];
  });
  return `    ${name})
      case $prev in
${values.join("\n")}
        *)
          case $cur in
            -*) words=${quoted(flags.join(" "))} ;;
            *) ${bashKind(operand.kind)} ;;
          esac
          ;;
      esac
      ;;`;
}

function bashKind(kind: Kind): string {
  switch (kind.type) {
    case "enclaves":
      return `words=$("\${COMP_WORDS[0]}" ${NAMES})`;
    case "files":
      return "return";
    case "folders":
      return 'COMPREPLY=($(compgen -d -- "$cur")) && return';
    case "words":
      return `words=${quoted(kind.words.join(" "))}`;
    case "text":
      return "compopt +o default +o bashdefault && return";
  }
}

/** Source: zshcompsys(1), `_arguments` and `_describe`. Works as a file of $fpath and by `source`. */
export function zshScript(verbs: readonly CompletedVerb[]): string {
  return `#compdef cloister
# Made by \`cloister completion zsh\`.
_cloister_enclaves() {
  local -a names
  names=(\${(f)"$(cloister ${NAMES})"})
  compadd -a names
}
_cloister() {
  local curcontext="$curcontext" state line
  local -a verbs
  _arguments -C '1: :->verb' '*:: :->words'
  case $state in
    verb)
      verbs=(
${verbs.map(({ name, summary }) => `        ${quoted(`${name}:${summary}`)}`).join("\n")}
      )
      _describe verb verbs
      ;;
    words)
      case $line[1] in
${verbs.map(zshVerb).join("\n")}
      esac
      ;;
  esac
}
if [[ $funcstack[1] == _cloister ]]; then _cloister "$@"; else compdef _cloister cloister; fi
`;
}

function zshVerb({ name, options, operand }: CompletedVerb): string {
  const specs = [
    ...options.flatMap(zshOption),
    `*:${zshText(operand.name || " ")}:${zshKind(operand.kind)}`,
  ].map((spec) => ` \\\n            ${quoted(spec)}`);
  return `        ${name})\n          _arguments -s${specs.join("")}\n          ;;`;
}

/** One spec a name; each may be given again, for what may not is the verb's to say. */
function zshOption(option: CompletedOption): string[] {
  const { description, value } = option;
  const argument = value === undefined ? "" : `:${zshText(value.name)}:${zshKind(value.kind)}`;
  return names(option).map((name) => `*${name}[${zshText(description)}]${argument}`);
}

function zshText(text: string): string {
  return text.replace(/[\\:[\]]/g, "\\$&");
}

function zshKind(kind: Kind): string {
  switch (kind.type) {
    case "enclaves":
      return "_cloister_enclaves";
    case "files":
      return "_files";
    case "folders":
      return "_files -/";
    case "words":
      return `(${kind.words.join(" ")})`;
    case "text":
      return " ";
  }
}

/** Source: fish's complete(1). */
export function fishScript(verbs: readonly CompletedVerb[]): string {
  return `# Made by \`cloister completion fish\`.
complete -c cloister -f
${verbs.flatMap(fishVerb).join("\n")}
`;
}

function fishVerb({ name, summary, options, operand }: CompletedVerb): string[] {
  const seen = `complete -c cloister -n '__fish_seen_subcommand_from ${name}'`;
  return [
    `complete -c cloister -n __fish_use_subcommand -a ${name} -d ${fishQuoted(summary)}`,
    ...options.map(({ name, short, description, value }) => {
      const flags = `-l ${name}${short === undefined ? "" : ` -s ${short}`}`;
      return `${seen} ${flags}${value === undefined ? "" : ` ${fishKind(value.kind, "-r", "-x")}`} -d ${fishQuoted(description)}`;
    }),
    ...(operand.kind.type === "text" ? [] : [`${seen} ${fishKind(operand.kind, "", "")}`]),
  ];
}

/** `-F`: files in spite of the `-f` for all. */
function fishKind(kind: Kind, files: string, others: string): string {
  switch (kind.type) {
    case "enclaves":
      return `${others} -a '(cloister ${NAMES})'`.trim();
    case "files":
      return `${files} -F`.trim();
    case "folders":
      return `${others} -a '(__fish_complete_directories)'`.trim();
    case "words":
      return `${others} -a ${fishQuoted(kind.words.join(" "))}`.trim();
    case "text":
      return others;
  }
}

function names({ name, short }: CompletedOption): string[] {
  return short === undefined ? [`--${name}`] : [`-${short}`, `--${name}`];
}

/** As a word of bash and zsh. */
function quoted(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

function fishQuoted(text: string): string {
  return `'${text.replace(/[\\']/g, "\\$&")}'`;
}

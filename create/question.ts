/** The questions, for a terminal. */
import { cancel, confirm, intro, isCancel, select, text } from "@clack/prompts";
import { Failure } from "./failure.ts";
import { nameProblem, TEMPLATES, type Template } from "./options.ts";

/** Throws Failure with status 130 on Ctrl-C. */
function answered<T>(answer: T): Exclude<T, symbol> {
  if (!isCancel(answer)) return answer as Exclude<T, symbol>;
  cancel("Nothing was written.");
  throw new Failure("interrupted", "Run it again.", 130);
}

export function greet(): void {
  intro("cloister: one TypeScript app as an AWS Nitro Enclave");
}

/** `problem` says why a directory will not do. */
export async function askDirectory(problem: (directory: string) => string | undefined): Promise<string> {
  return answered(
    await text({
      message: "Where?",
      placeholder: "my-app",
      defaultValue: "my-app",
      validate: (value) => problem(value || "my-app"),
    }),
  );
}

export async function askName(): Promise<string> {
  return answered(await text({ message: "Its name?", validate: (value) => nameProblem(value ?? "") }));
}

export async function askTemplate(): Promise<Template> {
  const options = Object.entries(TEMPLATES).map(([value, hint]) => ({ value: value as Template, hint }));
  return answered(await select<Template>({ message: "What?", options }));
}

export async function askInstall(manager: string): Promise<boolean> {
  return answered(await confirm({ message: `Install the packages with ${manager}?` }));
}

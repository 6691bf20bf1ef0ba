/** What esbuild reports, as errors of the catalogue: the first one names the code, all frames are in the details. */
import { isBuiltin } from "node:module";
import { type BuildFailure, formatMessages, type Message } from "esbuild";
import { CloisterError } from "../format/errors.ts";

/** More frames than this help nobody. */
const FRAMES_MAX = 5;

/** Throwable for whatever a build rejected with; what is no build failure comes back as it is. */
export async function explainFailure(error: unknown): Promise<unknown> {
  const messages = isBuildFailure(error) ? error.errors : [];
  const [first] = messages;
  if (first === undefined) return error;
  // An error that one of our own plugins threw arrives wrapped.
  if (first.detail instanceof CloisterError) return first.detail;
  const shown = messages.slice(0, FRAMES_MAX).map(withoutAdvice);
  const frames = await formatMessages(shown, { kind: "error", color: false });
  return explain(first, frames.join("").trimEnd());
}

/** esbuild advises its own options, which nobody can set here. */
function withoutAdvice(message: Message): Message {
  return { ...message, notes: message.notes.filter(({ text }) => !text.startsWith("You can mark the path")) };
}

function isBuildFailure(error: unknown): error is BuildFailure {
  return error instanceof Error && Array.isArray((error as Partial<BuildFailure>).errors);
}

function explain(message: Message, details: string): CloisterError {
  const place = message.location === null ? "" : `${message.location.file}:${message.location.line}: `;
  const specifier = /^Could not resolve "(.+)"/.exec(message.text)?.[1];
  if (specifier !== undefined) return unresolved(place, specifier, message, details);
  const extension = /^No loader is configured for "(.*)" files/.exec(message.text)?.[1];
  if (extension !== undefined) {
    const file = /files: (.+)$/.exec(message.text)?.[1] ?? "a file";
    return new CloisterError(
      "E_LOADER",
      `${place}got an import of ${file}, expected a type that can be bundled`,
      {
        details,
        fix: `Import it with { type: "text" } or { type: "bytes" }, or take new URL("./file${extension}", import.meta.url).`,
      },
    );
  }
  return new CloisterError("E_BUNDLE", `${place}${message.text}`, { details });
}

function unresolved(place: string, specifier: string, message: Message, details: string): CloisterError {
  const isPath = /^[./]/.test(specifier);
  if (isPath) {
    return new CloisterError("E_BUNDLE", `${place}found no file for "${specifier}"`, { details });
  }
  if (specifier.startsWith("node:")) {
    return new CloisterError("E_PACKAGE", `${place}Node ${process.versions.node} has no "${specifier}"`, {
      details,
    });
  }
  const name = packageName(specifier);
  // esbuild's notes tell a package that is absent from one that does not export the path asked for.
  const isInstalled = message.notes.some(({ text }) => /exported|package\.json/.test(text));
  if (isInstalled) {
    return new CloisterError("E_PACKAGE", `${place}package "${name}" has no "${specifier}"`, { details });
  }
  return new CloisterError("E_PACKAGE", `${place}package "${name}" is not installed`, {
    details,
    fix: isBuiltin(`node:${name}`) ? `Import "node:${name}".` : `Run \`npm install ${name}\`.`,
  });
}

/** `@scope/name` or `name` of an import specifier. */
export function packageName(specifier: string): string {
  return /^(?:@[^/]+\/)?[^/]+/.exec(specifier)?.[0] ?? specifier;
}

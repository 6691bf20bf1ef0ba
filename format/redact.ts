/** What log records never show: rules of the configuration's `redact`. */

/** As a message says what a rule may be. */
export const REDACT_EXPECTED = 'a field\'s name, or a regular expression as "/pattern/" or "/pattern/i"';

/** Undefined for a rule that names a field. Throws SyntaxError. */
function patternOf(rule: string): RegExp | undefined {
  const [, pattern, flags] = /^\/(.+)\/(i?)$/s.exec(rule) ?? [];
  return pattern === undefined ? undefined : new RegExp(pattern, `gv${flags}`);
}

/** Is it a rule? */
export function isRedactRule(rule: string): boolean {
  if (rule === "" || !rule.isWellFormed()) return false;
  try {
    return patternOf(rule) !== undefined || !rule.startsWith("/");
  } catch {
    // SyntaxError: no regular expression.
    return false;
  }
}

/** An error that the user can mend: shown as message and fix, never as a stack trace. */
export class Failure extends Error {
  readonly fix: string;
  /** 2 for a wrong command line, 130 for Ctrl-C, else 1. */
  readonly status: number;

  constructor(message: string, fix: string, status = 1) {
    super(message);
    this.name = "Failure";
    this.fix = fix;
    this.status = status;
  }
}

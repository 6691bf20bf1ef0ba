/** Certificate authorities of the configuration, as `enclave.json` has them: PEM, each certificate by itself. */
import { X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { CloisterError } from "../format/errors.ts";
import type { Project } from "./project.ts";

const CERTIFICATE = /-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----/g;

/** Throws E_CONFIG for a file that cannot be read or has no certificate that can. */
export function readAuthorities({ directory, config }: Project): string[] {
  return config.ca.flatMap((file, index) => {
    const failure = (got: string) =>
      new CloisterError("E_CONFIG", `ca[${index}]: ${file}: got ${got}, expected certificates in PEM`);
    let text: string;
    try {
      text = readFileSync(resolve(directory, file), "utf8");
    } catch (error) {
      throw failure((error as NodeJS.ErrnoException).code ?? String(error));
    }
    const certificates = text.match(CERTIFICATE) ?? [];
    if (certificates.length === 0) throw failure("none");
    try {
      return certificates.map((pem) => new X509Certificate(pem).toString());
    } catch (error) {
      throw failure((error as Error).message);
    }
  });
}

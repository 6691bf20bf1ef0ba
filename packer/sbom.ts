/** A bill of materials of an enclave, from its report: the same report gives the same bytes. */
import { createHash } from "node:crypto";
import type { Component, Digest } from "./component.ts";
import type { ImageMeasurements } from "./image.ts";
import type { Report } from "./report.ts";

/** CycloneDX 1.6 (ECMA-424) and SPDX 2.3 (ISO/IEC 5962), both as JSON. */
export type SbomFormat = "cyclonedx" | "spdx";

export interface SbomOptions {
  readonly format: SbomFormat;
  readonly measurements: ImageMeasurements;
  /** The release of cloister that makes it. */
  readonly toolVersion: string;
  /** Seconds since 1970. */
  readonly time: number;
}

/** The document, JSON text that ends with a line feed. */
export function encodeSbom(report: Report, options: SbomOptions): string {
  const document = options.format === "spdx" ? spdx(report, options) : cyclonedx(report, options);
  return `${JSON.stringify(document, null, 2)}\n`;
}

/** Every component once, by its purl, with the purls of what it depends on. The app's own come first. */
function components({
  packages,
  platform,
}: Report): Map<string, Component & { readonly on: readonly string[] }> {
  const purls = new Map(packages.map(({ name, version, purl }) => [`${name}@${version}`, purl]));
  const all = new Map<string, Component & { readonly on: readonly string[] }>();
  for (const found of packages) {
    all.set(found.purl, { ...found, on: found.imports.flatMap((id) => purls.get(id) ?? []) });
  }
  for (const found of platform) if (!all.has(found.purl)) all.set(found.purl, { ...found, on: [] });
  return all;
}

/** Purls of what the image itself depends on: what the app imports, and the platform. */
function roots({ imports, packages, platform }: Report): string[] {
  const direct = packages.filter(({ name, version }) => imports.includes(`${name}@${version}`));
  return [...new Set([...direct, ...platform].map(({ purl }) => purl))];
}

const APP_REF = "app";

function cyclonedx(report: Report, { measurements, toolVersion, time }: SbomOptions): object {
  const all = components(report);
  const { PCR0, PCR1, PCR2 } = measurements;
  const body = {
    version: 1,
    metadata: {
      timestamp: isoTime(time),
      tools: { components: [{ type: "application", name: "cloister", version: toolVersion }] },
      component: {
        type: "application",
        "bom-ref": APP_REF,
        name: report.name,
        version: report.version,
        properties: Object.entries({ PCR0, PCR1, PCR2 }).map(([name, value]) => {
          return { name: `cloister:${name}`, value };
        }),
      },
    },
    components: [...all.values()].map(cyclonedxComponent),
    dependencies: [
      { ref: APP_REF, dependsOn: roots(report) },
      ...[...all.values()].map(({ purl, on }) => ({ ref: purl, dependsOn: on })),
    ],
  };
  return {
    $schema: "http://cyclonedx.org/schema/bom-1.6.schema.json",
    bomFormat: "CycloneDX",
    specVersion: "1.6",
    serialNumber: `urn:uuid:${contentUuid(body)}`,
    ...body,
  };
}

function cyclonedxComponent({ name, version, license, purl, cpe, digests }: Component): object {
  const [, group, bare = name] = /^(@[^/]+)\/(.+)$/.exec(name) ?? [];
  return {
    type: purl.includes("/linux-source-") ? "operating-system" : "library",
    "bom-ref": purl,
    ...(group !== undefined && { group }),
    name: bare,
    version,
    ...(license !== undefined && {
      licenses: [isExpression(license) ? { expression: license } : { license: { name: license } }],
    }),
    ...(digests.length > 0 && {
      hashes: digests.map(({ algorithm, value }) => ({ alg: algorithm, content: value })),
    }),
    ...(cpe !== undefined && { cpe }),
    purl,
  };
}

function spdx(report: Report, { measurements, toolVersion, time }: SbomOptions): object {
  const all = components(report);
  const { PCR0, PCR1, PCR2 } = measurements;
  const app = {
    SPDXID: "SPDXRef-App",
    name: report.name,
    versionInfo: report.version,
    primaryPackagePurpose: "APPLICATION",
    comment: `Measured as PCR0 ${PCR0}, PCR1 ${PCR1}, PCR2 ${PCR2}`,
    ...UNKNOWN,
  };
  const ids = new Map([...all.keys()].map((purl) => [purl, spdxId(purl)]));
  const id = (purl: string) => ids.get(purl) ?? "NOASSERTION";
  const depends = (from: string, purls: readonly string[]) =>
    purls.map((purl) => relationship(from, "DEPENDS_ON", id(purl)));
  const body = {
    name: `${report.name}-${report.version}`,
    creationInfo: { created: isoTime(time), creators: [`Tool: cloister-${toolVersion}`] },
    packages: [app, ...[...all.values()].map((found) => spdxPackage(found, id(found.purl)))],
    relationships: [
      relationship("SPDXRef-DOCUMENT", "DESCRIBES", app.SPDXID),
      ...[...all.keys()].map((purl) => relationship(app.SPDXID, "CONTAINS", id(purl))),
      ...depends(app.SPDXID, roots(report)),
      ...[...all.values()].flatMap(({ purl, on }) => depends(id(purl), on)),
    ],
  };
  return {
    spdxVersion: "SPDX-2.3",
    dataLicense: "CC0-1.0",
    SPDXID: "SPDXRef-DOCUMENT",
    documentNamespace: `https://spdx.org/spdxdocs/${encodeURIComponent(body.name)}-${contentUuid(body)}`,
    ...body,
  };
}

/** Nothing was concluded, and no files are listed: the packages' own words are all there is. */
const UNKNOWN = {
  downloadLocation: "NOASSERTION",
  filesAnalyzed: false,
  licenseConcluded: "NOASSERTION",
  copyrightText: "NOASSERTION",
} as const;

function spdxPackage({ name, version, license, purl, cpe, digests }: Component, id: string): object {
  const isKnown = license !== undefined && isExpression(license);
  return {
    SPDXID: id,
    name,
    versionInfo: version,
    ...UNKNOWN,
    licenseDeclared: isKnown ? license : "NOASSERTION",
    ...(license !== undefined && !isKnown && { licenseComments: `Its author says: ${license}` }),
    ...(digests.length > 0 && { checksums: digests.map(spdxChecksum) }),
    externalRefs: [
      { referenceCategory: "PACKAGE-MANAGER", referenceType: "purl", referenceLocator: purl },
      ...(cpe === undefined
        ? []
        : [{ referenceCategory: "SECURITY", referenceType: "cpe23Type", referenceLocator: cpe }]),
    ],
  };
}

function spdxChecksum({ algorithm, value }: Digest): object {
  return { algorithm: algorithm.replace("-", ""), checksumValue: value };
}

function relationship(from: string, type: "CONTAINS" | "DEPENDS_ON" | "DESCRIBES", to: string): object {
  return { spdxElementId: from, relationshipType: type, relatedSpdxElement: to };
}

/** SPDX 2.3 §3.2: letters, digits, `.` and `-`. Purls that differ in other characters alone are told apart by a digest. */
function spdxId(purl: string): string {
  const digest = createHash("sha256").update(purl).digest("hex").slice(0, 8);
  const name = purl.replace(/^pkg:|\?.*$/g, "").replace(/[^A-Za-z0-9.]+/g, "-");
  return `SPDXRef-${name}-${digest}`;
}

/** Is it an SPDX license expression (SPDX 2.3 annex D) and no "SEE LICENSE IN …"? Identifiers are not looked up. */
export function isExpression(license: string): boolean {
  const tokens = license.match(/[()]|[^\s()]+/g) ?? [];
  const operators = new Set(["AND", "OR", "WITH"]);
  const isOperand = (token: string) =>
    /^[A-Za-z0-9][A-Za-z0-9.-]*\+?$/.test(token) && token !== "UNLICENSED" && !operators.has(token);
  let depth = 0;
  let wantsOperand = true;
  for (const token of tokens) {
    if (token === "(" && wantsOperand) depth++;
    else if (token === ")" && !wantsOperand && depth > 0) depth--;
    else if (operators.has(token) && !wantsOperand) wantsOperand = true;
    else if (wantsOperand && isOperand(token)) wantsOperand = false;
    else return false;
  }
  return !wantsOperand && depth === 0;
}

function isoTime(seconds: number): string {
  return new Date(seconds * 1000).toISOString().replace(".000Z", "Z");
}

/** RFC 9562 §5.8: version 8, what the bits say is ours: a digest of the document. */
function contentUuid(body: object): string {
  const hex = createHash("sha256").update(JSON.stringify(body)).digest("hex");
  const variant = ((Number.parseInt(hex.slice(16, 17), 16) & 3) | 8).toString(16);
  return [
    hex.slice(0, 8),
    hex.slice(8, 12),
    `8${hex.slice(13, 16)}`,
    `${variant}${hex.slice(17, 20)}`,
    hex.slice(20, 32),
  ].join("-");
}

/**
 * Bills of materials: the rules of CycloneDX 1.6 and SPDX 2.3 that apply to what is written here. Once by hand, the
 * official schema of CycloneDX accepted the bill of an app with 60 packages.
 */
import { describe, expect, test } from "vitest";
import { bundleApp } from "../../packer/bundle.ts";
import { loadProject } from "../../packer/project.ts";
import { readRelease } from "../../packer/release.ts";
import { makeReport, type Report } from "../../packer/report.ts";
import { encodeSbom, isExpression, type SbomFormat } from "../../packer/sbom.ts";
import { folder, manifest } from "./folder.ts";

const measurements = { HashAlgorithm: "Sha384 { ... }", PCR0: "00", PCR1: "11", PCR2: "22" };

function encode(report: Report, format: SbomFormat, time = 0): string {
  return encodeSbom(report, { format, measurements, toolVersion: "9.9.9", time });
}

async function report(): Promise<Report> {
  const directory = folder({
    "package.json": manifest({ name: "@me/app", version: "1.2.3" }),
    "app.ts": 'import { a } from "alpha"; console.log(a);',
    "package-lock.json": JSON.stringify({
      packages: { "node_modules/alpha": { integrity: "sha1-AAAA sha512-BBBB md5-CCCC" } },
    }),
    "node_modules/alpha/package.json": manifest({
      name: "alpha",
      version: "1.0.0+x",
      license: "SEE LICENSE IN x",
    }),
    "node_modules/alpha/index.js": 'export * from "@scope/beta";',
    "node_modules/@scope/beta/package.json": manifest({ name: "@scope/beta", license: "MIT OR ISC" }),
    "node_modules/@scope/beta/index.js": "export const a = 1; console.log(2);",
  });
  const project = await loadProject({ directory });
  return makeReport(project, await bundleApp(project), readRelease());
}

describe("CycloneDX", () => {
  test("has each component once, by its purl, and what it depends on", async () => {
    const bom = JSON.parse(encode(await report(), "cyclonedx"));
    expect(bom).toMatchObject({ bomFormat: "CycloneDX", specVersion: "1.6", version: 1 });
    expect(bom.serialNumber).toMatch(
      /^urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/,
    );
    expect(bom.metadata).toMatchObject({
      timestamp: "1970-01-01T00:00:00Z",
      component: { "bom-ref": "app", type: "application", name: "app", version: "1.2.3" },
    });
    expect(bom.metadata.component.properties).toContainEqual({ name: "cloister:PCR2", value: "22" });
    const refs: string[] = bom.components.map((found: Record<string, string>) => found["bom-ref"]);
    expect(new Set(refs).size).toBe(refs.length);
    expect(bom.components.slice(0, 1)).toEqual([
      {
        type: "library",
        "bom-ref": "pkg:npm/%40scope/beta@1.0.0",
        group: "@scope",
        name: "beta",
        version: "1.0.0",
        licenses: [{ expression: "MIT OR ISC" }],
        purl: "pkg:npm/%40scope/beta@1.0.0",
      },
    ]);
    const edges = new Map(
      bom.dependencies.map(({ ref, dependsOn }: { ref: string; dependsOn: string[] }) => [ref, dependsOn]),
    );
    expect([...edges.keys()].sort()).toEqual(["app", ...refs].sort());
    for (const targets of edges.values()) expect(refs).toEqual(expect.arrayContaining(targets as string[]));
  });

  test("a license that is no expression is a name; digests of known algorithms are kept", async () => {
    const files = await report();
    const alpha = {
      ...files.packages[0],
      name: "alpha",
      license: "SEE LICENSE IN x",
      purl: "pkg:npm/alpha@1",
    };
    const digests = [{ algorithm: "SHA-1", value: "000000" }] as const;
    const packages = [
      { ...alpha, digests, version: "1", sizeBytes: 1, files: 1, isCopied: false, why: [], imports: [] },
    ];
    const [first] = JSON.parse(encode({ ...files, packages }, "cyclonedx")).components;
    expect(first).toMatchObject({
      licenses: [{ license: { name: "SEE LICENSE IN x" } }],
      hashes: [{ alg: "SHA-1", content: "000000" }],
    });
  });
});

describe("SPDX", () => {
  test("has what §6 to §11 demand of a document and its packages", async () => {
    const document = JSON.parse(encode(await report(), "spdx", 1_700_000_000));
    expect(document).toMatchObject({
      spdxVersion: "SPDX-2.3",
      dataLicense: "CC0-1.0",
      SPDXID: "SPDXRef-DOCUMENT",
      name: "app-1.2.3",
      creationInfo: { created: "2023-11-14T22:13:20Z", creators: ["Tool: cloister-9.9.9"] },
    });
    // §6.5: an absolute URI without "#".
    expect(document.documentNamespace).toMatch(/^https:\/\/spdx\.org\/spdxdocs\/[\w.%-]+$/);
    const ids: string[] = document.packages.map(({ SPDXID }: { SPDXID: string }) => SPDXID);
    expect(new Set(ids).size).toBe(ids.length);
    for (const found of document.packages) {
      expect(found.SPDXID).toMatch(/^SPDXRef-[A-Za-z0-9.-]+$/);
      expect(found).toMatchObject({ downloadLocation: "NOASSERTION", filesAnalyzed: false });
      for (const { algorithm, checksumValue } of found.checksums ?? []) {
        expect(algorithm).toMatch(/^SHA(?:1|256|384|512)$/);
        expect(checksumValue).toMatch(/^[0-9a-f]+$/);
      }
      if (found.licenseDeclared !== undefined && found.licenseDeclared !== "NOASSERTION") {
        expect(isExpression(found.licenseDeclared)).toBe(true);
      }
    }
    const known = new Set(["SPDXRef-DOCUMENT", ...ids]);
    for (const { spdxElementId, relationshipType, relatedSpdxElement } of document.relationships) {
      expect([known.has(spdxElementId), known.has(relatedSpdxElement)]).toEqual([true, true]);
      expect(["CONTAINS", "DEPENDS_ON", "DESCRIBES"]).toContain(relationshipType);
    }
    expect(document.relationships[0]).toEqual({
      spdxElementId: "SPDXRef-DOCUMENT",
      relationshipType: "DESCRIBES",
      relatedSpdxElement: "SPDXRef-App",
    });
  });
});

test.each(["cyclonedx", "spdx"] as const)(
  "%s: the same report gives the same bytes, another one another id",
  async (format) => {
    const one = await report();
    expect(encode(one, format)).toBe(encode(await report(), format));
    const id = (text: string) => /"(?:serialNumber|documentNamespace)": "(.*)"/.exec(text)?.[1];
    expect(id(encode(one, format))).not.toBe(id(encode({ ...one, version: "2" }, format)));
  },
);

test.each([
  ["MIT", true],
  ["Apache-2.0 WITH LLVM-exception", true],
  ["(MIT OR (GPL-2.0-or-later AND ISC))", true],
  ["GPL-2.0+", true],
  ["UNLICENSED", false],
  ["SEE LICENSE IN LICENSE.md", false],
  ["MIT ISC", false],
  ["MIT OR", false],
  ["(MIT", false],
  ["MIT)", false],
  ["OR", false],
  ["", false],
])("%j is a license expression: %j", (text, expected) => expect(isExpression(text)).toBe(expected));

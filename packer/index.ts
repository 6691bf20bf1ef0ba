/** Public entry point `cloister/packer`. */
export { type BuildOptions, type BuildResult, build } from "./build.ts";
export type { Component, Digest } from "./component.ts";
export { type CloisterConfig, type Compression, defineConfig } from "./config.ts";
export type { ImageMeasurements, ImageSection } from "./image.ts";
export { loadProject, type Project, type ProjectOptions } from "./project.ts";
export type { Report, ReportAsset, ReportModule, ReportPackage } from "./report.ts";
export type { SbomFormat } from "./sbom.ts";

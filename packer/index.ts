/** Public entry point `cloister/packer`. */
export { type BuildOptions, type BuildResult, build } from "./build.ts";
export { type CloisterConfig, type Compression, defineConfig } from "./config.ts";
export type { ImageMeasurements, ImageSection } from "./image.ts";
export { loadProject, type Project, type ProjectOptions } from "./project.ts";

/** Images for `cloister dev`: the app's and, over the base, an init that lets the parent replace it. Measured as such. */
import { encodeApp } from "./app.ts";
import { makeBase } from "./base.ts";
import { describeImage } from "./build.ts";
import type { Bundle } from "./bundle.ts";
import { Cache, defaultCacheDirectory } from "./cache.ts";
import { Image, type ImageMeasurements } from "./image.ts";
import { checkMemory } from "./memory.ts";
import { DEVELOPMENT_PROGRAMS, loadPrograms } from "./program.ts";
import type { Project } from "./project.ts";
import { makeRamdisk } from "./ramdisk.ts";
import { readRelease } from "./release.ts";

/** For the processes of two generations of the app, and of a third one that waits. */
const EXTRA_MEMORY_MIB = 256;

export interface DevelopmentOptions {
  readonly project: Project;
  readonly bundle: Bundle;
  /** Absolute path of the EIF. */
  readonly output: string;
  /** Default: as of `build`. */
  readonly cacheDirectory?: string;
}

export interface DevelopmentImage {
  readonly eifPath: string;
  readonly measurements: ImageMeasurements;
  /** The configured memory and what development takes besides. */
  readonly memoryMiB: number;
  readonly warnings: readonly string[];
}

/** Write the image; `cloister build` never makes one. Throws as `build`. */
export async function buildDevelopment(options: DevelopmentOptions): Promise<DevelopmentImage> {
  const { project, bundle, output: eifPath, cacheDirectory } = options;
  const release = readRelease();
  const { compression, cpus } = project.config;
  const storage = {
    compression,
    cache: new Cache(cacheDirectory ?? defaultCacheDirectory(project.directory)),
  };
  const [programs, development] = await Promise.all([
    loadPrograms(release),
    loadPrograms(release, DEVELOPMENT_PROGRAMS),
  ]);
  const base = await makeBase(release, programs, storage);
  const archives = encodeApp(project, bundle, development);
  const apps = await Promise.all(archives.map((archive) => makeRamdisk(() => archive, storage)));
  const memoryMiB = project.config.memoryMiB + EXTRA_MEMORY_MIB;
  const described = describeImage(release, project, { buildTime: 0, development: true });
  const image = new Image(base, described, apps, { memoryMiB, cpus });
  const { warnings } = checkMemory(memoryMiB, [base.ramdisk, ...apps], image.sizeBytes);
  const measurements = image.measure();
  await image.write(eifPath);
  return { eifPath, measurements, memoryMiB, warnings };
}

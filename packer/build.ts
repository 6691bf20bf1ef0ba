/** Entry module in, EIF and measurements out. */
import { resolve } from "node:path";
import { CloisterError } from "../format/errors.ts";
import { encodeCustomMetadata, encodeMetadata } from "../format/metadata.ts";
import { encodeApp } from "./app.ts";
import { makeBase, type Storage } from "./base.ts";
import { type Bundle, bundleApp } from "./bundle.ts";
import { Cache, defaultCacheDirectory } from "./cache.ts";
import type { CloisterConfig } from "./config.ts";
import { Image, type ImageMeasurements, type ImageSection } from "./image.ts";
import { checkMemory } from "./memory.ts";
import { loadPrograms } from "./program.ts";
import { loadProject, type Project } from "./project.ts";
import { makeRamdisk, type Ramdisk } from "./ramdisk.ts";
import { type Release, readRelease } from "./release.ts";
import { makeReport, type Report } from "./report.ts";
import { encodeSbom, type SbomFormat } from "./sbom.ts";

export interface BuildOptions {
  /** The project: where cloister.config.* and package.json are. */
  readonly directory: string;
  /** Entry module, relative to `directory`; wins over the configuration. */
  readonly entry?: string;
  /** Path of the EIF, relative to `directory`. Default: NAME.eif. */
  readonly output?: string;
  /** Fields that win over the configuration file's. */
  readonly overrides?: CloisterConfig;
  /** Default: node_modules/.cache/cloister, or the user's cache directory. */
  readonly cacheDirectory?: string;
  /** Seconds since 1970 for the unmeasured BuildTime. Default: SOURCE_DATE_EPOCH, or 0. */
  readonly buildTime?: number;
  /** Called as work begins: "Bundling app.ts". */
  readonly onProgress?: (step: string) => void;
}

export interface BuildResult {
  /** Absolute. */
  readonly eifPath: string;
  readonly sizeBytes: number;
  readonly measurements: ImageMeasurements;
  readonly sections: readonly ImageSection[];
  /** The configured memory, MiB, and the least that was found to work for images of this size. */
  readonly memoryMiB: { readonly configured: number; readonly needed: number };
  /** What is allowed but odd, a line each. */
  readonly warnings: readonly string[];
  /** Milliseconds. `bundle` and `base` run at the same time. */
  readonly timings: Timings;
  /** What is in it and why; made when it is asked for. */
  report(): Report;
  /** A bill of materials of it, JSON text; its time is `buildTime`. */
  sbom(format: SbomFormat): string;
}

type Timings = Readonly<Record<"bundle" | "base" | "app" | "write" | "total", number>>;

/**
 * Build the project's EIF. The bytes depend on the project's files and on this release, on nothing else.
 * Throws CloisterError: what `loadProject`, `bundleApp` and `checkMemory` throw, E_INSTALL, or E_WRITE, which leaves
 * under the output's name what was there.
 */
export async function build(options: BuildOptions): Promise<BuildResult> {
  const clock = new Stopwatch();
  const report = options.onProgress ?? (() => {});
  const release = readRelease();
  const [project, programs] = await Promise.all([loadProject(options), loadPrograms(release)]);
  const storage: Storage = {
    compression: project.config.compression,
    cache: new Cache(options.cacheDirectory ?? defaultCacheDirectory(project.directory)),
  };
  report(`Bundling ${project.entry}`);
  // esbuild works in a process of its own: the base is hashed meanwhile.
  const [bundle, base] = await Promise.all([
    clock.time("bundle", bundleApp(project)),
    clock.time("base", makeBase(release, programs, storage)),
  ]);
  report("Compressing the app");
  const apps = await clock.time("app", makeApps(project, bundle, storage));
  const buildTime = options.buildTime ?? sourceDateEpoch();
  const described = describeImage(release, project, { buildTime });
  const image = new Image(base, described, apps, project.config);
  const memory = checkMemory(project.config.memoryMiB, [base.ramdisk, ...apps], image.sizeBytes);
  const measurements = image.measure();
  const eifPath = resolve(project.directory, options.output ?? `${project.name}.eif`);
  report(`Writing ${eifPath}`);
  await clock.time("write", image.write(eifPath));
  return {
    eifPath,
    sizeBytes: image.sizeBytes,
    measurements,
    sections: image.sections,
    memoryMiB: memory.memoryMiB,
    warnings: [...bundle.warnings, ...memory.warnings],
    timings: clock.timings(),
    report: () => makeReport(project, bundle, release),
    sbom: (format) =>
      encodeSbom(makeReport(project, bundle, release), {
        format,
        measurements,
        toolVersion: release.version,
        time: buildTime,
      }),
  };
}

async function makeApps(project: Project, bundle: Bundle, storage: Storage): Promise<Ramdisk[]> {
  return Promise.all(encodeApp(project, bundle).map((archive) => makeRamdisk(() => archive, storage)));
}

/** The metadata section. */
export function describeImage(
  release: Release,
  project: Project,
  { buildTime, development = false }: { readonly buildTime: number; readonly development?: boolean },
): Uint8Array {
  return encodeMetadata({
    ImageName: project.name,
    ImageVersion: project.version,
    BuildMetadata: {
      BuildTime: new Date(buildTime * 1000).toISOString().replace(/\.000Z$/, "+00:00"),
      BuildTool: "cloister",
      BuildToolVersion: release.version,
      OperatingSystem: "Linux",
      KernelVersion: release.kernelRelease,
    },
    DockerInfo: null,
    // The parent's proxy has its own copy of the list; what the enclave obeys is the measured one.
    CustomMetadata: encodeCustomMetadata({ ...project.config, development }),
  });
}

/** reproducible-builds.org/specs/source-date-epoch: seconds since 1970, in the environment. 0 unless it is given. */
function sourceDateEpoch(): number {
  const text = process.env.SOURCE_DATE_EPOCH ?? "0";
  // Date ends at 8.64e15 ms.
  if (/^\d{1,12}$/.test(text)) return Number(text);
  throw new CloisterError("E_CONFIG", `SOURCE_DATE_EPOCH: got "${text}", expected seconds since 1970`);
}

/** Milliseconds that named steps took. */
class Stopwatch {
  readonly #start = performance.now();
  readonly #timings: Record<string, number> = {};

  async time<T>(step: keyof Timings, work: Promise<T>): Promise<T> {
    const start = performance.now();
    const result = await work;
    this.#timings[step] = Math.round(performance.now() - start);
    return result;
  }

  timings(): Timings {
    return { ...this.#timings, total: Math.round(performance.now() - this.#start) } as unknown as Timings;
  }
}

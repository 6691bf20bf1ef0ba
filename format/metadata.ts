/**
 * The metadata section: compact JSON, not measured. Source: image-format `src/defs/mod.rs`, EifIdentityInfo and
 * EifBuildInfo, whose reader wants every key there, null or not, and whose writer has this order.
 */
import { parseEgressRule } from "./egress.ts";
import { isObject, type Json, JsonNode } from "./json.ts";

/** `BuildTool` of images with our init, which opens the control channel. */
export const BUILD_TOOL = "cloister";

/** Key of CustomMetadata: the image's egress rules, for the parent's proxy. */
export const METADATA_EGRESS = "Egress";

/** Key of CustomMetadata: true where the enclave expects a PROXY protocol header on its connections. */
export const METADATA_PROXY_PROTOCOL = "ProxyProtocol";

/** Key of CustomMetadata: true in an image of `cloister dev`. What counts is measured: `dev` in enclave.json. */
export const METADATA_DEVELOPMENT = "Development";

export interface EifMetadata {
  readonly ImageName: string;
  readonly ImageVersion: string;
  readonly BuildMetadata: BuildMetadata;
  /** What `docker inspect` says, or null. */
  readonly DockerInfo: Json;
  /** The builder's own, or null. */
  readonly CustomMetadata: Json;
}

export interface BuildMetadata {
  /** RFC 3339, as `2024-01-02T03:04:05+00:00`. */
  readonly BuildTime: string;
  readonly BuildTool: string;
  readonly BuildToolVersion: string;
  readonly OperatingSystem: string;
  readonly KernelVersion: string;
}

/** The section's data, byte for byte as AWS's builder writes it. */
export function encodeMetadata(metadata: EifMetadata): Uint8Array {
  const build = metadata.BuildMetadata;
  const ordered: EifMetadata = {
    ImageName: metadata.ImageName,
    ImageVersion: metadata.ImageVersion,
    BuildMetadata: {
      BuildTime: build.BuildTime,
      BuildTool: build.BuildTool,
      BuildToolVersion: build.BuildToolVersion,
      OperatingSystem: build.OperatingSystem,
      KernelVersion: build.KernelVersion,
    },
    DockerInfo: metadata.DockerInfo,
    CustomMetadata: metadata.CustomMetadata,
  };
  return new TextEncoder().encode(JSON.stringify(ordered));
}

/** Keys it does not know are dropped, as AWS's reader does. Throws E_EIF_METADATA, naming the key. */
export function decodeMetadata(data: Uint8Array): EifMetadata {
  const root = JsonNode.parse("E_EIF_METADATA", "metadata section", data);
  const build = root.get("BuildMetadata");
  return {
    ImageName: root.get("ImageName").string(),
    ImageVersion: root.get("ImageVersion").string(),
    BuildMetadata: {
      BuildTime: build.get("BuildTime").string(),
      BuildTool: build.get("BuildTool").string(),
      BuildToolVersion: build.get("BuildToolVersion").string(),
      OperatingSystem: build.get("OperatingSystem").string(),
      KernelVersion: build.get("KernelVersion").string(),
    },
    DockerInfo: root.get("DockerInfo").any(),
    CustomMetadata: root.get("CustomMetadata").any(),
  };
}

/** What the parent has to know of the measured configuration, as CustomMetadata; null where that is nothing. */
export function encodeCustomMetadata(config: {
  readonly egress: readonly string[];
  readonly proxyProtocol: boolean;
  /** Default false. */
  readonly development?: boolean;
}): Json {
  const { egress, proxyProtocol, development = false } = config;
  if (egress.length === 0 && !proxyProtocol && !development) return null;
  return {
    ...(egress.length > 0 && { [METADATA_EGRESS]: egress }),
    ...(proxyProtocol && { [METADATA_PROXY_PROTOCOL]: true }),
    ...(development && { [METADATA_DEVELOPMENT]: true }),
  };
}

/** The egress rules that the image's builder wrote down; none for images of other tools. */
export function metadataEgress({ CustomMetadata: custom }: EifMetadata): readonly string[] {
  const rules = isObject(custom) ? custom[METADATA_EGRESS] : undefined;
  if (!Array.isArray(rules)) return [];
  return rules.filter(
    (rule): rule is string => typeof rule === "string" && parseEgressRule(rule) !== undefined,
  );
}

/** Whether connections to the app begin with a PROXY protocol header; false for images of other tools. */
export function metadataProxyProtocol({ CustomMetadata: custom }: EifMetadata): boolean {
  return isObject(custom) && custom[METADATA_PROXY_PROTOCOL] === true;
}

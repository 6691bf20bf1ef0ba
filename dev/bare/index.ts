/**
 * A bare enclave: the app of an image in a plain Node process, with the runtime, the egress list and the control messages
 * of an enclave, an emulated NSM, and Unix sockets for vsock. It needs no QEMU and no Linux, and isolates nothing.
 */
import { createHash } from "node:crypto";
import { bootRegisters, type NsmOptions, parentIdentity } from "../../emulator/nsm/boot.ts";
import { NsmModule } from "../../emulator/nsm/module.ts";
import { serveNsm } from "../../emulator/nsm/service.ts";
import { SigningAuthority } from "../../emulator/nsm/signer.ts";
import { CID_FIRST_ENCLAVE, PORT_EGRESS } from "../../format/abi.ts";
import { SectionType } from "../../format/eif.ts";
import { type Measurements, Measurer } from "../../format/measurement.ts";
import type { VsockStream } from "../../launcher/device.ts";
import { EgressProxy, type LocalEgress } from "../../launcher/egress.ts";
import type { EnclaveEvent } from "../../launcher/event.ts";
import type { Publish } from "../../launcher/publish.ts";
import { encodeApp } from "../../packer/app.ts";
import type { Bundle } from "../../packer/bundle.ts";
import type { Project } from "../../packer/project.ts";
import { BareEnclave } from "./enclave.ts";
import { placeApp } from "./folder.ts";
import { type BarePublisher, publishBare } from "./publish.ts";
import { type Standby, startStandby } from "./standby.ts";
import { BareParentVsock } from "./vsock.ts";

export { BareEnclave, type Standby, startStandby };

export interface BareOptions {
  readonly project: Project;
  readonly bundle: Bundle;
  /** TCP ports. */
  readonly publish: readonly Publish[];
  /** What the app was built with is carried, and of this machine and its link only what `local` names. */
  readonly egress?: { readonly local?: readonly LocalEgress[] };
  /** HOST:PORT where Node's inspector is to listen. */
  readonly inspect?: string;
  readonly onEvent?: (event: EnclaveEvent) => void;
  readonly nsm?: NsmOptions;
  /** Unix milliseconds, for attestation documents. Default: this machine's clock. */
  readonly now?: () => number;
  /** Runs it, and ends with it, or with a start that fails. Default: a process that is started now. */
  readonly standby?: Standby;
  /** Whether a connection of the enclave to this port of its parent is served; for tests. Default: yes. */
  readonly admit?: (port: number, stream: VsockStream) => boolean;
}

/**
 * Start an app in place of an enclave. Resolves once its process runs; `ready` says when it serves. Rejects with
 * E_PORT_TAKEN or E_PORT_UNUSABLE, E_CONFIG, or RangeError for options that make no sense. Nothing is left behind then.
 */
export async function startBare(options: BareOptions): Promise<BareEnclave> {
  const begin = performance.now();
  await using stack = new AsyncDisposableStack();
  const standby = stack.use(options.standby ?? (await startStandby()));
  const { project, bundle, onEvent = () => {}, inspect, nsm = {} } = options;
  const publishers: BarePublisher[] = [];
  for (const wanted of options.publish) {
    const publisher = await publishBare(wanted, project.config.proxyProtocol);
    stack.defer(() => publisher.close());
    publishers.push(publisher);
  }
  const archives = encodeApp(project, bundle);
  placeApp(standby.folder, { archives, sources: project.directory });
  const vsock = stack.use(new BareParentVsock(standby.folder, CID_FIRST_ENCLAVE));
  const measurements = measure(archives);
  const authority = new SigningAuthority(nsm.root, nsm.now ?? options.now);
  serveModule({ vsock, measurements, authority, options });
  stack.defer(carryEgress(vsock, options));
  const resources = stack.move();
  return new BareEnclave({
    name: project.name,
    measurements,
    attestationRoot: async () => (await authority.root()).certificate,
    process: { standby, inspect, redact: project.config.redact },
    vsock,
    publishers,
    emit: onEvent,
    elapsedMs: () => performance.now() - begin,
    release: () => resources.disposeAsync(),
  });
}

/** No image has these values: in place of kernel and bootstrap ramdisk there is this text. */
const BASE = new TextEncoder().encode("cloister: a bare enclave, which is no enclave");

/** The registers change with the app, as an image's do. */
function measure(archives: readonly Uint8Array[]): Measurements {
  const measurer = new Measurer(() => createHash("sha384"));
  for (const ramdisk of [BASE, ...archives]) {
    measurer.section(SectionType.Ramdisk);
    measurer.update(ramdisk);
  }
  return measurer.digest();
}

interface Attested {
  readonly vsock: BareParentVsock;
  readonly measurements: Measurements;
  readonly authority: SigningAuthority;
  readonly options: BareOptions;
}

function serveModule({ vsock, measurements, authority, options }: Attested): void {
  const { nsm = {}, onEvent } = options;
  const { now = options.now, pause } = nsm;
  const parent = parentIdentity(nsm);
  const moduleId = `${parent.instanceId}-enc0`;
  const { sign } = authority.signerFor(moduleId, parent.instanceId);
  const registers = bootRegisters({ ...parent, debug: false, measurements, signature: undefined });
  const onError = (error: unknown) => onEvent?.({ type: "fault", reason: `NSM: ${error}` });
  serveNsm(vsock, new NsmModule({ moduleId, registers, sign, onError, now, pause }));
}

/** Returns what ends it. */
function carryEgress(vsock: BareParentVsock, { project, egress, onEvent, admit }: BareOptions): () => void {
  const { egress: rules } = project.config;
  if (rules.length === 0) return () => {};
  const onRefusal = (reason: string) => onEvent?.({ type: "egress", reason });
  const proxy = new EgressProxy({ ...egress, rules, onRefusal });
  vsock.listen(PORT_EGRESS, (stream) => {
    if (admit?.(PORT_EGRESS, stream) === false) stream.destroy();
    else void proxy.accept(stream);
  });
  return () => proxy.close();
}

/** What a bare enclave is not: a sentence each. The dev loop warns of them, and docs/testing.md has them. */
export const BARE_DIFFERENCES: readonly string[] = [
  "Nothing isolates it: it runs as you, on your files and your machine's kernel, and anyone who is you can read its memory.",
  "Only Node's own network is routed: a native addon or another program connects wherever it likes.",
  "Its attestation documents have registers that no image has, so a policy made of a build refuses them.",
  "Memory, CPUs and the size of /tmp are the machine's.",
  "The app lies in a temporary folder, not in /app, and TMPDIR is beside it.",
  "Its clock is the machine's: the parent cannot set it.",
  "A connection that the other side resets reads as one that ended.",
  "Native addons must be of this machine's platform; in an image they are of Linux.",
];

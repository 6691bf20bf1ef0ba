/**
 * What `defineConfig` refuses at compile time. Nothing runs this: `tsc` checks it with the rest, and complains of a line
 * that it was expected to refuse and did not.
 */
import { type CloisterConfig, defineConfig, type EgressRuleText } from "../../packer/config.ts";

export const right: readonly CloisterConfig[] = [
  defineConfig({}),
  defineConfig({
    memory: "512M",
    tmp: "1G",
    egress: ["api.example.com:443", "[2001:db8::1]:*", "[2001:db8::1]:443", "*.example.com:443"],
  }),
  defineConfig({
    memory: 512,
    ready: "app",
    redact: ["password"],
    compression: { algorithm: "gzip", level: 1 },
  }),
  defineConfig({ egress: ["a.test", "b.test"].map((host): EgressRuleText => `${host}:443`) }),
  defineConfig({ $schema: "./node_modules/cloister/cloister.schema.json" }),
];

export const wrong = [
  // @ts-expect-error misspelt
  defineConfig({ memroy: "512M" }),
  // @ts-expect-error another unit
  defineConfig({ memory: "512MB" }),
  // @ts-expect-error no number
  defineConfig({ memory: "lots" }),
  // @ts-expect-error a port, not a list of them
  defineConfig({ ports: 8080 }),
  // @ts-expect-error no port
  defineConfig({ egress: ["api.example.com"] }),
  // @ts-expect-error a URL
  defineConfig({ egress: ["https://api.example.com"] }),
  // @ts-expect-error a number
  defineConfig({ env: { PORT: 8080 } }),
  // @ts-expect-error neither of the two
  defineConfig({ ready: "later" }),
  // @ts-expect-error unknown
  defineConfig({ compression: { algorithm: "xz" } }),
  // @ts-expect-error a text
  defineConfig({ attestation: "yes" }),
];

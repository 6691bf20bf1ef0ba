import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { EGRESS_EXPECTED } from "../../format/egress.ts";
import { decodeEnclaveJson, type EnclaveJson, encodeEnclaveJson } from "../../format/enclave.ts";
import { REDACT_EXPECTED } from "../../format/redact.ts";
import { refusal, utf8 } from "./vectors.ts";

const config: EnclaveJson = {
  version: 1,
  name: "hello",
  entry: "dist/app.js",
  ports: [8080, 3000],
  env: { ZONE: "a=b", A: "", ünï: "日本" },
  egress: ["api.example.com:443", "*.example.com:*"],
  ca: [],
  attestation: true,
  tls: false,
  ready: "listen",
  redact: ["password", "/sk_[a-z]+/i"],
  tmpMiB: 64,
  proxyProtocol: false,
  dev: false,
};

test("reads back what was written", () => {
  expect(decodeEnclaveJson(encodeEnclaveJson(config))).toEqual(config);
});

test("the same configuration is the same bytes", () => {
  const { env, ...rest } = config;
  const shuffled = { env: Object.fromEntries(Object.entries(env).reverse()), ...rest };
  expect(encodeEnclaveJson(shuffled)).toEqual(encodeEnclaveJson(config));
  expect(new TextDecoder().decode(encodeEnclaveJson({ ...config, env: {}, ports: [1] }))).toBe(
    '{\n  "version": 1,\n  "name": "hello",\n  "entry": "dist/app.js",\n  "ports": [\n    1\n  ],\n  "env": {},\n  "egress": [\n    "api.example.com:443",\n    "*.example.com:*"\n  ],\n  "ca": [],\n' +
      '  "attestation": true,\n  "tls": false,\n  "ready": "listen",\n  "redact": [\n    "password",\n    "/sk_[a-z]+/i"\n  ],\n' +
      '  "tmpMiB": 64,\n  "proxyProtocol": false,\n  "dev": false\n}\n',
  );
});

test("reads back any environment", () => {
  const name = fc.string({ minLength: 1 }).filter((text) => !/[=\0]/.test(text));
  const value = fc.string({ unit: "grapheme" }).filter((text) => !text.includes("\0"));
  fc.assert(
    fc.property(fc.dictionary(name, value), (env) => {
      expect(decodeEnclaveJson(encodeEnclaveJson({ ...config, env })).env).toEqual({ ...env });
    }),
  );
  const hostile = utf8(JSON.stringify(config).replace('"A":""', '"__proto__":"polluted"'));
  expect(Object.keys(decodeEnclaveJson(hostile).env)).toContain("__proto__");
  expect(({} as Record<string, unknown>).polluted).toBeUndefined();
});

describe("names the path of what is wrong", () => {
  const ports = "1..4294967294";
  test.each<[Record<string, unknown>, string]>([
    [{ version: 2 }, "version: got 2, expected 1..1"],
    [{ version: undefined }, "version: got nothing, expected 1..1"],
    [{ name: "" }, 'name: got "", expected a name without slashes and control characters'],
    [{ name: "a/b" }, 'name: got "a/b", expected a name without slashes and control characters'],
    [{ name: 7 }, "name: got 7, expected a string"],
    [{ entry: "/app.js" }, 'entry: got "/app.js", expected a path below /app'],
    [{ entry: "a/../../init" }, 'entry: got "a/../../init", expected a path below /app'],
    [{ entry: "" }, 'entry: got "", expected a path below /app'],
    [{ ports: [8080, 0] }, `ports[1]: got 0, expected ${ports}`],
    [{ ports: [2 ** 32 - 1] }, `ports[0]: got 4294967295, expected ${ports}`],
    [{ ports: ["80"] }, `ports[0]: got "80", expected ${ports}`],
    [{ ports: [1.5] }, `ports[0]: got 1.5, expected ${ports}`],
    [{ ports: [1, 2, 1] }, "ports[2]: got 1, expected each port once"],
    [{ ports: {} }, "ports: got an object, expected an array"],
    [{ egress: undefined }, "egress: got nothing, expected an array"],
    [{ egress: ["a.com:1", "a.com"] }, `egress[1]: got "a.com", expected ${EGRESS_EXPECTED}`],
    [{ ca: [1] }, "ca[0]: got 1, expected a string"],
    [{ tls: undefined }, "tls: got nothing, expected true or false"],
    [{ attestation: 1 }, "attestation: got 1, expected true or false"],
    [{ ready: "soon" }, 'ready: got "soon", expected listen | app'],
    [{ redact: ["ok", ""] }, `redact[1]: got "", expected ${REDACT_EXPECTED}`],
    [{ redact: ["/(/"] }, `redact[0]: got "/(/", expected ${REDACT_EXPECTED}`],
    [{ tmpMiB: 0 }, "tmpMiB: got 0, expected 1..1048576"],
    [{ proxyProtocol: "yes" }, 'proxyProtocol: got "yes", expected true or false'],
    [{ dev: null }, "dev: got null, expected true or false"],
    [{ env: [] }, "env: got an array of 0, expected an object"],
    [{ env: { A: 1 } }, "env.A: got 1, expected a string"],
    [{ env: { "A=B": "x" } }, 'env.A=B: got "x", expected a variable name without = and NUL'],
    [{ env: { "": "x" } }, 'env.: got "x", expected a variable name without = and NUL'],
    [{ env: { A: "x\0y" } }, 'env.A: got "x\\u0000y", expected a value without NUL'],
    [{ memory: 512 }, "memory: got 512, expected no such key"],
  ])("%j", (change, message) => {
    expect(refusal(() => decodeEnclaveJson(utf8(JSON.stringify({ ...config, ...change }))))).toBe(
      `E_ENCLAVE_JSON: enclave.json: ${message}`,
    );
  });

  test("when writing too", () => {
    expect(refusal(() => encodeEnclaveJson({ ...config, ports: [0] }))).toBe(
      `E_ENCLAVE_JSON: enclave.json: ports[0]: got 0, expected ${ports}`,
    );
  });

  test("and of no JSON at all", () => {
    expect(refusal(() => decodeEnclaveJson(utf8("{")))).toMatch(
      /^E_ENCLAVE_JSON: enclave.json: got "{" \(.*\), expected JSON$/,
    );
  });
});

test("the largest and smallest ports pass", () => {
  expect(decodeEnclaveJson(encodeEnclaveJson({ ...config, ports: [1, 2 ** 32 - 2] })).ports).toEqual([
    1,
    2 ** 32 - 2,
  ]);
});

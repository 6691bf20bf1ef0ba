/** The examples' own rules, without an enclave. */
import { createHash } from "node:crypto";
import fc from "fast-check";
import { createLocalJWKSet, decodeProtectedHeader, jwtVerify } from "jose";
import { describe, expect, test } from "vitest";
import {
  costOf,
  readTransfer,
  refusalOf,
  type SpendingPolicy,
  type Transfer,
} from "../../examples/ethereum-signer/policy.ts";
import { createIssuer } from "../../examples/jwt-issuer/issuer.ts";
import { Sessions } from "../../examples/set-intersection/sessions.ts";
import { Poll } from "../../examples/vote-tally/poll.ts";

const sha256 = (text: string) => createHash("sha256").update(text).digest("hex");

describe("ethereum-signer", () => {
  const to = "0xd8da6bf26964af9d7eed9e03e53415d37aa96045";
  const policy: SpendingPolicy = { chainId: 1, recipients: [to], budget: 10n ** 18n };
  const json = {
    chainId: 1,
    nonce: 0,
    to,
    value: "1000",
    maxFeePerGas: "20",
    maxPriorityFeePerGas: "1",
  };
  const transfer = readTransfer(json);

  test("signs a transfer within its policy, in any spelling of the address", () => {
    expect(refusalOf(transfer, policy, 0n)).toBeUndefined();
    expect(readTransfer({ ...json, to: to.toUpperCase().replace("0X", "0x") })).toEqual(transfer);
  });

  test.each<[Partial<Transfer>, string]>([
    [{ chainId: 5 }, "chainId: got 5, expected 1"],
    [{ to: "0x0000000000000000000000000000000000000000" }, "to: got 0x0000"],
    [{ maxPriorityFeePerGas: 21n }, "maxPriorityFeePerGas"],
    [{ value: 10n ** 18n }, "value and fees: got 1000000000000420000 wei"],
  ])("refuses %o", (change, reason) => {
    expect(refusalOf({ ...transfer, ...change }, policy, 0n)).toContain(reason);
  });

  test("spends the budget to the last wei and never beyond", () => {
    const amounts = fc.array(fc.bigInt({ min: 0n, max: 10n ** 18n }), { maxLength: 20 });
    fc.assert(
      fc.property(amounts, (values) => {
        let spent = 0n;
        for (const value of values) {
          const wanted = { ...transfer, value };
          if (refusalOf(wanted, policy, spent) === undefined) spent += costOf(wanted);
        }
        return spent <= policy.budget;
      }),
    );
    const rest = { ...transfer, value: policy.budget - costOf({ ...transfer, value: 0n }) };
    expect(refusalOf(rest, policy, 0n)).toBeUndefined();
    expect(refusalOf(rest, policy, 1n)).toBeDefined();
  });

  test.each([
    [{ ...json, to: "vitalik.eth" }, "to: expected 0x"],
    [{ ...json, value: -1 }, "value: expected wei"],
    [{ ...json, value: "0x10" }, "value: expected wei"],
    [{ ...json, nonce: 1.5 }, "nonce: expected an integer"],
    [null, "chainId: expected an integer"],
    ["transfer", "chainId: expected an integer"],
  ])("reads no transfer from %o", (value, reason) => {
    expect(() => readTransfer(value)).toThrow(reason);
  });
});

describe("vote-tally", () => {
  const poll = () => new Poll({ choices: ["yes", "no"], voters: [sha256("a"), sha256("b")] });

  test("counts each voter once, and tells nothing before the last", () => {
    const open = poll();
    expect(open.vote("a", "yes")).toBeUndefined();
    expect(open.vote("a", "no")).toContain("has not voted");
    expect(open.result()).toBeUndefined();
    expect(open.vote("b", "no")).toBeUndefined();
    expect(open.result()).toEqual({ counts: { yes: 1, no: 1 }, voters: 2 });
  });

  test("a refused ballot costs no vote", () => {
    const open = poll();
    expect(open.vote("a", "perhaps")).toContain("choice: expected one of yes, no");
    expect(open.vote("stranger", "yes")).toContain("token");
    expect(open.missing).toBe(2);
  });
});

describe("set-intersection", () => {
  const limits = { sessions: 2, elements: 3, length: 5 };

  test("tells both parties what they have in common, and then forgets", () => {
    const sessions = new Sessions(limits);
    expect(sessions.upload("s", "one", "b\na\n\na")).toBeUndefined();
    expect(sessions.intersection("s", "one")).toBeUndefined();
    expect(sessions.upload("s", "two", "a\nc\nb")).toBeUndefined();
    expect(sessions.intersection("s", "one")).toEqual(["a", "b"]);
    expect(sessions.intersection("s", "stranger")).toBeNull();
    expect(sessions.intersection("s", "two")).toEqual(["a", "b"]);
    expect(sessions.intersection("s", "one")).toBeNull();
  });

  test("refuses a second try, a third party and what is too large", () => {
    const sessions = new Sessions(limits);
    expect(sessions.upload("s", "one", "a\nb\nc\nd")).toContain("3 lines");
    expect(sessions.upload("s", "one", "longer")).toContain("5 characters");
    expect(sessions.upload("s", "one", "a")).toBeUndefined();
    expect(sessions.upload("s", "one", "b")).toContain("uploaded");
    expect(sessions.upload("s", "two", "a")).toBeUndefined();
    expect(sessions.upload("s", "three", "a")).toContain("two parties");
  });

  test("the oldest session goes", () => {
    const sessions = new Sessions(limits);
    for (const id of ["1", "2", "3"]) sessions.upload(id, "one", "a");
    expect(sessions.intersection("1", "one")).toBeNull();
    expect(sessions.intersection("2", "one")).toBeUndefined();
  });
});

describe("jwt-issuer", () => {
  test("issues tokens that its key set verifies, to clients that know their secret", async () => {
    const issuer = await createIssuer({
      issuer: "https://i",
      audience: "https://a",
      clients: new Map([["billing", sha256("right")]]),
      lifetime: 60,
    });
    const token = (await issuer.issue("billing", "right")) ?? "";
    const keys = createLocalJWKSet(issuer.keys);
    const { payload } = await jwtVerify(token, keys, { issuer: "https://i", audience: "https://a" });
    expect(payload.sub).toBe("billing");
    expect((payload.exp ?? 0) - (payload.iat ?? 0)).toBe(60);
    expect(decodeProtectedHeader(token)).toEqual({ alg: "ES256", kid: issuer.keys.keys[0]?.kid });
    expect(issuer.keys.keys[0]).not.toHaveProperty("d");
    expect(await issuer.issue("billing", "wrong")).toBeUndefined();
    expect(await issuer.issue("nobody", "")).toBeUndefined();
    expect(await issuer.issue("__proto__", "right")).toBeUndefined();
  });
});

/** What this signer signs: measured with the app, so that a verifier knows it. */
import type { Address, Hex } from "viem";

/** A transfer as a caller asks for it. */
export interface Transfer {
  readonly chainId: number;
  readonly nonce: number;
  readonly to: Address;
  /** Wei. */
  readonly value: bigint;
  /** Wei per gas, and how much of it goes to the block's proposer. */
  readonly maxFeePerGas: bigint;
  readonly maxPriorityFeePerGas: bigint;
}

export interface SpendingPolicy {
  readonly chainId: number;
  readonly recipients: readonly Address[];
  /** Wei, fees included, over the life of this enclave. */
  readonly budget: bigint;
}

/** A plain transfer of ether (Ethereum yellow paper, G_transaction). */
export const TRANSFER_GAS = 21_000n;

/** The most that a transfer can cost, wei. */
export function costOf({ value, maxFeePerGas }: Transfer): bigint {
  return value + TRANSFER_GAS * maxFeePerGas;
}

/** Why it is refused; undefined: it is not. `spent`: wei so far. */
export function refusalOf(transfer: Transfer, policy: SpendingPolicy, spent: bigint): string | undefined {
  if (transfer.chainId !== policy.chainId)
    return `chainId: got ${transfer.chainId}, expected ${policy.chainId}`;
  if (!policy.recipients.includes(transfer.to))
    return `to: got ${transfer.to}, expected one of the measured recipients`;
  if (transfer.maxPriorityFeePerGas > transfer.maxFeePerGas)
    return "maxPriorityFeePerGas: expected at most maxFeePerGas";
  const left = policy.budget - spent;
  if (costOf(transfer) > left) return `value and fees: got ${costOf(transfer)} wei, expected at most ${left}`;
  return undefined;
}

/** JSON of a caller, numbers of wei as decimal strings. Throws TypeError, naming the field. */
export function readTransfer(json: unknown): Transfer {
  const fields = Object(json) as Readonly<Record<string, unknown>>;
  return {
    chainId: count(fields, "chainId"),
    nonce: count(fields, "nonce"),
    to: address(fields.to, "to"),
    value: wei(fields, "value"),
    maxFeePerGas: wei(fields, "maxFeePerGas"),
    maxPriorityFeePerGas: wei(fields, "maxPriorityFeePerGas"),
  };
}

/** Lower case: one spelling an address. Throws TypeError. */
export function address(value: unknown, name: string): Hex {
  if (typeof value === "string" && /^0x[0-9a-fA-F]{40}$/.test(value)) return value.toLowerCase() as Hex;
  throw new TypeError(`${name}: expected 0x and 40 hexadecimal digits`);
}

function count(fields: Readonly<Record<string, unknown>>, name: string): number {
  const value = fields[name];
  if (Number.isSafeInteger(value) && (value as number) >= 0) return value as number;
  throw new TypeError(`${name}: expected an integer from 0`);
}

function wei(fields: Readonly<Record<string, unknown>>, name: string): bigint {
  const value = fields[name];
  if (typeof value === "string" && /^\d{1,30}$/.test(value)) return BigInt(value);
  throw new TypeError(`${name}: expected wei as a decimal string`);
}

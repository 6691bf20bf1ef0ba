/**
 * Verify the signer, have it sign a transfer, check who signed:
 * `npx cloister node -- client.ts URL release.json TO WEI [ROOT.pem]`
 */
import { X509Certificate } from "node:crypto";
import { readFile } from "node:fs/promises";
import { createClient, fingerprint, policyFromBuild } from "cloister/client";
import { parseTransaction, recoverTransactionAddress, type TransactionSerializedEIP1559 } from "viem";

const [url, release, to, value, root] = process.argv.slice(2);
if (url === undefined || release === undefined || to === undefined || value === undefined) {
  console.error("usage: client.ts URL release.json TO WEI [ROOT.pem]");
  process.exit(2);
}

const signer = createClient(url, {
  policy: policyFromBuild(JSON.parse(await readFile(release, "utf8"))),
  // Only an emulated enclave needs another root than AWS's.
  ...(root !== undefined && { roots: [await fingerprint(new X509Certificate(await readFile(root)).raw)] }),
});
// Came encrypted from the attested enclave, so it is the key that was born there.
const { address } = await ask<{ address: string }>("/address");
console.log(`the signer is ${address}`);

const { transaction, budgetLeft } = await ask<{
  transaction: TransactionSerializedEIP1559;
  budgetLeft: string;
}>("/sign", {
  method: "POST",
  body: JSON.stringify({
    ...{ chainId: 11155111, nonce: 0, to, value },
    ...{ maxFeePerGas: "20000000000", maxPriorityFeePerGas: "1000000000" },
  }),
});
const signed = parseTransaction(transaction);
const by = await recoverTransactionAddress({ serializedTransaction: transaction });
if (by !== address || signed.to?.toLowerCase() !== to.toLowerCase() || signed.value !== BigInt(value))
  throw new Error(`got a transaction of ${by} to ${signed.to}, expected the signer's to ${to}`);
console.log(`signed: ${transaction}\n${budgetLeft} wei left`);

async function ask<T>(path: string, init?: RequestInit): Promise<T> {
  const response = await signer.fetch(path, init);
  if (response.ok) return (await response.json()) as T;
  throw new Error(`${path}: got status ${response.status}: ${await response.text()}`);
}

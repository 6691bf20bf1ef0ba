/** An Ethereum key that is born in the enclave and signs within a budget to measured recipients. */
import { generatePrivateKey, privateKeyToAccount } from "viem/accounts";
import { address, costOf, readTransfer, refusalOf, type SpendingPolicy, TRANSFER_GAS } from "./policy.ts";

const policy: SpendingPolicy = {
  chainId: Number(process.env.CHAIN_ID),
  recipients: (process.env.RECIPIENTS ?? "").split(",").map((text) => address(text, "RECIPIENTS")),
  budget: BigInt(process.env.BUDGET_WEI ?? "0"),
};
const account = privateKeyToAccount(generatePrivateKey());
let spent = 0n;

export default {
  async fetch(request: Request): Promise<Response> {
    const { pathname, protocol } = new URL(request.url);
    // In the clear the parent could answer in our place, and change what is to be signed.
    if (protocol !== "https:") return refuse(403, "only attested connections are served");
    if (pathname === "/address") return Response.json({ address: account.address });
    if (pathname === "/sign" && request.method === "POST") return await sign(await request.json());
    return refuse(404, "expected /address or POST /sign");
  },
};

async function sign(json: unknown): Promise<Response> {
  let transfer: ReturnType<typeof readTransfer>;
  try {
    transfer = readTransfer(json);
  } catch (error) {
    return refuse(400, (error as TypeError).message);
  }
  const reason = refusalOf(transfer, policy, spent);
  if (reason !== undefined) return refuse(403, reason);
  // Before the signature exists: two requests at once must not both find the same budget.
  spent += costOf(transfer);
  const transaction = await account.signTransaction({ type: "eip1559", gas: TRANSFER_GAS, ...transfer });
  return Response.json({ transaction, budgetLeft: String(policy.budget - spent) });
}

function refuse(status: number, reason: string): Response {
  return Response.json({ error: reason }, { status });
}

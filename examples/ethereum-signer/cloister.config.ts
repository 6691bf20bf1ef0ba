import { defineConfig } from "cloister";

export default defineConfig({
  memory: "320M",
  ports: [8080],
  // Measured: who verifies the enclave knows where its ether can go, and how much of it.
  env: {
    CHAIN_ID: "11155111",
    RECIPIENTS: "0x00000000219ab540356cbb839cbe05303d7705fa,0xd8da6bf26964af9d7eed9e03e53415d37aa96045",
    BUDGET_WEI: "1000000000000000000",
  },
});

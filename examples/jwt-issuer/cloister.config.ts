import { defineConfig } from "cloister";

export default defineConfig({
  memory: "256M",
  ports: [8080],
  // Measured: who gets tokens, for what. SHA-256 of each client's secret; these are of "billing-secret", "reports-secret".
  env: {
    ISSUER: "https://issuer.example",
    AUDIENCE: "https://api.example",
    CLIENTS: [
      "billing:12d043d4bd516bc34ea9e95648e9a12329d2d851840fb60b83822997f1382e17",
      "reports:cba98f988f2e420084bcd5700ca8ebdc8c2a17d47b9ede26e35dd9e0fb25b0c5",
    ].join(","),
  },
});

import { defineConfig } from "cloister";

// Attestation documents and encrypted requests are served by default: `attestation: false` would turn them off.
export default defineConfig({
  memory: "256M",
  ports: [8080],
});

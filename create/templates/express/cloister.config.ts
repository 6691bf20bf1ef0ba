import { defineConfig } from "cloister";

export default defineConfig({
  entry: "server.ts",
  memory: "256M",
  ports: [8080],
});

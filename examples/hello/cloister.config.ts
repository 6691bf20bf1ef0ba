import { defineConfig } from "cloister";

export default defineConfig({
  memory: "192M",
  ports: [8080],
});

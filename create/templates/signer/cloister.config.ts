import { defineConfig } from "cloister";

export default defineConfig({
  memory: "256M",
  ports: [8080],
});

import { defineConfig } from "cloister";

export default defineConfig({
  memory: "384M",
  ports: [8080],
});

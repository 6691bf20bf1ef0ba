import { defineConfig } from "cloister";

export default defineConfig({
  memory: "256M",
  ports: [8080],
  // Measured: choices, and SHA-256 of the tokens "alice-token", "bob-token", "carol-token". Real ones are random.
  env: {
    CHOICES: "yes,no",
    VOTERS: [
      "9c220f200955d76c0a38d308225e0ef10c5f971acaf2f8d1d8f732affa5bd1dc",
      "97dd3707015dcf069cf73022ed7173b1165db6eff24b441cb57fd069a8c4e525",
      "6c0d2c0b430d9d9e3231e2645090c735a5059173d4ddf51f186e3f32e01bc832",
    ].join(","),
  },
});

/** The routes; server.ts listens. */
import express from "express";

export const app = express();

app.use(express.text({ type: "*/*" }));
app.get("/", (_, response) => {
  response.json({ hello: "from an enclave" });
});
app.post("/shout", (request, response) => {
  response.type("text").send(String(request.body).toUpperCase());
});

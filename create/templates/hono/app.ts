/** The app. cloister serves what it exports on the first port of cloister.config.ts. */
import { Hono } from "hono";

const app = new Hono();

app.get("/", (context) => context.json({ hello: "from an enclave" }));
app.get("/hello/:name", (context) => context.text(`hello, ${context.req.param("name")}\n`));
app.post("/shout", async (context) => context.text((await context.req.text()).toUpperCase()));

export default app;
